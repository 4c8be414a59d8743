"""The same step with real tensors, measured by the allocator: what a trace has to agree with."""

import weakref
from contextlib import nullcontext
from typing import Any

import bitsandbytes as bnb
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from peftmemory.configs import load_config
from peftmemory.counts import base_parameters
from peftmemory.errors import EstimateError
from peftmemory.methods import Prefix, read_method
from peftmemory.optimizers import OPTIMIZERS
from peftmemory.settings import StepSetting, read_setting
from peftmemory.tracing.build import build_model
from peftmemory.tracing.four_bit import convertible
from peftmemory.tracing.gpu_only import build_optimizer
from peftmemory.tracing.heads import batch_of
from peftmemory.tracing.kernels import masked_dropout
from peftmemory.tracing.live import LiveStorages
from peftmemory.tracing.step import create_states, forward, quiet

SMALL_ENOUGH = 8 << 30


def measure_step(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> int:
    """Run one real training step on the CPU with random weights and return its peak in bytes.

    Counted by the allocator's own record of every allocation and release, temporaries inside
    kernels included, on top of the weights and optimiser states alive before the step.

    Args:
        model: what ``peftmemory.load_config`` takes; small enough for this machine.
        method: a PEFT configuration, ``"full"``, or a light description.
        batch: sequences per step.
        seq: tokens per sequence.
        options: fields of ``peftmemory.StepSetting``.

    Raises:
        EstimateError: too big to try, or the question cannot be.
    """
    config, setting = load_config(model), read_setting(batch=batch, seq=seq, **options)
    refuse_big(config, setting)
    with quiet(), masked_dropout(), cuda_attention(method, setting):
        torch.manual_seed(0)
        built = build_model(config, method, setting, device="cpu", quantise=quantise_really)
        trained = [p for p in built.parameters() if p.requires_grad]
        optimizer = build_real_optimizer(setting, trained, config.vocab_size)
        create_states(optimizer, trained, LiveStorages())
        inputs = batch_of(config, setting)
        before = storage_bytes(built, optimizer, inputs)
        if setting.accumulation:
            forward(built, inputs, setting)[1].backward()
            before += sum(p.grad.nbytes for p in trained)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            outputs, loss = forward(built, inputs, setting)
            loss.backward()
            del outputs, loss
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return before + highest(record)


def cuda_attention(method: Any, setting: StepSetting):
    """Return a context in which a CPU attends by plain products where CUDA has no fused kernel.

    That is in fp32 without a mask, with grouped heads, which the models that run here have.
    """
    masked = setting.padding or isinstance(read_method(method), Prefix)
    fused = masked or setting.autocast or setting.stream_bytes != 4
    return nullcontext() if fused else sdpa_kernel(SDPBackend.MATH)


def refuse_big(config, setting: StepSetting) -> None:
    """Refuse what would not fit in a small machine's memory.

    Raises:
        EstimateError: the weights and their gradients alone are beyond 8 GiB.
    """
    if base_parameters(config) * 8 > SMALL_ENOUGH:
        raise EstimateError(
            f"{config.name} is too big to run here: trace it with trace_step instead."
        )


def build_real_optimizer(
    setting: StepSetting, trained: list[nn.Parameter], vocab_size: int
) -> torch.optim.Optimizer:
    """Return the optimiser itself where the trace has a stand-in."""
    name, kind = setting.optimizer, OPTIMIZERS[setting.optimizer]
    if kind.form in ("8-bit", "fp32"):
        real = bnb.optim.Lion if "lion" in name else bnb.optim.AdamW
        return real(trained, lr=1e-4, optim_bits=8 if kind.form == "8-bit" else 32)
    return build_optimizer(name, trained, vocab_size)


def storage_bytes(model: nn.Module, optimizer, inputs: dict[str, torch.Tensor]) -> int:
    """Return the bytes of all distinct storages of weights, 4-bit constants, states and inputs."""
    tensors = [*model.parameters(), *model.buffers(), *inputs.values()]
    for parameter in model.parameters():
        tensors += quantisation_tensors(getattr(parameter, "quant_state", None))
    for states in optimizer.state.values():
        tensors += [value for value in states.values() if torch.is_tensor(value)]
    sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


def quantisation_tensors(state: Any) -> list[torch.Tensor]:
    """Return the tensors of a bitsandbytes quantisation state, nested ones included."""
    if state is None:
        return []
    own = [getattr(state, name, None) for name in ("absmax", "code", "offset")]
    return [t for t in own if torch.is_tensor(t)] + quantisation_tensors(state.state2)


def highest(record: profile) -> int:
    """Return the highest sum of the allocations and releases in a profile, in bytes."""
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        top = max(top, level)
    return top


def measure_saved(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> int:
    """Run a real forward pass and return the bytes of all tensors autograd keeps.

    Parameters, buffers and the batch itself are not counted, nor is what is gone when the pass is
    over. The arguments are those of ``measure_step``.

    Raises:
        EstimateError: too big to try, or the question cannot be.
    """
    config, setting = load_config(model), read_setting(batch=batch, seq=seq, **options)
    refuse_big(config, setting)
    kept: dict[int, tuple[weakref.ref, int]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (weakref.ref(storage), storage.nbytes())
        return tensor

    with quiet(), masked_dropout():
        built = build_model(config, method, setting, device="cpu", quantise=quantise_really)
        inputs = batch_of(config, setting)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = forward(built, inputs, setting)
    known = [*built.parameters(), *built.buffers(), *inputs.values()]
    for tensor in known:
        kept.pop(tensor.untyped_storage()._cdata, None)
    size = sum(nbytes for storage, nbytes in kept.values() if storage() is not None)
    del outputs
    return size


def measure_states(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> int:
    """Return the bytes of the optimiser's real states, each storage once.

    The arguments are those of ``measure_step``.

    Raises:
        EstimateError: too big to try, or the question cannot be.
    """
    config, setting = load_config(model), read_setting(batch=batch, seq=seq, **options)
    refuse_big(config, setting)
    with quiet(), masked_dropout():
        built = build_model(config, method, setting, device="cpu", quantise=quantise_really)
        trained = [p for p in built.parameters() if p.requires_grad]
        optimizer = build_real_optimizer(setting, trained, config.vocab_size)
        create_states(optimizer, trained, LiveStorages())
    tensors = [t for states in optimizer.state.values() for t in states.values()]
    sizes = {
        t.untyped_storage()._cdata: t.untyped_storage().nbytes()
        for t in tensors
        if torch.is_tensor(t)
    }
    return sum(sizes.values())


def quantise_really(model: nn.Module, *, compute_dtype: torch.dtype, double_quant: bool) -> None:
    """Replace every linear layer that loading in 4 bits replaces by bitsandbytes' own, quantised."""
    for parent, name, child in convertible(model):
        real = bnb.nn.Linear4bit(
            child.in_features,
            child.out_features,
            bias=child.bias is not None,
            compute_dtype=compute_dtype,
            compress_statistics=double_quant,
            quant_type="nf4",
        )
        real.load_state_dict(child.state_dict())
        setattr(parent, name, real.to("cpu"))
    model.is_loaded_in_4bit = True
