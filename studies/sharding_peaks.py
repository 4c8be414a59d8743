"""One card's peak when several share a LoRA step: PyTorch's own FSDP2, traced, beside the closed form.

    python -m studies.sharding_peaks

The model is built with its PEFT configuration on fake tensors, sharded by ``fully_shard`` over a mesh of
``N`` devices whose collectives do nothing (torch's fake process group), and one step runs while every
storage is counted. FSDP2 frees and fills storages in place, so those calls are counted too. All layers of
these models are alike: traced are 2 and 4 of them, and each moment is drawn out in a straight line to all.
(Traced whole: Llama-3.1-8B in NF4 on 2 devices, ``WHOLE``.) Two ways to group what is sharded: ``root``,
a group for each layer and one for the rest, as in PyTorch's examples; ``accelerate``, as accelerate 1.15
does it: the embedding in a group of its own, and the last norm with the head.
Writes ``data/results/sharding_peaks.json``, a row at once; a row that is there is not traced again.
"""

import json
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import peftmemory
from pefthelpers.paths import data_dir
from peftmemory.sharding import per_device
from peftmemory.tracing.build import build_model, materialise
from peftmemory.tracing.heads import batch_of
from peftmemory.tracing.kernels import gpu_kernels
from peftmemory.tracing.live import LiveStorages
from peftmemory.tracing.step import packed, quiet
from studies.qlora_study import one_step

MODELS, DEVICES = ("llama-3.1-8b", "llama-3.1-70b"), (8, 2, 64)
STEP = {"batch": 1, "seq": 512, "checkpointing": True, "optimizer": "adamw_torch_fused"}
FEW = (2, 4)  # layers
GROUPINGS = ("accelerate", "root")
WHOLE = {
    "model": "llama-3.1-8b",
    "precision": "nf4",
    "devices": 2,
    "grouping": "root",
    "traced_bytes": 7594226816,
}
LORA = {"r": 16, "target_modules": "all-linear"}


class Resized(LiveStorages):
    """Live storages, of which some are emptied and filled again in place, as FSDP2 does."""

    def born(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage; a DTensor has none, its local part has been counted."""
        if not isinstance(tensor, DTensor):
            super().born(tensor)

    def resized(self, storage: torch.UntypedStorage, size: int) -> None:
        """Count a storage's new size."""
        key, old = storage._cdata, self.sizes.get(storage._cdata, storage.nbytes())
        if key not in self._kind:
            return
        self.sizes[key] = size
        self.live[self._kind[key]] += size - old
        self._total += size - old
        self._look()

    def _died(self, key: int, size: int) -> None:
        super()._died(key, self.sizes.pop(key, size))


@contextmanager
def counted(live: Resized):
    """Tell ``live`` whenever FSDP2 frees or fills a storage."""
    from torch.distributed.fsdp._fully_shard import _fsdp_param

    def free(tensor):
        live.resized(tensor.untyped_storage(), 0)
        old_free(tensor)

    def fill(tensor):
        old_fill(tensor)
        live.resized(tensor.untyped_storage(), tensor.numel() * tensor.itemsize)

    old_free, old_fill = _fsdp_param.free_storage, _fsdp_param.alloc_storage
    with (
        patch.object(_fsdp_param, "free_storage", free),
        patch.object(_fsdp_param, "alloc_storage", fill),
    ):
        yield


def trace(config, precision: str, devices: int, grouping: str) -> dict[str, dict[str, int]]:
    """Return the bytes by kind at each moment's peak on one device."""
    setting = peftmemory.StepSetting(**STEP, precision=precision)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=devices)
    try:
        mesh = init_device_mesh("cpu", (devices,))
        with quiet(), packed(setting):
            built = build_model(config, peftmemory.method("lora", **LORA), setting)
            live = Resized(vocab_size=config.vocab_size, tokens=STEP["seq"] - 1)
            live.sizes = {}
            with FakeTensorMode(allow_non_fake_inputs=True), live, gpu_kernels(), counted(live):
                materialise(built)
                for group in groups(built.base_model.model, grouping):
                    fully_shard(group, mesh=mesh)
                fully_shard(built, mesh=mesh)
                return step(built, config, setting, live)
    finally:
        dist.destroy_process_group()


def groups(model, grouping: str) -> list:
    """Return what is gathered together, apart from the rest."""
    layers, apart = list(model.model.layers), []
    if grouping == "accelerate":  # these models' heads are not tied to the embedding
        apart = [model.model.embed_tokens, [model.model.norm, model.lm_head]]
    return layers + apart


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what of a tensor lies on this device."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def step(built, config, setting, live: Resized) -> dict:
    """Run one steady-state step; return the bytes by kind at each moment's peak."""
    trained = [p for p in built.parameters() if p.requires_grad]
    for p in built.parameters():
        live.name([local(p)], "trainable_weights" if p.requires_grad else "frozen_weights")
    live.name(built.buffers(), "frozen_weights")
    optimizer = torch.optim.AdamW(trained, fused=True)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    states = [s for each in optimizer.state.values() for s in each.values() if torch.is_tensor(s)]
    live.name(map(local, states), "optimizer_states")
    inputs = batch_of(config, setting)
    one_step(built, optimizer, inputs, live)
    return {moment: live.peaks[moment] for moment in ("forward", "backward", "optimizer")}


def row(model: str, precision: str, devices: int, grouping: str) -> dict:
    """Return one row: traced and computed peak, in bytes."""
    config = peftmemory.load_config(model)
    few, more = (
        trace(replace(config, layers=layers), precision, devices, grouping) for layers in FEW
    )
    each = lambda moment, kind: (
        few[moment].get(kind, 0)
        + (more[moment].get(kind, 0) - few[moment].get(kind, 0))
        * (config.layers - FEW[0])
        // (FEW[1] - FEW[0])
    )
    moments = {
        name: {kind: each(name, kind) for kind in {**few[name], **more[name]}} for name in few
    }
    moment, kinds = max(moments.items(), key=lambda pair: sum(pair[1].values()))
    method = peftmemory.method("lora", **LORA)
    formula = per_device(config, method, devices=devices, precision=precision, **STEP)
    return {
        "model": model,
        "precision": precision,
        "devices": devices,
        "grouping": grouping,
        "moment": moment,
        "traced_bytes": sum(kinds.values()),
        "closed_form_bytes": formula.peak,
        "kinds": {kind: size for kind, size in kinds.items() if size},
    }


def main() -> None:
    """Trace what is not in the record yet, and write each row at once."""
    path = data_dir() / "results" / "sharding_peaks.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    done = [
        tuple(row[name] for name in ("model", "precision", "devices", "grouping")) for row in rows
    ]
    versions = {name: version(name) for name in ("torch", "transformers", "peft")}
    about = {"versions": versions, "step": STEP | LORA, "layers_traced": FEW, "whole": WHOLE}
    for devices, grouping, precision, model in product(DEVICES, GROUPINGS, ("nf4", "bf16"), MODELS):
        cell = (model, precision, devices, grouping)
        if cell not in done:
            rows.append(row(*cell))
            lines = ",\n".join(map(json.dumps, rows))
            text = f'{{"about": {json.dumps(about)},\n"rows": [\n{lines}\n]}}\n'
            path.write_text(text, encoding="utf-8")
            print(*cell, rows[-1]["traced_bytes"] / rows[-1]["closed_form_bytes"], flush=True)


if __name__ == "__main__":
    main()
