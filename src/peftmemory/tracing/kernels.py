"""What CUDA's kernels keep and allocate where the CPU's, on which fake tensors run, do otherwise."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.nn import functional


class CudaSoftmax(torch.autograd.Function):
    """Softmax without values as CUDA computes it.

    Forward it reads 16 bits and writes fp32 at once (the CPU makes an fp32 copy first). Backward it
    multiplies gradient and output into a tensor of its own beside the result (``Tensor tmp = grad *
    output`` in ATen's native/cuda/SoftMax.cu): one more tensor of batch x heads x length^2.
    """

    @staticmethod
    def forward(ctx, x, dtype):
        """Return a tensor of ``x``'s shape in ``dtype``."""
        out = torch.empty_like(x, dtype=dtype)
        ctx.save_for_backward(out)
        ctx.dtype = x.dtype
        return out

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient with respect to ``x``, in its format."""
        (out,) = ctx.saved_tensors
        of_input = torch.empty_like(out, dtype=ctx.dtype)
        product = gradient * out
        del product
        return of_input, None


def softmax(x, dim=None, _stacklevel=3, dtype=None):
    """Stand in for ``torch.nn.functional.softmax``."""
    if torch.is_autocast_enabled("cpu"):
        dtype = dtype or torch.float32  # CUDA's autocast sets it
    return CudaSoftmax.apply(x, dtype or x.dtype)


def dropout(x, p=0.5, training=True, inplace=False):
    """Stand in for ``torch.nn.functional.dropout``: one byte per element is kept, as on a GPU.

    On a CPU a whole tensor of factors is.
    """
    return torch.native_dropout(x, p, True)[0] if training and p > 0 else x


def attention_as_on_gpu(fused):
    """Return the fused attention without its dropout, or plain products where CUDA has no kernel.

    CUDA's fused kernels draw the dropout again in the backward pass and keep nothing for it; the
    CPU has no fused kernel with dropout and would keep batch x heads x length^2 numbers. Of CUDA's
    kernels none takes grouped heads in fp32, and torch falls back to its math kernel.
    """

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, **options):
        grouped = query.shape[-3] // key.shape[-3]
        fp32 = query.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
        if grouped > 1 and attn_mask is None and fp32:
            key, value = (each.repeat_interleave(grouped, -3) for each in (key, value))
            return softmax((query * 1.0) @ (key * 1.0).transpose(-2, -1), -1) @ value
        return fused(query, key, value, attn_mask=attn_mask, dropout_p=0.0, **options)

    return attention


def masked_dropout():
    """Let dropout keep what a GPU's keeps."""
    return patch.object(functional, "dropout", dropout)


@contextmanager
def gpu_kernels() -> Iterator[None]:
    """Let softmax, dropout and fused attention keep and allocate what CUDA's do."""
    fused = attention_as_on_gpu(functional.scaled_dot_product_attention)
    with ExitStack() as stack:
        stack.enter_context(masked_dropout())
        stack.enter_context(patch.object(functional, "softmax", softmax))
        stack.enter_context(patch.object(functional, "scaled_dot_product_attention", fused))
        yield
