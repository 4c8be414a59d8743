"""A 4-bit linear layer without values: the bytes of bitsandbytes' ``Linear4bit``, nothing else.

``Linear4bit`` itself cannot be built on fake tensors (its weight is a tensor subclass made from
real values), so a trace puts this in its place: the same stored bytes, the same temporaries.
"""

import bitsandbytes as bnb
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from peftmemory.constants import NF4_BLOCK
from peftmemory.model_states import nf4_tensors


class DequantisedMatmul(torch.autograd.Function):
    """``x W^T`` with ``W`` brought back from 4 bits for the product, then again for the gradient.

    What bitsandbytes 0.50 does on a GPU for more than about a thousand tokens (it has a fused
    kernel for fewer) and everywhere else always.
    """

    @staticmethod
    def forward(ctx, x, packed, shape, double_quant):
        """Return the product, shape (..., d_out)."""
        ctx.shape, ctx.double_quant = shape, double_quant
        ctx.save_for_backward(packed)
        return nn.functional.linear(x, dequantised(packed, shape, double_quant, x.dtype))

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient with respect to ``x``."""
        (packed,) = ctx.saved_tensors
        weight = dequantised(packed, ctx.shape, ctx.double_quant, gradient.dtype)
        return gradient @ weight, None, None, None


def dequantised(packed, shape, double_quant, dtype):
    """Return ``W``, allocated beside its constants in fp32 if these are quantised too."""
    count = shape[0] * shape[1] // NF4_BLOCK
    constants = packed.new_empty(count, dtype=torch.float32) if double_quant else None
    weight = packed.new_empty(shape, dtype=dtype)
    del constants  # no longer than the weight takes
    return weight


class FakeLinear4bit(bnb.nn.Linear4bit):
    """Looks like ``Linear4bit`` to PEFT; its values are never read."""

    def __init__(
        self, linear: nn.Linear | Conv1D, *, compute_dtype: torch.dtype, double_quant: bool
    ):
        """Take the place of ``linear``.

        Args:
            linear: the layer; a bias is kept in its dtype.
            compute_dtype: what the product is computed in.
            double_quant: whether the constants are quantised too.
        """
        nn.Module.__init__(self)
        shape = linear.weight.shape[::-1] if isinstance(linear, Conv1D) else linear.weight.shape
        self.out_features, self.in_features = shape
        self.compute_dtype, self.double_quant = compute_dtype, double_quant
        tensors = nf4_tensors(linear.weight.numel(), double_quant=double_quant)
        packed, _ = tensors.pop("packed")
        dtypes, device = {1: torch.uint8, 4: torch.float32}, linear.weight.device
        empty = torch.empty((packed, 1), dtype=torch.uint8, device=device)
        self.weight = nn.Parameter(empty, requires_grad=False)
        # PEFT copies these two when it wraps the layer.
        self.weight.compress_statistics, self.weight.quant_type = double_quant, "nf4"
        self.bias = linear.bias
        for name, (size, each) in tensors.items():
            self.register_buffer(name, torch.empty(size, dtype=dtypes[each], device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of shape (..., d_out) in ``x``'s dtype, by ``Linear4bit``'s steps."""
        shape = (self.out_features, self.in_features)
        out = DequantisedMatmul.apply(
            x.to(self.compute_dtype), self.weight, shape, self.double_quant
        )
        return out.to(x.dtype)


def convertible(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Return what transformers puts in 4 bits: parent, name and module of each.

    Plain linear maps and GPT-2's, but the output head, what is tied to it, the last module and what
    a model keeps in fp32 (T5's ``wo``). Experts in one tensor are no linear maps to it.
    """
    keep = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]
    found = []
    for path, module in model.named_modules():
        linear = type(module) is nn.Linear or isinstance(module, Conv1D)
        if linear and should_convert_module(path, keep):
            parent, _, name = path.rpartition(".")
            found.append((model.get_submodule(parent), name, module))
    return found


def quantise(model: nn.Module, *, compute_dtype: torch.dtype, double_quant: bool) -> None:
    """Replace every linear layer that loading in 4 bits replaces."""
    for parent, name, child in convertible(model):
        fake = FakeLinear4bit(child, compute_dtype=compute_dtype, double_quant=double_quant)
        setattr(parent, name, fake)
    model.is_loaded_in_4bit = True


def share_left_alone(model: nn.Module) -> float:
    """Return which share of the frozen weights' bytes is in no 4-bit layer."""
    packed = {
        id(each)
        for module in model.modules()
        if isinstance(module, FakeLinear4bit)
        for each in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }
    frozen = [*(p for p in model.parameters() if not p.requires_grad), *model.buffers()]
    left = sum(each.nbytes for each in frozen if id(each) not in packed)
    return left / max(1, sum(each.nbytes for each in frozen))
