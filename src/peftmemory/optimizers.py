"""What each optimiser holds between two steps, and what it needs beside that while it steps."""

import math
from typing import NamedTuple

from peftmemory.constants import ADAM_BLOCK, ADAM_SMALLEST, BYTE_CODES, PAGED_SMALLEST
from peftmemory.counts import Shapes, elements


class Optimizer(NamedTuple):
    """One optimiser: how many moments it keeps of each parameter, in which form.

    Attributes:
        moments: tensors of the parameter's shape.
        form: ``own`` (the parameter's format), ``fp32``, ``8-bit`` (with a constant per 256
            elements; small tensors in fp32), or ``factored`` (a row and a column of a matrix, fp32).
        counter: bytes of the step count, a tensor for each parameter.
        paged: moments of large tensors lie in memory that may leave the card.
        foreach: the step holds one temporary as large as all gradients.
    """

    moments: int
    form: str = "own"
    counter: int = 0
    paged: bool = False
    foreach: bool = False


# By the Trainer's names; `sgd_momentum` is its `sgd` with `optim_args="momentum=0.9"`, `muon` is
# torch.optim.Muon for the layers' matrices with AdamW for the rest, as its authors use it.
# AdamW: Loshchilov and Hutter, 2019. 8 bits: Dettmers et al., 2022. Paged: Dettmers et al., 2023.
# Adafactor: Shazeer and Stern, 2018. Lion: Chen et al., 2023. Muon: Jordan et al., 2024.
OPTIMIZERS = {
    "adamw_torch": Optimizer(2, counter=4, foreach=True),
    "adamw_torch_fused": Optimizer(2, counter=4),
    "adamw_8bit": Optimizer(2, "8-bit"),
    "paged_adamw_32bit": Optimizer(2, "fp32", paged=True),
    "paged_adamw_8bit": Optimizer(2, "8-bit", paged=True),
    "adafactor": Optimizer(0, "factored", counter=4),
    "sgd": Optimizer(0),
    "sgd_momentum": Optimizer(1),
    "lion_32bit": Optimizer(1, "fp32"),
    "lion_8bit": Optimizer(1, "8-bit"),
    "paged_lion_32bit": Optimizer(1, "fp32", paged=True),
    "paged_lion_8bit": Optimizer(1, "8-bit", paged=True),
    "muon": Optimizer(1),
}
BESIDE_MUON = OPTIMIZERS["adamw_torch_fused"]


def optimizer_of(name: str, shape: tuple[int, ...], vocab_size: int = 0) -> Optimizer:
    """Return the optimiser that a tensor meets: Muon leaves all but the layers' matrices to AdamW."""
    left = name == "muon" and (len(shape) != 2 or vocab_size in shape)
    return BESIDE_MUON if left else OPTIMIZERS[name]


def moment_bytes(optimizer: Optimizer, shape: tuple[int, ...], each: int) -> int:
    """Return the bytes of one tensor's moments, without what belongs to an 8-bit code."""
    size = math.prod(shape)
    if optimizer.form == "factored":
        return 4 * (size // shape[-1] + size // shape[-2] if len(shape) > 1 else size)
    small = optimizer.form == "8-bit" and size < ADAM_SMALLEST
    width = {"own": each, "fp32": 4, "8-bit": 4 if small else 1}[optimizer.form]
    return optimizer.moments * width * size


def state_bytes(tensors: Shapes, each: int, name: str, *, vocab_size: int = 0) -> int:
    """Return the bytes of an optimiser's states, paged ones included.

    Args:
        tensors: the trained tensors.
        each: bytes per trained parameter.
        name: one of ``OPTIMIZERS``.
        vocab_size: the model's, by which embedding and output head are known.
    """
    total, coded = 0, False
    for shape, count in tensors.items():
        kind, size = optimizer_of(name, shape, vocab_size), math.prod(shape)
        total += count * (moment_bytes(kind, shape, each) + kind.counter)
        if kind.form == "8-bit" and size >= ADAM_SMALLEST:
            total, coded = total + count * kind.moments * 4 * -(-size // ADAM_BLOCK), True
    return total + OPTIMIZERS[name].moments * 4 * BYTE_CODES * coded  # the tables of the codes


def paged_bytes(tensors: Shapes, each: int, name: str) -> tuple[int, int]:
    """Return how many of these bytes may leave the card, and the most of one tensor's."""
    kind = OPTIMIZERS[name]
    large = {shape for shape in tensors if math.prod(shape) >= PAGED_SMALLEST and kind.paged}
    sizes = {shape: moment_bytes(kind, shape, each) for shape in large}
    return sum(tensors[shape] * size for shape, size in sizes.items()), max(
        sizes.values(), default=0
    )


def step_bytes(tensors: Shapes, each: int, name: str, *, vocab_size: int = 0) -> int:
    """Return the bytes of a step's temporaries at their worst.

    The foreach AdamW holds one temporary per parameter. Adafactor and Muon go tensor by tensor.
    Adafactor has 16 bytes per element in fp32: gradient, parameter, squared gradient, its sum with
    a small number (8 if these two need no copy), and the update of the tensor before. Muon has the
    update, two 16-bit matrices and two products of its shorter side.
    """
    if OPTIMIZERS[name].foreach:
        return each * elements(tensors)
    if name == "adafactor":
        copies = 8 if each == 2 else 0
        again = lambda shape, count: 4 * (count > 1 and vocab_size not in shape)
        return max((copies + 8 + again(s, n)) * math.prod(s) for s, n in tensors.items())
    if name == "muon":
        matrices = [s for s in tensors if optimizer_of(name, s, vocab_size) is not BESIDE_MUON]
        sizes = ((each + 4) * math.prod(s) + 4 * min(s) ** 2 for s in matrices)
        return max(sizes, default=0)
    return paged_bytes(tensors, each, name)[1]
