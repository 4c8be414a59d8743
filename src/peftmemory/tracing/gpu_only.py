"""What a GPU runs and fake tensors cannot: the chunked loss, AdamW's variants, without values."""

from collections.abc import Iterable

import torch

from peftmemory.constants import ADAM_BLOCK, ADAM_SMALLEST, BYTE_CODES, TILE_TOKENS, TILE_WIDTH


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


def tile(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Allocate the one tile of logits that exists at a time."""
    return hidden.new_empty(min(len(hidden), TILE_TOKENS), min(len(weight), TILE_WIDTH))


class FakeAdamW8bit(torch.optim.Optimizer):
    """bitsandbytes' ``AdamW8bit`` without values: the same states, no arithmetic.

    The real one calls its kernels by address, which fake tensors do not have.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], *, lr: float = 1e-4):
        """Hold the parameters; the states are made at the first step."""
        super().__init__(params, {"lr": lr})
        self.maps: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self, closure=None):
        """Create the states of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = self._states(parameter)

    def _states(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        if parameter.numel() < ADAM_SMALLEST:
            return {f"state{n}": torch.zeros_like(parameter, dtype=torch.float32) for n in (1, 2)}
        if not self.maps:  # two tables, shared by all parameters
            self.maps = [parameter.new_zeros(BYTE_CODES, dtype=torch.float32) for _ in range(2)]
        blocks = -(-parameter.numel() // ADAM_BLOCK)
        states: dict[str, torch.Tensor] = {}
        for number, table in enumerate(self.maps, start=1):
            states[f"state{number}"] = torch.zeros_like(parameter, dtype=torch.uint8)
            states[f"absmax{number}"] = parameter.new_zeros(blocks, dtype=torch.float32)
            states[f"qmap{number}"] = table
        return states


def build_optimizer(name: str, params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return an optimiser by the Trainer's name.

    ``torch.optim.AdamW`` picks its foreach implementation on a GPU and a plain loop on a CPU;
    a trace on a CPU has to ask for the GPU's.
    """
    if name == "adamw_8bit":
        return FakeAdamW8bit(params)
    if name == "adamw_torch_fused":
        return torch.optim.AdamW(params, lr=1e-4, fused=True)
    return torch.optim.AdamW(params, lr=1e-4, foreach=True)
