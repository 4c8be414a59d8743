"""What PPO's policy step holds: four models against one base with three adapters, for notebook 09.

    python -m studies.preference_memory     (about a CPU minute; no weights, no GPU)

Llama-3.1-8B is built on fake tensors, bfloat16, gradient checkpointing, fused AdamW, the loss tile by tile as
TRL computes it. Policy and value train; reference and reward model are read. One step of the policy is
counted, with the optimiser states of policy and value alive. Left out: the two heads (a row of the hidden
size each), gathering of log-probabilities, generation. One row a way in ``data/results/preference_memory.json``.
"""

import torch
from peft import LoraConfig
from torch._subclasses.fake_tensor import FakeTensorMode

import peftmemory
from peftmemory.preference import DEFAULTS
from peftmemory.tracing.build import adapt, build_base, materialise
from peftmemory.tracing.gpu_only import build_optimizer
from peftmemory.tracing.heads import batch_of
from peftmemory.tracing.kernels import gpu_kernels
from peftmemory.tracing.live import LiveStorages
from peftmemory.tracing.step import create_states, forward, name_model, packed, quiet
from studies import engine

MODEL = "llama-3.1-8b"
LORA = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def four_models(config, setting):
    """Build policy and value to train, reference and reward model to read; the policy first."""
    made = [build_base(config, setting, device="meta") for _ in range(4)]
    return [adapt(base, config, "full", setting) for base in made[:2]] + [
        base.requires_grad_(False) for base in made[2:]
    ]


def one_base(config, setting):
    """Build one base with an adapter for policy, value and reward; the first two train."""
    model = adapt(build_base(config, setting, device="meta"), config, LORA, setting)
    for role in ("value", "reward"):
        model.add_adapter(role, LORA)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".default." in name or ".value." in name)
    return [model]


WAYS = {"four models, full fine-tuning": four_models, "one base, three adapters": one_base}


def run(way: str, batch: int, seq: int) -> dict:
    """Trace the policy's step; return GiB by kind at its peak, and at rest."""
    config = peftmemory.load_config(MODEL)
    options = {"optimizer": "adamw_torch_fused", "checkpointing": True}
    setting = peftmemory.StepSetting(batch=batch, seq=seq, **DEFAULTS | options)
    with quiet(), packed(setting):
        models = WAYS[way](config, setting)
        live = LiveStorages(vocab_size=config.vocab_size, tokens=batch * (seq - 1))
        with FakeTensorMode(allow_non_fake_inputs=True), live, gpu_kernels():
            for model in models:
                materialise(model)
                name_model(model, live)
            trained = [p for model in models for p in model.parameters() if p.requires_grad]
            optimizer = build_optimizer(setting.optimizer, trained, config.vocab_size)
            create_states(optimizer, trained, live)
            rest = sum(live.live.values())
            inputs = batch_of(config, setting)
            live.enter("forward")
            _, loss = forward(models[0], inputs, setting)
            live.enter("backward")
            loss.backward()
            live.enter("optimizer")
            optimizer.step()
    peaks = {each: live.peaks[each] for each in ("forward", "backward", "optimizer")}
    moment, kinds = max(peaks.items(), key=lambda item: sum(item[1].values()))
    gib = {kind: round(size / 2**30, 3) for kind, size in kinds.items() if size}
    total = sum(kinds.values()) / 2**30
    trainable = sum(p.numel() for p in trained)
    return {
        "peak_gib": total,
        "moment": moment,
        "trainable": trainable,
        "rest_gib": rest / 2**30,
        "kinds": gib,
    }


def main() -> None:
    """Trace both ways."""
    torch.manual_seed(0)
    keys = [{"way": way, "batch": 4, "seq": 512} for way in WAYS]
    engine.start("preference_memory").measure_each(keys, run)


if __name__ == "__main__":
    main()
