"""What passes between the judge and a learner's process: plain values only on the way to the judge.

The judge pickles what it hands over. The learner's process answers in JSON, which can hold numbers, words, lists,
tensors and a model's parts, and no code: whatever it sends, the judge runs none of it.
"""

import base64
import itertools
import json
import pickle
import socket
import struct
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from io import BytesIO

import numpy as np
import torch

LARGEST = 64 * 2**20  # bytes of a message
KINDS = {each.__name__: each for each in (list, tuple, set, frozenset)}


class Foreign:
    """Stands for a value that cannot be carried; its class has the name of the value's."""


def packed(value: object) -> object:
    """Return a learner's value as JSON can hold it; of one that cannot be carried, its type's name."""
    try:
        return _packed(value)
    except Exception:  # noqa: BLE001 - a learner's object may raise anything
        return {"foreign": type(value).__name__}


def _packed(value: object) -> object:
    value = value.to_numpy() if type(value).__module__.startswith("pandas") else value
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        kind = str(value.dtype).removeprefix("torch.")
        return {"tensor": [kind, [*value.shape], text(flat), value.requires_grad]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": [value.dtype.str, [*value.shape], text(value)]}
    if isinstance(value, np.ndarray):
        return _packed(value.tolist())
    if isinstance(value, torch.nn.Module):
        return {"module": [[name, *parts(module)] for name, module in value.named_modules()]}
    if value is ... or isinstance(value, Decimal | Fraction):
        return {"number": [type(value).__name__, str(value)]}
    if isinstance(value, dict):
        return {"dict": [[_packed(key), _packed(each)] for key, each in value.items()]}
    if isinstance(value, Iterator | range):
        value = list(itertools.islice(value, 1000))
    kind = next((name for name, known in KINDS.items() if isinstance(value, known)), "")
    return {kind: [*map(_packed, value)]} if kind else {"foreign": type(value).__name__}


def text(array: np.ndarray) -> str:
    """Return an array's bytes as text."""
    return base64.b64encode(array.tobytes()).decode()


def parts(module: torch.nn.Module) -> tuple:
    """Return a module's class, its plain attributes and its own tensors, without its children."""
    plain = {k: v for k, v in vars(module).items() if type(v) in (bool, int, float, str)}
    tensors = [[name, packed(each)] for name, each in module._parameters.items()]
    return type(module).__name__, plain, tensors


def unpacked(value: object, classes: dict[str, type], model: torch.nn.Module | None = None):
    """Return what a learner's process sent.

    Args:
        value: as ``packed`` returns it.
        classes: modules that a model may hold, by name.
        model: what a learner's function was given: a model that it returns is a copy of this with its parts.
    """
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    inner = lambda each: unpacked(each, classes, model)
    if kind in KINDS:
        return KINDS[kind](map(inner, held))
    if kind == "dict":
        return {inner(key): inner(each) for key, each in held}
    if kind == "number":
        return (
            ...
            if held[0] == "ellipsis"
            else {"Decimal": Decimal, "Fraction": Fraction}[held[0]](held[1])
        )
    if kind == "array":
        return np.frombuffer(base64.b64decode(held[2]), np.dtype(held[0])).reshape(held[1]).copy()
    if kind == "tensor":
        dtype, data = getattr(torch, held[0]), bytearray(base64.b64decode(held[2]))
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat.reshape(held[1]).requires_grad_(held[3])
    if kind == "module" and model is not None:
        return rebuilt(held, classes, model)
    return type(str(held) if kind == "foreign" else "Module", (Foreign,), {})()


def rebuilt(rows: list, classes: dict[str, type], model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a model with the modules, attributes and parameters that a learner's has."""
    model = pickle.loads(pickle.dumps(model))
    known = dict(model.named_modules())
    for path, name, plain, tensors in rows:
        parent, _, child = path.rpartition(".")
        module = known.get(path)
        if type(module).__name__ != name:
            module = torch.nn.Module.__new__(classes.get(name, torch.nn.Module))
            torch.nn.Module.__init__(module)
            known[path] = known[parent]._modules[child] = module
        module.__dict__.update(plain)
        for own, tensor in tensors:
            found, had = unpacked(tensor, classes), module._parameters.get(own)
            if had is not None and found is not None and had.shape == found.shape:  # it may be tied
                had.data, had.requires_grad = found.detach(), found.requires_grad
            else:
                module._parameters[own] = (
                    found
                    if found is None
                    else torch.nn.Parameter(found.detach(), requires_grad=found.requires_grad)
                )
    for path in known.keys() - {row[0] for row in rows} - {""}:
        parent, _, child = path.rpartition(".")
        known[parent]._modules.pop(child, None)
    return model


class Channel:
    """One end of the connection: messages with their length in front."""

    def __init__(self, end: socket.socket) -> None:
        """Take an end of a pair of sockets."""
        self.end, self.given = end, []

    def send(self, message: bytes) -> None:
        """Send a message."""
        self.end.sendall(struct.pack("!I", len(message)) + message)

    def read(self, size: int) -> bytes:
        """Return so many bytes.

        Raises:
            EOFError: the other end is closed.
        """
        found = bytearray()
        while len(found) < size:
            part = self.end.recv(min(size - len(found), 2**20))
            if not part:
                raise EOFError
            found += part
        return bytes(found)

    def receive(self) -> bytes:
        """Return the next message.

        Raises:
            EOFError: the other end is closed, or the message is too large.
        """
        (size,) = struct.unpack("!I", self.read(4))
        if size > LARGEST:
            raise EOFError
        return self.read(size)

    def hand_over(self, *message: object) -> None:
        """Send a message of the judge; functions without a name stay here and are called from there."""
        out = BytesIO()
        pickler = pickle.Pickler(out)
        pickler.persistent_id = self.stays
        pickler.dump(message)
        self.send(out.getvalue())

    def stays(self, value: object) -> int | None:
        """Return the number of a function that cannot be pickled, None for all else."""
        if not callable(value) or isinstance(value, type | torch.nn.Module):
            return None
        try:
            pickle.dumps(value)
        except Exception:  # noqa: BLE001 - pickle has no class of its errors
            self.given.append(value)
            return len(self.given) - 1
        return None

    def taken(self, called) -> tuple:
        """Return a message of the judge; ``called(number)`` makes the functions that stayed there."""
        reader = pickle.Unpickler(BytesIO(self.receive()))
        reader.persistent_load = called
        return reader.load()

    def answer(self, **message: object) -> None:
        """Send a message of the learner's process."""
        self.send(json.dumps(message).encode())
