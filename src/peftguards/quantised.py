"""Bases in 4 bits: layers that hand no gradient on, weights that are packed, widths that come back wrong."""

import warnings

import torch
from torch import nn

from peftguards.errors import GuardError


def check_input_gradients(model: nn.Module) -> None:
    """Check, before training, that every 4-bit layer hands a gradient on to its input.

    Below a layer that does not, adapters learn from a wrong gradient: at first none, later only what
    comes through the adapters above. The loss falls all the same. One row of random inputs goes
    through each layer by itself, so the check needs no data and changes nothing.
    """
    import bitsandbytes as bnb

    layers = {n: m for n, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    if not layers:
        raise GuardError(
            "No layer is in 4 bits: load the model with a BitsAndBytesConfig(load_in_4bit=True)."
        )
    if dead := [name for name, layer in layers.items() if not _passes_gradient(layer)]:
        raise GuardError(
            f"{len(dead)} of {len(layers)} 4-bit layers hand no gradient on to their input, the "
            f"first is {dead[0]}: adapters below them learn from a wrong one; an evaluation before "
            f"training packs the weights on CPUs with AVX512-BF16, so load the model again and call "
            f"keep_input_gradients before anything else."
        )


def _passes_gradient(layer: nn.Module) -> bool:
    """Tell whether a layer's output depends, for autograd, on its input."""
    x = torch.randn(1, layer.in_features, generator=torch.Generator().manual_seed(0))
    x = x.to(layer.weight.device).requires_grad_()
    with warnings.catch_warnings():  # torch warns of the missing backward pass, once
        warnings.simplefilter("ignore")
        y = layer(x)
        if y.requires_grad:
            y.sum().backward(inputs=[x])
    return x.grad is not None and bool(x.grad.any())


def refuse_widths(model) -> None:
    """Refuse 4-bit layers on a CPU whose inputs are no multiple of the block size.

    There a block runs over the end of a row, and bitsandbytes 0.50 takes another block's constant
    when it brings some of these weights back (96 inputs on a CPU with AVX512-BF16, for instance): no
    error, wrong numbers. Any number of outputs will do, once nothing is packed.
    """
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        block = getattr(getattr(weight, "quant_state", None), "blocksize", 1)
        if block > 1 and weight.device.type == "cpu" and module.in_features % block:
            raise GuardError(
                f"The 4-bit layer {name or type(module).__name__} has {module.in_features} inputs, "
                f"no multiple of {block}: on a CPU bitsandbytes may bring its weights back wrong; "
                f"leave it unquantised by BitsAndBytesConfig(llm_int8_skip_modules=[...])."
            )


def keep_input_gradients(model) -> None:
    """Stop bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    There, an evaluation without gradients packs the weights for a faster kernel (bitsandbytes 0.50).
    It has no backward pass, so adapters in earlier layers learn from a wrong gradient; it computes in
    bfloat16; it raises where inputs are no multiple of 64 or outputs no multiple of 32; and saving a
    packed model mixes up the constants of its blocks, so weights that are packed already are refused.
    """
    for name, module in model.named_modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        state = getattr(module.weight, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise GuardError(
                f"An evaluation has already packed the 4-bit weights of {name}, and packed weights "
                f"cannot be trained through: load the model again and call keep_input_gradients "
                f"before the first evaluation."
            )
        module.support_avx512bf16_for_cpu = False
