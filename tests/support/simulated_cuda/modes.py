"""Every call and every operation of torch, as a machine with a GPU would answer it.

``Calls`` sees what Python asks of torch: where a tensor is, move it, make one there. ``Operations``
sees each operation under autograd, the backward pass's too: results lie where the inputs lie, and
inputs on two devices are an error.
"""

from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from support.simulated_cuda.storages import CUDA, key_of, on_card, put, tensors

T, CPU = torch.Tensor, torch.device("cpu")
aten = torch.ops.aten
# Operations that a GPU runs with inputs on two devices: copies, and indices that lie on the CPU.
COPIES = {aten.copy_, aten._to_copy, aten.set_, aten.lift_fresh, aten.is_same_size}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
# CUDA has no matrix product of integers; the CPU has.
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.addmv, aten.mv, aten.dot}
WIDER = {
    overload: getattr(torch, packet.__name__)
    for packet in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)
    for overload in (getattr(packet, "dtype", None), getattr(packet, "dtype_out", None))
    if overload is not None
}
WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool)


class Operations(TorchDispatchMode):
    """Results lie on the card if an input does; inputs on two devices raise, as on a GPU.

    Attributes:
        forced: ``CPU`` or ``CUDA`` while a call says where its result goes.
        around: the same for tensors that a call makes out of nothing.
    """

    def __init__(self) -> None:
        """Nothing is forced."""
        super().__init__()
        self.forced = self.around = None

    @contextmanager
    def placing(self, forced=None, around=None):
        """Say where results go for the length of a call."""
        before = self.forced, self.around
        self.forced, self.around = forced, around
        try:
            yield
        finally:
            self.forced, self.around = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation where its inputs are; what computes it sees the CPU that it runs on."""
        with torch._C.DisableTorchFunction():
            return self._run(func, args, kwargs or {})

    def _run(self, func, args, kwargs):
        inputs = list(tensors(args, kwargs))
        if any(isinstance(t, FakeTensor) or t.device.type != "cpu" for t in inputs):
            return func(*args, **kwargs)
        places = [on_card(t) for t in inputs]
        if self.forced is None and any(places):
            refuse(func, args, inputs, places)
        out = _product(func, args, kwargs) if func in WIDER else func(*args, **kwargs)
        if self._placed_on_card(places):
            known = {key_of(t) for t in inputs}
            for tensor in tensors(out):
                if key_of(tensor) not in known:  # else a view, or written in place
                    put(tensor)
        return out

    def _placed_on_card(self, places: list[bool]) -> bool:
        if self.forced is not None:
            return self.forced == CUDA
        return any(places) if places else self.around == CUDA


def _product(func, args, kwargs):
    """Multiply as CUDA does and the CPU cannot: 16-bit factors, a wider result."""
    out, *inputs = kwargs.pop("out", None), *tensors(args)
    dtype = next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype))
    factors = {name: x for name, x in kwargs.items() if name in ("alpha", "beta")}
    found = WIDER[func](*(x.to(dtype) for x in inputs), **factors)
    return found if out is None else out.copy_(found)


def refuse(func, args, inputs, places) -> None:
    """Raise what a GPU raises for these inputs, at least one of which is on it."""
    packet = getattr(func, "overloadpacket", func)
    if packet in COPIES:
        return
    if packet in PRODUCTS and inputs[0].dtype in WHOLE:
        raise RuntimeError(
            f'"{packet.__name__}_cuda" not implemented for {inputs[0].dtype} (simulated)'
        )
    if packet in INDEXED:
        indices = {id(t) for t in tensors(args[1])}
        if not places[0]:
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu) "
                "(simulated)"
            )
        inputs, places = zip(
            *[(t, p) for t, p in zip(inputs, places, strict=True) if id(t) not in indices],
            strict=True,
        )
    # A number may lie on the CPU, and managed memory (bitsandbytes pages optimiser states) anywhere.
    stray = [t for t, here in zip(inputs, places, strict=True) if t.dim() > 0 and not here]
    if not all(getattr(t, "is_paged", False) for t in stray):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
            f"cpu! (simulated, in {packet.__name__})"
        )


def place_named(device) -> torch.device | None:
    """Return the device that an argument names; None if it names none."""
    if device is None or isinstance(device, bool):
        return None
    return CUDA if isinstance(device, int) else torch.device(device)


class Calls(TorchFunctionMode):
    """Answer what Python asks: where a tensor is, to move it, to make one on the card."""

    def __init__(self, operations: Operations) -> None:
        """Tell ``operations`` where results go."""
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Answer a call."""
        kwargs = dict(kwargs or {})
        if (answer := ANSWERS.get(func)) is not None:
            return answer(self, func, args, kwargs)
        want = place_named(kwargs.get("device"))
        if isinstance(func, torch._ops.OpOverload) and want in (None, CPU):
            return func(*args, **kwargs)  # passed on by another mode: the device is what C++ sees
        kwargs.pop("pin_memory", None)  # no allocator of pinned memory here
        here = CUDA if any(map(on_card, tensors(args, kwargs))) else None
        self._check_generator(kwargs.get("generator"), want or here or CPU)
        if want is None or want.type not in ("cpu", "cuda"):
            with self.operations.placing(around=here):
                return func(*args, **kwargs)
        kwargs["device"] = CPU
        if _fake_is_on():
            return func(*args, **{**kwargs, "device": want})
        with self.operations.placing(forced=CUDA if want.type == "cuda" else CPU):
            out = func(*args, **kwargs)
        if want.type == "cuda":  # what made it may be no operation: torch.tensor of a list
            for tensor in tensors(out):
                put(tensor)
        return out

    def _check_generator(self, generator, wanted: torch.device) -> None:
        if generator is not None and generator.device.type != wanted.type and wanted.type != "meta":
            raise RuntimeError(
                f"Expected a '{wanted.type}' device type for generator but found "
                f"'{generator.device.type}' (simulated)"
            )

    def move(self, tensor, target, dtype=None, copy=False, memory_format=None):
        """Return a tensor on a device, itself if it is there and as asked already."""
        options = {"memory_format": memory_format} if memory_format is not None else {}
        with self.operations.placing(forced=target):
            out = T.to(tensor, dtype=dtype or tensor.dtype, copy=copy, **options)
            if target != (CUDA if on_card(tensor) else CPU) and key_of(out) == key_of(tensor):
                out = tensor.clone(**options)
        if target == CUDA:
            put(out)
        return out


def _fake_is_on() -> bool:
    """Tell whether a mode makes fake tensors: their devices are their own affair."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def _to(calls, func, args, kwargs):
    tensor, *rest = args
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        return func(*args, **kwargs)
    copy, other = kwargs.pop("copy", False), kwargs.pop("other", None)
    other = rest[0] if rest and isinstance(rest[0], T) else other
    if other is not None:
        target = CUDA if on_card(other) else CPU
        return calls.move(tensor, target, other.dtype, copy)
    if rest and isinstance(rest[0], int) and not isinstance(rest[0], bool):
        rest[0] = CUDA
    device, dtype, _, layout = torch._C._nn._parse_to(*rest, **kwargs)
    if device is not None and device.type not in ("cpu", "cuda"):
        return func(tensor, device, dtype or tensor.dtype)
    target = CUDA if (on_card(tensor) if device is None else device.type == "cuda") else CPU
    return calls.move(tensor, target, dtype, copy, layout)


def _where(calls, func, args, kwargs):
    return CUDA if on_card(args[0]) else func(*args)


def _copy(calls, func, args, kwargs):
    """Copy deeply: storages are copied below what ``Operations`` sees."""
    here = on_card(args[0])
    out = func(*args, **kwargs)
    for tensor in tensors(out, getattr(out, "grad", None)) if here else ():
        put(tensor)
    return out


def _no_numpy(calls, func, args, kwargs):
    if on_card(args[0]):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
            "host memory first. (simulated)"
        )
    return func(*args, **kwargs)


def _no_pinning(calls, func, args, kwargs):
    if on_card(args[0]):
        raise RuntimeError(
            "cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"
        )
    return args[0]


def _parsed(calls, func, args, kwargs):
    """Read the arguments of ``Module.to``: a number is a card's, and torch itself knows of none."""
    return func(*(place_named(x) if type(x) is int else x for x in args), **kwargs)


ANSWERS = {
    torch._C._nn._parse_to: _parsed,
    T.device.__get__: _where,
    T.is_cuda.__get__: lambda calls, func, args, kwargs: on_card(args[0]) or func(*args),
    T.is_cpu.__get__: lambda calls, func, args, kwargs: not on_card(args[0]) and func(*args),
    T.get_device: lambda calls, func, args, kwargs: 0 if on_card(args[0]) else func(*args),
    T.cuda: lambda calls, func, args, kwargs: calls.move(args[0], CUDA),
    T.cpu: lambda calls, func, args, kwargs: calls.move(args[0], CPU),
    T.to: _to,
    T.numpy: _no_numpy,
    T.__array__: _no_numpy,
    T.pin_memory: _no_pinning,
    T.is_pinned: lambda calls, func, args, kwargs: False,
    T.__deepcopy__: _copy,
}
