"""Catch the silent failures of PEFT: each check passes quietly or says in one sentence what is wrong."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from pefthelpers.errors import UserError
from pefthelpers.guards_merge import check_merge, merge_effect

FINGERPRINT = "base_fingerprint.json"
INSIDE = ("_orig_mod", "original_module", "token_adapter", "base_layer")  # of wrappers
FORMATS = {"torch.float32": "float", "torch.bfloat16": "float", "torch.float16": "float16"}


def digest(tensor: torch.Tensor) -> str:
    """Return a hash of a tensor's bytes, whatever its dtype."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(data.numpy(), digest_size=16).hexdigest()


def snapshot(model: nn.Module) -> dict[str, tuple[bool, str, int]]:
    """Remember each parameter before training: does it train, its hash, and how often torch wrote it."""
    return {n: (p.requires_grad, digest(p), p._version) for n, p in model.named_parameters()}


def check_training(model: nn.Module, before: dict[str, tuple[bool, str, int]]) -> None:
    """Compare a trained model with its ``snapshot``; one healthy step is enough to pass.

    Raises:
        UserError: nothing was trainable; a frozen weight moved; a trainable one never moved (unless
            the optimizer has it and its layer began to move: LoRA's A waits for B) or is no number.
    """
    trainable = [name for name, (trains, _, _) in before.items() if trains]
    if not trainable:
        raise UserError("Nothing requires a gradient: wrap the model with get_peft_model first.")
    weights = dict(model.named_parameters())
    same = {name for name, (_, old, _) in before.items() if digest(weights[name]) == old}
    if moved := [name for name in before if name not in same and name not in trainable]:
        raise UserError(
            f"{len(moved)} frozen weights moved, the first is {moved[0]}: "
            f"give the optimizer only parameters that require a gradient."
        )
    layer = lambda name: name.rsplit(".", 3)[0]
    begun = {layer(name) for name in trainable if name not in same}
    written = {name for name, (_, _, writes) in before.items() if weights[name]._version > writes}
    stuck = [n for n in trainable if n in same and not (n in written and layer(n) in begun)]
    if stuck:
        raise UserError(
            f"{len(stuck)} of {len(trainable)} trainable weights never moved, the first is "
            f"{stuck[0]}: look for an optimizer built before get_peft_model, a detached loss, a "
            f"zero learning rate, or checkpointing without enable_input_require_grads()."
        )
    if lost := [name for name in trainable if not weights[name].isfinite().all()]:
        raise UserError(f"{lost[0]} holds values that are no numbers: the training diverged.")


def check_input_gradients(model: nn.Module) -> None:
    """Check, before training, that every 4-bit layer hands a gradient on to its input.

    Below a layer that does not, adapters learn from a wrong gradient: at first none, later only what
    comes through the adapters above. The loss falls all the same. One row of random inputs goes
    through each layer by itself, so the check needs no data and changes nothing.
    """
    import bitsandbytes as bnb

    layers = {n: m for n, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    if not layers:
        raise UserError("No layer is in 4 bits: load with models.load(..., four_bit=True).")
    if dead := [name for name, layer in layers.items() if not _passes_gradient(layer)]:
        raise UserError(
            f"{len(dead)} of {len(layers)} 4-bit layers hand no gradient on to their input, the "
            f"first is {dead[0]}: adapters below them learn from a wrong one; an evaluation before "
            f"training packs the weights on CPUs with AVX512-BF16, so load the model again with "
            f"models.load(..., four_bit=True), which never packs."
        )


def _passes_gradient(layer: nn.Module) -> bool:
    """Tell whether a layer's output depends, for autograd, on its input."""
    x = torch.randn(1, layer.in_features, device=layer.weight.device, requires_grad=True)
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
            raise UserError(
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
            raise UserError(
                f"An evaluation has already packed the 4-bit weights of {name}, and packed weights "
                f"cannot be trained through: load the model again and call keep_input_gradients "
                f"before the first evaluation, or let models.load do it."
            )
        module.support_avx512bf16_for_cpu = False


def _weights(module: nn.Module, path: str = "", copied: bool = False) -> Iterator[tuple]:
    """Yield name, tensor, and whether an adapter has its own copy, of a base inside its wrappers."""
    while inner := next((n for n in INSIDE if module._modules.get(n) is not None), None):
        copied |= hasattr(module, "modules_to_save")
        module = module._modules[inner]
    yield from ((path + name, p, copied) for name, p in module._parameters.items() if p is not None)
    for name, child in module.named_children():
        yield from _weights(child, f"{path}{name}.", copied)


def _describe(name: str, tensor: torch.Tensor) -> dict:
    """Return a weight's format, its shape and hash, and what 64 blocks of it look like in 4 bits."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    kind, state = FORMATS.get(str(tensor.dtype)), getattr(tensor, "quant_state", None)
    if state is not None:
        known = (state.quant_type, state.blocksize) == ("nf4", 64)
        kind = "nf4" if known and not getattr(state, "packing_format_for_cpu", False) else None
    if tensor.is_meta or kind is None:
        raise UserError(
            f"{name} is offloaded or in a form that cannot be compared: load the base in 32 or 16 "
            f"bits, or in NF4 by models.load(..., four_bit=True)."
        )
    values = tensor.detach() if state is None else dequantize_4bit(tensor.data, state)
    shape, values = values.shape, values.to(torch.bfloat16).flatten()
    starts = 64 * torch.linspace(0, max(len(values) // 64 - 1, 0), 64).long()
    some = values[starts[:, None] + torch.arange(min(len(values), 64))].float().cpu()
    if len(shape) > 1:  # else no loader quantises it
        some = dequantize_4bit(*quantize_4bit(some, quant_type="nf4"))
    return {"format": kind, "hash": f"{[*shape]} {digest(values)}", "4 bits": some.sum(0).tolist()}


def fingerprint(model: nn.Module) -> dict[str, dict | None]:
    """Describe each weight of a base, with or without adapters; None where one trains or replaces it.

    Every value is read and hashed once, rounded to bfloat16: 0.03 s of one CPU and 7 MB for the kitchen
    decoder, 2.7 s for 10⁹ weights in bfloat16, and about 1.4 kB in the file for each weight.
    """
    peft = hasattr(model, "peft_config")
    return {
        name: None if copied or (peft and tensor.requires_grad) else _describe(name, tensor)
        for name, tensor, copied in _weights(model.get_base_model() if peft else model)
    }


def sign(folder: str | Path, model: nn.Module) -> None:
    """Write the base model's fingerprint beside a saved adapter; refuse a base merged for now."""
    if any(getattr(module, "merged", False) is True for module in model.modules()):
        raise UserError("The base holds a merged adapter: call unmerge_adapter() before signing.")
    signature = json.dumps({"weights": fingerprint(model)})
    (Path(folder) / FINGERPRINT).write_text(signature + "\n", "utf-8")


def check_base(folder: str | Path, model: nn.Module) -> None:
    """Compare an adapter's signature with the model it is about to be loaded on.

    Among bases in 32 bits and bfloat16 it notices whatever bfloat16 can tell apart; with one in
    float16 or NF4, what rounding does not explain: a merge that changed many weights by 1 % or more.
    Signatures of an older kind, which covered no linear weight, are refused.
    """
    file = Path(folder) / FINGERPRINT
    signed = json.loads(file.read_text("utf-8")).get("weights") if file.is_file() else None
    if signed is None:
        raise UserError(f"{file.parent.name} has no {FINGERPRINT}: call guards.sign when saving.")
    here = fingerprint(model)
    wrong = [n for n in signed | here if n not in signed or n not in here]
    wrong += [n for n in signed if signed[n] and here.get(n) and _differ(signed[n], here[n])]
    if wrong:
        raise UserError(
            f"The adapter in {file.parent.name} was trained on another base model: {len(wrong)} of "
            f"{len(signed)} weights differ, the first is {wrong[0]}; load the base that it was "
            f"trained on, with no other adapter merged into it."
        )


def _differ(old: dict, new: dict) -> bool:
    """Tell whether two descriptions are of different weights, as far as their formats can tell."""
    before, after = torch.tensor(old["4 bits"]), torch.tensor(new["4 bits"])
    exact = old["format"] == new["format"] != "nf4"  # else rounding to 16 bits moves 2 or 3 %
    near = not exact and bool((after - before).norm() <= 0.05 * before.norm())
    return old["hash"] != new["hash"] and not near


def check_prefix(model: nn.Module, *, gradient_checkpointing: bool = False, use_cache: bool = True):
    """Refuse what a prefix cannot live with; on any other model, pass.

    The model is about to train, or in evaluation mode to generate; the options are what the training
    arguments and the call of ``generate`` say. If it is to keep no cache, generating is tried out.
    """
    config = getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", None))
    if getattr(config, "peft_type", None) != "PREFIX_TUNING":
        return
    modules = model.get_base_model().modules()
    recomputes = any(getattr(m, "gradient_checkpointing", False) and m.training for m in modules)
    if gradient_checkpointing or recomputes:
        raise UserError(
            "A prefix lives in the key-value cache, and gradient checkpointing recomputes layers "
            "without one: set gradient_checkpointing=False, or take a method without a cache."
        )
    settings = getattr(model, "generation_config", None)  # a classifier has none
    off = not use_cache or (not model.training and getattr(settings, "use_cache", None) is False)
    if settings and off and not _works_without_cache(model):
        raise UserError(
            "A prefix lives in the key-value cache, and this model is told to keep none: "
            "set use_cache=True."
        )


def _works_without_cache(model: nn.Module) -> bool:
    """Tell whether a model with a prefix can generate without a cache; a Llama, for one, breaks."""
    ids = torch.tensor([[3]], device=model.device)
    try:
        model.generate(input_ids=ids, max_new_tokens=2, do_sample=False, use_cache=False)
    except RuntimeError:
        return False
    return not model.config.is_encoder_decoder  # peft gives it the prefix for the first token alone


def explain(check: Callable, *arguments, **options) -> str:
    """Run a check of this module and return its sentence, or ``ok``."""
    try:
        check(*arguments, **options)
    except UserError as error:
        return str(error)
    return "ok"
