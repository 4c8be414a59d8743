"""Which storages lie on the simulated card, and how many bytes of it they take."""

import weakref
from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import FakeTensor

CUDA = torch.device("cuda", 0)
ALLOCATED = 512  # PyTorch's allocator on CUDA hands out multiples of so many bytes


class Memory:
    """Bytes on the card: of live tagged storages, as ``torch.cuda.memory_allocated`` counts them."""

    def __init__(self) -> None:
        """Start with an empty card, of a size that ``install`` sets."""
        self.tagged: set[int] = set()
        self.now = self.peak = self.total = 0

    def put(self, tensor: torch.Tensor) -> None:
        """Tag a tensor's storage; its bytes count until it dies.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // ALLOCATED) * ALLOCATED
        if key in self.tagged:
            return
        if self.total and self.now + size > self.total:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU 0 has a total "
                f"capacity of {self.total / 2**30:.2f} GiB (simulated)"
            )
        self.tagged.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._died, key, size).atexit = False

    def _died(self, key: int, size: int) -> None:
        self.tagged.discard(key)
        self.now -= size


MEMORY = Memory()


def plain(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return the tensor with data under functorch's wrappers; None if it has no data on the CPU."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    if isinstance(tensor, FakeTensor) or tensor.layout != torch.strided:
        return None
    return tensor if tensor.device.type == "cpu" else None


def on_card(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor lies on the simulated card."""
    with torch._C.DisableTorchFunction():
        inner = plain(tensor)
        return inner is not None and inner.untyped_storage()._cdata in MEMORY.tagged


def put(tensor: torch.Tensor) -> None:
    """Put a tensor on the card; one without data (meta, fake) stays what it is."""
    with torch._C.DisableTorchFunction():
        if (inner := plain(tensor)) is not None:
            MEMORY.put(inner)


def key_of(tensor: torch.Tensor) -> int | None:
    """Return what identifies a tensor's storage; None if it has no data on the CPU."""
    with torch._C.DisableTorchFunction():
        inner = plain(tensor)
        return None if inner is None else inner.untyped_storage()._cdata


def tensors(*values) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested lists, tuples and dictionaries."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(*value)
        elif isinstance(value, dict):
            yield from tensors(*value.values())
