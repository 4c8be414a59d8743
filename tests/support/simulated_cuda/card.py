"""What ``torch.cuda`` answers on the simulated card, and what the libraries ask beside torch."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from unittest.mock import patch

# The loader's worker threads would not be under the modes; read when transformers is imported.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")

# Before torch says that it has CUDA: it would load its kernels for it.
import bitsandbytes.functional
import safetensors.torch
import torch
import torch.utils.checkpoint

from support.simulated_cuda.modes import Calls, Operations, place_named
from support.simulated_cuda.storages import CUDA, MEMORY, on_card, put, tensors


@dataclass(frozen=True)
class Card:
    """A card: its name, compute capability and memory in bytes (``torch.cuda``'s properties)."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int = 108

    def bf16(self, including_emulation: bool = True) -> bool:
        """Answer ``torch.cuda.is_bf16_supported``: a T4 says yes, because it emulates."""
        return self.major >= 8 or including_emulation


A100 = Card("Simulated A100", 8, 0, 40 << 30)
T4 = Card("Simulated T4", 7, 5, 15 << 30, 40)


class Generator(torch._C.Generator):
    """Stand in for ``torch.Generator``: one of the card draws on the CPU, and says that it does not."""

    def __new__(cls, device="cpu"):
        """Make a generator of the device that is named."""
        made = super().__new__(cls)
        made.named = place_named(device)
        return made

    @property
    def device(self) -> torch.device:
        """Return where it was asked for."""
        return self.named


def cuda_answers(card: Card) -> dict[str, Callable]:
    """Return what functions of ``torch.cuda`` answer, by name."""

    def reset_peak(*_) -> None:
        MEMORY.peak = MEMORY.now

    nothing, now, peak = (lambda *_, **__: None), (lambda *_: MEMORY.now), (lambda *_: MEMORY.peak)
    return {
        **dict.fromkeys(("is_available", "is_initialized"), lambda: True),
        **dict.fromkeys(("synchronize", "empty_cache", "set_device", "manual_seed"), nothing),
        **dict.fromkeys(
            ("manual_seed_all", "_lazy_init", "set_rng_state", "set_rng_state_all"), nothing
        ),
        **dict.fromkeys(("memory_allocated", "memory_reserved"), now),
        **dict.fromkeys(("max_memory_allocated", "max_memory_reserved"), peak),
        **dict.fromkeys(("reset_peak_memory_stats", "reset_max_memory_allocated"), reset_peak),
        **dict.fromkeys(
            ("_exchange_device", "_maybe_exchange_device", "current_device"), lambda *_: 0
        ),
        "device_count": lambda: 1,
        "get_device_name": lambda *_: card.name,
        "get_device_properties": lambda *_: card,
        "get_device_capability": lambda *_: (card.major, card.minor),
        "is_bf16_supported": card.bf16,
        "mem_get_info": lambda *_: (card.total_memory - MEMORY.now, card.total_memory),
        "memory_stats": lambda *_: {"allocated_bytes.all.current": MEMORY.now},
        "memory_summary": lambda *_, **__: f"allocated {MEMORY.now}, peak {MEMORY.peak} bytes",
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "is_current_stream_capturing": lambda: False,
    }


def _autocast_on_the_cpu(real: Callable) -> Callable:
    """Let ``torch.autocast("cuda")`` cast what the CPU computes, to float16 by default."""

    def start(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        return real(self, device_type, dtype, enabled, cache_enabled)

    return start


def _scaler_on_the_cpu(real: Callable) -> Callable:
    def start(self, device="cuda", *args, **kwargs):
        return real(self, "cpu", *args, **kwargs)

    return start


def _loaded(real: Callable) -> Callable:
    """Read a file to the card where ``map_location`` or ``device`` says so."""

    def load(file, *args, **kwargs):
        named = next((key for key in ("map_location", "device") if key in kwargs), None)
        place = place_named(kwargs[named]) if named and not callable(kwargs[named]) else None
        if place is None or place.type != "cuda":
            return real(file, *args, **kwargs)
        out = real(file, *args, **{**kwargs, named: "cpu"})
        for tensor in tensors(out):
            put(tensor)
        return out

    return load


def paged(*shape, dtype=torch.float32, device=CUDA) -> torch.Tensor:
    """Stand in for bitsandbytes' managed memory: it lies on the CPU and a GPU may use it."""
    tensor = torch.zeros(*shape, dtype=dtype)
    tensor.is_paged, tensor.page_deviceid = True, 0
    return tensor


def _patches(card: Card) -> Iterator:
    yield patch.multiple(torch.cuda, **cuda_answers(card))
    yield patch.multiple(
        torch.accelerator,
        is_available=lambda: True,
        device_count=lambda: 1,
        current_accelerator=lambda *_, **__: torch.device("cuda"),
        set_device_index=lambda *_: None,
        current_device_index=lambda: 0,
        current_stream=lambda *_: SimpleNamespace(
            is_capturing=lambda: False, synchronize=lambda: None
        ),
        synchronize=lambda *_: None,
    )
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        yield patch.object(torch.cuda.random, name, getattr(torch.cuda, name))  # of a checkpoint
    yield patch.object(torch.version, "cuda", "12.6")
    yield patch.object(torch, "Generator", Generator)
    yield patch.object(torch.nn.Module, "cuda", lambda self, device=None: self.to(CUDA))
    yield patch.object(torch.autocast, "__init__", _autocast_on_the_cpu(torch.autocast.__init__))
    scaler = torch.amp.GradScaler
    yield patch.object(scaler, "__init__", _scaler_on_the_cpu(scaler.__init__))
    yield from _files_and_libraries()


def _files_and_libraries() -> Iterator:
    yield patch.object(torch, "load", _loaded(torch.load))
    yield patch.object(safetensors.torch, "load_file", _loaded(safetensors.torch.load_file))
    # A checkpoint's hooks are called inside an operation, where only the tag says where a tensor is.
    checks = torch.utils.checkpoint._allowed_determinism_checks_to_fns
    yield patch.dict(checks, default=lambda x: (x.shape, x.dtype, on_card(x)))
    yield patch("torch.utils.data._utils.pin_memory.pin_memory", pinned)
    yield patch.object(torch.cuda, "stream", lambda *_: nullcontext(), create=True)
    yield patch.multiple(
        bitsandbytes.functional,
        get_paged=paged,
        fill=lambda tensor, value, **_: tensor.fill_(value),
        prefetch_tensor=lambda *_, **__: None,
    )


def pinned(data, device=None):
    """Stand in for a data loader's pinning, which runs in a thread of its own."""
    if any(
        map(_is_tagged, tensors(data if isinstance(data, dict) else getattr(data, "data", data)))
    ):
        raise RuntimeError(
            "cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"
        )
    return data


def _is_tagged(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage()._cdata in MEMORY.tagged


@contextmanager
def simulated(card: Card = A100) -> Iterator[Card]:
    """Run a block as on a machine with this card."""
    with ExitStack() as stack:
        for each in _patches(card):
            stack.enter_context(each)
        MEMORY.total = card.total_memory
        calls = Calls(stack.enter_context(Operations()))
        stack.enter_context(patch("torch.autograd._engine_run_backward", _under(calls)))
        stack.enter_context(calls)
        yield card


def _under(calls: Calls) -> Callable:
    """Go back with ``Calls`` on: checkpoints compute again, and hooks ask where tensors are."""
    real = torch.autograd._engine_run_backward

    def run(*args, **kwargs):
        with calls:
            return real(*args, **kwargs)

    return run
