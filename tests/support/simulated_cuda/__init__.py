"""A CUDA device for tests on machines without one: data on the CPU, each storage tagged ``cuda:0``.

What a GPU refuses is refused: inputs on two devices, a generator of the other device, ``numpy()`` of
a tensor on the card, pinning it, products of integers, more bytes than the card has. Not simulated is
what kernels compute: results are the CPU's, to the bit; no TF32, no time, no fragmentation.
"""

from support.simulated_cuda.card import A100, T4, Card, simulated
from support.simulated_cuda.storages import MEMORY, on_card

__all__ = ["A100", "MEMORY", "T4", "Card", "on_card", "simulated"]
