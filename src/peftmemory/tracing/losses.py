"""The loss of a traced step, in full or in chunks."""

import torch

from peftmemory.constants import TILE_TOKENS, TILE_WIDTH


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
