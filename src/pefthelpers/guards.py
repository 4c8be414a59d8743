"""Catch the silent failures of PEFT: each check passes quietly or says in one sentence what is wrong."""

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pefthelpers.errors import UserError

FINGERPRINT = "base_fingerprint.json"


def digest(tensor: torch.Tensor) -> str:
    """Return a hash of a tensor's bytes, whatever its dtype."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(data.numpy().tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """What a model's parameters were, by name: hashes of frozen and of trainable ones."""

    frozen: dict[str, str]
    trainable: dict[str, str]


def snapshot(model: nn.Module) -> Snapshot:
    """Remember every parameter before training, for ``check_training`` afterwards."""
    hashes: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for name, parameter in model.named_parameters():
        hashes[parameter.requires_grad][name] = digest(parameter)
    return Snapshot(frozen=hashes[False], trainable=hashes[True])


def check_training(model: nn.Module, before: Snapshot) -> None:
    """Compare a trained model with its snapshot.

    Raises:
        UserError: nothing was trainable; a frozen weight moved; a trainable one never moved.
    """
    if not before.trainable:
        raise UserError("Nothing requires a gradient: wrap the model with get_peft_model first.")
    now = {name: digest(parameter) for name, parameter in model.named_parameters()}
    moved = [name for name, old in before.frozen.items() if now[name] != old]
    if moved:
        raise UserError(
            f"{len(moved)} frozen weights moved, the first is {moved[0]}: "
            f"give the optimizer only parameters that require a gradient."
        )
    stuck = [name for name, old in before.trainable.items() if now[name] == old]
    if stuck:
        raise UserError(
            f"{len(stuck)} of {len(before.trainable)} trainable weights never moved, the first is "
            f"{stuck[0]}: look for an optimizer built before get_peft_model, a detached loss, a "
            f"zero learning rate, or checkpointing without enable_input_require_grads()."
        )


def check_input_gradients(model: nn.Module) -> None:
    """Check, before training, that every 4-bit layer hands a gradient on to its input.

    A layer that does not starves every adapter below it; the loss falls all the same, by the
    adapters above. One row of random inputs goes through each layer by itself, so the check needs
    no data and changes nothing.

    Raises:
        UserError: the model has no 4-bit layer, or some of them let no gradient through.
    """
    import bitsandbytes as bnb

    layers = {n: m for n, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    if not layers:
        raise UserError("No layer is in 4 bits: load with models.load(..., four_bit=True).")
    dead = [name for name, layer in layers.items() if not _passes_gradient(layer)]
    if dead:
        raise UserError(
            f"{len(dead)} of {len(layers)} 4-bit layers hand no gradient on to their input, the "
            f"first is {dead[0]}: adapters below them will not learn; an evaluation before "
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
    when it brings some of these weights back (96 inputs, for instance; 100 come out right): no
    error, wrong numbers. Any number of outputs will do, once nothing is packed.

    Raises:
        UserError: there is such a layer.
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

    There, an evaluation without gradients packs the weights for a faster kernel (bitsandbytes
    0.50). That kernel has no backward pass, so adapters in earlier layers silently stop learning;
    it computes in bfloat16; it raises where inputs are no multiple of 64 or outputs no multiple of
    32; and saving a packed model mixes up the constants of its blocks. Elsewhere
    nothing is ever packed and this changes nothing.

    Raises:
        UserError: weights are packed already; their constants cannot be had back from there.
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


def fingerprint(model: nn.Module) -> str:
    """Return a hash that names a base model, the same in 32, 16 and 4 bits, with or without adapters.

    It covers embeddings and norms, which quantisation leaves alone, rounded to bfloat16.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    whole = hashlib.blake2b(digest_size=16)
    for name, module in sorted(base.named_modules()):
        is_norm = type(module).__name__.endswith(("Norm", "LayerNorm"))
        if isinstance(module, nn.Embedding) or is_norm:
            for parameter in module.parameters(recurse=False):
                whole.update(name.encode() + digest(parameter.to(torch.bfloat16)).encode())
    return whole.hexdigest()


def sign(folder: str | Path, model: nn.Module) -> None:
    """Write the base model's fingerprint beside a saved adapter."""
    record = {"base_fingerprint": fingerprint(model)}
    (Path(folder) / FINGERPRINT).write_text(json.dumps(record) + "\n")


def check_base(folder: str | Path, model: nn.Module) -> None:
    """Compare an adapter's signature with the model it is about to be loaded on.

    Raises:
        UserError: the folder has no signature, or the adapter was trained on another base.
    """
    file = Path(folder) / FINGERPRINT
    if not file.is_file():
        raise UserError(f"{file.parent.name} has no {FINGERPRINT}: call guards.sign when saving.")
    if json.loads(file.read_text())["base_fingerprint"] != fingerprint(model):
        raise UserError(
            f"The adapter in {file.parent.name} was trained on another base model: "
            f"shapes fit, answers would not; load the base that it was trained on."
        )


def merge_loss(layer, adapter: str = "default") -> float:
    """Return the share of a LoRA layer's correction that rounding loses in a merge.

    ``||round(W + dW) - W - dW|| / ||dW||`` with dW = (alpha / r) B A, computed in float32 and
    rounded to the dtype of W. 0 for an untrained adapter.
    """
    weight = layer.get_base_layer().weight
    correction = layer.get_delta_weight(adapter).float()
    if not correction.any():
        return 0.0
    merged = (weight.float() + correction).to(weight.dtype).float()
    return ((merged - weight.float() - correction).norm() / correction.norm()).item()


def head_in_the_way(model: nn.Module) -> str | None:
    """Return the name of a trained head that stops ``merge_and_unload``, None if there is none.

    For (IA)3, LoHa and MiSS, peft 0.21 reads ``.weight`` of whatever it puts back, and a head such as
    RoBERTa's, two linear maps in one module, has none (huggingface/peft#3114).
    """
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils import ModulesToSaveWrapper

    tuner = model.base_model
    if getattr(type(tuner), "_replace_module", None) is not BaseTuner._replace_module:
        return None
    heads = {n: m for n, m in tuner.model.named_modules() if isinstance(m, ModulesToSaveWrapper)}
    return next((n for n, m in heads.items() if not hasattr(m.original_module, "weight")), None)


def check_merge(model: nn.Module, *, max_loss: float = 0.01) -> None:
    """Refuse a merge that would round the adapter away, or that peft cannot finish.

    Args:
        model: a PEFT model.
        max_loss: the largest share of a LoRA layer's correction that may be lost.

    Raises:
        UserError: the base is quantised, its dtype loses more than ``max_loss``, or a trained head
            is in the way of unloading.
    """
    from peft.tuners.lora import LoraLayer

    if head := head_in_the_way(model):
        kind = model.peft_config[model.active_adapter].peft_type.value
        raise UserError(
            f"Call merge_adapter() and keep the PEFT model, or use LoRA: peft cannot merge and "
            f"unload {kind} beside the trained head {head!r}, which has no weight of its own."
        )
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = layer.get_base_layer().weight
        if not weight.is_floating_point():
            raise UserError(
                "The base is quantised: a merge would round the adapter to the 4-bit grid; load "
                "the base in float32, load the adapter on it, and merge there."
            )
        if (lost := merge_loss(layer)) > max_loss:
            dtype = str(weight.dtype).removeprefix("torch.")
            raise UserError(
                f"Merging into {dtype} loses {lost:.1%} of the correction of {name}: load the base "
                f"in float32, merge, keep that as the master copy, and compare answers before you "
                f"serve it in {dtype}."
            )


def check_prefix(model: nn.Module, *, gradient_checkpointing: bool = False, use_cache: bool = True):
    """Refuse what a prefix cannot live with; on any other model, pass.

    Args:
        model: the PEFT model that is about to train or to generate.
        gradient_checkpointing: what the training arguments say.
        use_cache: what the call of ``generate`` says.

    Raises:
        UserError: the model has a prefix, and checkpointing is on, or a decoder's cache is off.
    """
    config = getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", None))
    if getattr(config, "peft_type", None) != "PREFIX_TUNING":
        return
    modules = model.get_base_model().modules()
    if gradient_checkpointing or any(getattr(m, "gradient_checkpointing", False) for m in modules):
        raise UserError(
            "A prefix lives in the key-value cache, and gradient checkpointing recomputes layers "
            "without one: set gradient_checkpointing=False, or take a method without a cache."
        )
    switches = (model.config.use_cache, model.generation_config.use_cache, use_cache)
    if False in switches and not model.config.is_encoder_decoder:
        raise UserError(
            "A prefix lives in the key-value cache, and this decoder is told to keep none: "
            "set use_cache=True."
        )


def explain(check: Callable, *arguments, **options) -> str:
    """Run a check of this module and return its sentence, or ``ok``."""
    try:
        check(*arguments, **options)
    except UserError as error:
        return str(error)
    return "ok"
