"""What a GPU runs and fake tensors cannot: the chunked loss, AdamW's variants, without values."""

from collections.abc import Iterable

import torch

from peftmemory.constants import (
    ADAM_BLOCK,
    ADAM_SMALLEST,
    BYTE_CODES,
    PAGED_SMALLEST,
    TILE_TOKENS,
    TILE_WIDTH,
    liger_rows,
)
from peftmemory.optimizers import BESIDE_MUON, OPTIMIZERS, Optimizer, optimizer_of


class ChunkedLoss(torch.autograd.Function):
    """TRL's chunked cross-entropy without values: one tile of logits at a time.

    The backward pass computes each tile again and sums gradients in fp32, as TRL's does; on a GPU
    its Triton kernels work inside the tile, so nothing else is allocated.
    """

    @staticmethod
    def forward(ctx, hidden, weight):
        """Return a scalar from hidden states (N, h) and the output head's weight (V, h)."""
        ctx.save_for_backward(hidden, weight)
        tile(hidden, weight)
        return hidden.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient):
        """Return gradients for the hidden states and, where it is trained, the weight."""
        hidden, weight = ctx.saved_tensors
        of_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        trained = ctx.needs_input_grad[1]
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if trained else None
        tile(hidden, weight)
        return of_hidden.to(hidden.dtype), of_weight.to(weight.dtype) if trained else None


class LigerLoss(torch.autograd.Function):
    """Liger's fused linear cross-entropy without values: gradients are computed going forward."""

    @staticmethod
    def forward(ctx, hidden, weight):
        """Return a scalar from hidden states (N, h) and the output head's weight (V, h)."""
        of_hidden = torch.zeros_like(hidden)
        trained = weight.requires_grad
        of_weight = torch.zeros_like(weight) if trained else None
        rows = liger_rows(*hidden.shape, len(weight))
        logits = hidden[:rows] @ weight.t()
        if rows < len(hidden):  # the next chunk's, while this one is still there
            logits = hidden[:rows] @ weight.t()
        chunk = logits @ weight
        del chunk
        if trained:
            product = logits.t() @ hidden[:rows]
            copy = product.float()
            del product, copy
        ctx.save_for_backward(of_hidden, of_weight)
        return hidden.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients that were kept."""
        return ctx.saved_tensors


def tile(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Allocate the one tile of logits that exists at a time."""
    return hidden.new_empty(min(len(hidden), TILE_TOKENS), min(len(weight), TILE_WIDTH))


class FakeBitsandbytes(torch.optim.Optimizer):
    """An optimiser of bitsandbytes without values: the same states, no arithmetic.

    The real one calls its kernels by address, which fake tensors do not have. Paged states are
    allocated while their tensor is stepped alone: else they may be elsewhere.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], kind: Optimizer):
        """Hold the parameters; the states are made at the first step."""
        super().__init__(params, {})
        self.kind = kind
        self.maps: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self, closure=None):
        """Create the states of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if self.kind.paged and parameter.numel() >= PAGED_SMALLEST:
                    paged = self._moments(parameter)
                    del paged
                if not self.state[parameter]:
                    self.state[parameter] = self._states(parameter)

    def _coded(self, parameter: torch.Tensor) -> bool:
        return self.kind.form == "8-bit" and parameter.numel() >= ADAM_SMALLEST

    def _moments(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        dtype = torch.uint8 if self._coded(parameter) else torch.float32
        numbers = range(1, self.kind.moments + 1)
        return {f"state{n}": torch.zeros_like(parameter, dtype=dtype) for n in numbers}

    def _states(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        paged = self.kind.paged and parameter.numel() >= PAGED_SMALLEST
        states = {} if paged else self._moments(parameter)
        if not self._coded(parameter):
            return states
        new = lambda size: parameter.new_zeros(size, dtype=torch.float32)
        numbers = range(1, self.kind.moments + 1)
        self.maps = self.maps or [new(BYTE_CODES) for _ in numbers]  # shared by all parameters
        blocks = -(-parameter.numel() // ADAM_BLOCK)
        for number, table in zip(numbers, self.maps, strict=True):
            states |= {f"absmax{number}": new(blocks), f"qmap{number}": table}
        return states


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the layers' matrices, AdamW for embeddings, output head and vectors."""

    def __init__(self, params: list[torch.nn.Parameter], vocab_size: int):
        """Part the parameters between the two."""
        left = lambda p: optimizer_of("muon", tuple(p.shape), vocab_size) is BESIDE_MUON
        matrices, rest = ([p for p in params if left(p) is other] for other in (False, True))
        self.parts = [torch.optim.Muon(matrices)] if matrices else []
        self.parts += [torch.optim.AdamW(rest, fused=True)] if rest else []
        super().__init__(params, {})

    def step(self, closure=None):
        """Step both."""
        for part in self.parts:
            part.step()
            self.state.update(part.state)


def build_optimizer(
    name: str, params: list[torch.nn.Parameter], vocab_size: int
) -> torch.optim.Optimizer:
    """Return an optimiser by its name in ``peftmemory.optimizers``, as the Trainer sets it.

    ``torch.optim`` picks foreach implementations on a GPU and plain loops on a CPU; a trace on a
    CPU has to ask for the GPU's. ``vocab_size`` tells Muon what is no layer's matrix.
    """
    kind = OPTIMIZERS[name]
    if name == "muon":
        return MuonWithAdamW(params, vocab_size)
    if name == "adafactor":
        from transformers import Adafactor

        return Adafactor(params, lr=1e-4, scale_parameter=False, relative_step=False)
    if name.startswith("sgd"):
        return torch.optim.SGD(params, lr=1e-4, momentum=0.9 * kind.moments, foreach=True)
    if name.startswith("adamw_torch"):
        return torch.optim.AdamW(params, lr=1e-4, fused=not kind.foreach, foreach=kind.foreach)
    return FakeBitsandbytes(params, kind)
