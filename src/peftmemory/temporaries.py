"""A layer's temporaries at their worst, in the backward pass of its feed-forward part.

The only part of the closed form that is not derived: each line was read off traced steps of small
models with the widths h and I and the batch varied one at a time, and stands beside a traced case
whose peak it decides (a test traces them again: all within 0.1 %, full fine-tuning within 3 %).
Elsewhere, without checkpointing or with the plain loss, something larger decides.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from peftmemory.activations import Layer
from peftmemory.methods import EVERYWHERE, Method


class Line(NamedTuple):
    """Bytes per token by a layer's widths and sizes, and the traced case that shows them.

    The case is a method and options, on two layers of Llama-3.2-1B with 8 sequences of 1,024
    tokens, checkpointing and the chunked loss.
    """

    per_token: Callable[[Layer], int]
    method: str | Method
    options: dict[str, Any]


# By what happens to down_proj. h hidden size, i intermediate size; bytes per element: e of the
# residual stream, y of a linear map's output, w of an adapter's weights.
AUTOCAST, NF4 = {"autocast": True}, {"precision": "nf4"}
LINES = {
    "trained": Line(lambda at: 2 * at.y * at.i + 4 * at.h, "full", {}),
    "scaled": Line(lambda at: (3 * at.y + at.w + 2) * at.i + 2 * at.e * at.h, "ia3", {}),
    "frozen": Line(lambda at: 3 * at.y * at.i + 2 * at.e * at.h, "ln", {}),
    "LoRA, autocast": Line(lambda at: 3 * at.y * at.i + 12 * at.h, EVERYWHERE, AUTOCAST),
    "LoRA, autocast, 4-bit base": Line(
        lambda at: 3 * at.y * at.i + 20 * at.h, EVERYWHERE, AUTOCAST | NF4
    ),
    "LoRA in fp32": Line(lambda at: 2 * at.y * at.i + 14 * at.h, EVERYWHERE, {}),
    "LoRA in fp32, 4-bit base": Line(lambda at: 2 * at.y * at.i + 12 * at.h, EVERYWHERE, NF4),
    "LoRA in the base's format": Line(
        lambda at: 2 * at.y * at.i + 4 * at.h, EVERYWHERE, {"autocast_adapter_dtype": False}
    ),
}


def line_of(layer: Layer) -> str:
    """Return which of ``LINES`` a layer is on."""
    if layer.full:
        return "trained"
    if "down_proj" not in layer.adapted:
        return "scaled" if "down_proj" in layer.scaled else "frozen"
    four_bit = ", 4-bit base" * (layer.setting.precision == "nf4")
    if layer.setting.autocast:
        return "LoRA, autocast" + four_bit
    if layer.w != layer.e:
        return "LoRA in fp32" + four_bit
    return "LoRA in the base's format"


def layer_temporaries(layer: Layer) -> int:
    """Return the bytes of a layer's gradients of activations at their worst."""
    weight_gradient = layer.e * layer.h * layer.i if layer.full else 0  # down_proj's own
    return LINES[line_of(layer)].per_token(layer) * layer.rows + weight_gradient


def attention_temporaries(layer: Layer) -> int:
    """Return the bytes that eager attention's softmax needs in its backward pass; 0 if fused.

    Per score: the gradient in fp32, CUDA's product of it with the softmax in fp32 (ATen's
    SoftMax.cu), and the result in the product's format, in place of the 16-bit copy that is gone.
    """
    if layer.fused:
        return 0
    copy = layer.c if layer.c == 2 else 0
    return (4 + 4 + layer.c - copy) * layer.config.heads * layer.keys * layer.rows
