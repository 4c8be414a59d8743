"""Which tensors are alive: every storage from its birth to its death, by kind."""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# What a tensor is called that is born in a moment, until somebody names it otherwise.
BORN_IN = {
    "setup": "inputs",
    "forward": "activations",
    "backward": "temporaries",
    "optimizer": "temporaries",
}


def stand_in(func: Any, args: tuple, compared: bool) -> Any:
    """Return a plausible result for what depends on a fake tensor's values, or None.

    A number is 1; a mask lets everything through, which is the most bytes; a condition holds if it
    has just been ``compared``, as a draw is with a dropout's rate, else (is any infinite?) not.
    """
    tensor = args[0]
    if func is torch.ops.aten._local_scalar_dense.default:
        number = 1.0 if tensor.is_floating_point() else 1
        return compared if tensor.dtype is torch.bool else number
    if func is torch.ops.aten.nonzero.default:
        return tensor.new_empty((tensor.numel(), tensor.dim()), dtype=torch.long)
    if func is torch.ops.aten.index.Tensor:
        return func(tensor, [each for index in args[1] for each in all_of(index)])
    return None


def all_of(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Return the indices that a mask of nothing but true stands for."""
    if index is None or index.dtype is not torch.bool:
        return [index]
    return [index.new_empty(index.numel(), dtype=torch.long)] * index.dim()


class LiveStorages(TorchDispatchMode):
    """Count the bytes of live storages, real or fake, by kind, and keep each moment's peak.

    Two tensors that share a storage count once. Counted are the bytes asked for: no allocator
    rounding, no fragmentation, no CUDA context (0.3 to 0.5 GB per process).

    Attributes:
        moment: what runs now, one of ``BORN_IN``; ``enter`` changes it.
        live: bytes by kind, now.
        peaks: moment to bytes by kind at the moment's peak.
    """

    def __init__(self, *, vocab_size: int = 0, tokens: int = 0):
        """Count; tensors of ``tokens`` or more rows over ``vocab_size`` are kind ``logits``."""
        super().__init__()
        self.moment = "setup"
        self.live: Counter[str] = Counter()
        self.peaks: dict[str, dict[str, int]] = {}
        self._kind: dict[int, str] = {}
        self._highest: Counter[str] = Counter()
        self._total = 0
        # Where two gradients meet, autograd adds them in place, except to fake tensors: there a
        # sum's two terms die at once. So a sum is looked at only when the next tensor is born. To a
        # view (the transposed gradient of a head that is tied to the embedding) nothing is added in
        # place: its base holds the storage, too, and a third tensor is there.
        self._summed = False
        self._compared = False  # whether the last operation compared numbers
        self._vocab_size, self._tokens = vocab_size, tokens

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and count the storages it brings to life."""
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # more than half of all calls, and none makes a tensor
        try:
            out = func(*args, **(kwargs or {}))
        except (DataDependentOutputException, DynamicOutputShapeException):
            out = stand_in(func, args, self._compared)
            if out is None:
                raise
        self._compared = func is torch.ops.aten.gt.Scalar
        if isinstance(out, torch.Tensor):
            summed = self.moment == "backward" and func is torch.ops.aten.add.Tensor
            self._summed = summed and not args[0]._is_view()
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self.born(tensor)
        return out

    def born(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kind:
            return
        kind = BORN_IN[self.moment]
        if kind in ("activations", "temporaries") and self._is_logits(tensor):
            kind = "logits"
        size = storage.nbytes()
        self._look()  # at what a sum before this left alive
        self._kind[key] = kind
        self.live[kind] += size
        weakref.finalize(storage, self._died, key, size).atexit = False
        self._total += size
        if not self._summed:
            self._look()

    def name(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Say what some live tensors are."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.born(tensor)
            before = self._kind[storage._cdata]
            self.live[before] -= storage.nbytes()
            self.live[kind] += storage.nbytes()
            self._kind[storage._cdata] = kind

    def enter(self, moment: str) -> None:
        """Begin a moment: its peak is at least what is alive now."""
        self._look()
        self._summed = False
        self.moment = moment
        self._highest[moment] = 0
        self._look()

    def _look(self) -> None:
        if self._total > self._highest[self.moment]:
            self._highest[self.moment] = self._total
            self.peaks[self.moment] = dict(self.live)

    def _died(self, key: int, size: int) -> None:
        self.live[self._kind.pop(key)] -= size
        self._total -= size

    def _is_logits(self, tensor: torch.Tensor) -> bool:
        wide = tensor.dim() > 1 and tensor.shape[-1] == self._vocab_size
        return wide and tensor.numel() >= self._tokens * self._vocab_size
