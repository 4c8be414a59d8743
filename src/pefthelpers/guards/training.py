"""Is it training? Each check passes quietly or says in one sentence what is wrong."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn

from pefthelpers.errors import UserError
from pefthelpers.guards.base import digest
from pefthelpers.guards.targets import check_head, check_targets


@dataclass(frozen=True)
class Snapshot:
    """What a model's parameters were, by name: hashes of frozen and of trainable ones."""

    frozen: dict[str, str]
    trainable: dict[str, str]
    zero: frozenset[str]  # trainable ones that began at zero, as LoRA's B
    versions: dict[str, int]  # how often each had been written to


def snapshot(model: nn.Module) -> Snapshot:
    """Remember every parameter before training, for ``check_training`` afterwards.

    Frozen weights that are offloaded are not looked at.
    """
    hashes: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for name, parameter in model.named_parameters():
        hashes[parameter.requires_grad][name] = digest(parameter)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    zero = frozenset(name for name, parameter in trainable.items() if not parameter.any())
    versions = {name: parameter._version for name, parameter in trainable.items()}
    return Snapshot(hashes[False], hashes[True], zero, versions)


def check_training(model: nn.Module, before: Snapshot) -> None:
    """Compare a trained model with its snapshot; one healthy step is enough to pass.

    Raises:
        UserError: nothing was trainable; a frozen weight moved; a trainable one never moved, but for
            those that wait for a factor which began at zero, as LoRA's A in the first step; values
            are no numbers; targets fit only in part; what was trained, or a new head, is not saved.
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
    stuck = [
        name
        for name in stuck
        if not _waits(name, set(stuck), dict(model.named_parameters()), before)
    ]
    if stuck:
        raise UserError(
            f"{len(stuck)} of {len(before.trainable)} trainable weights never moved, the first is "
            f"{stuck[0]}: look for an optimizer built before get_peft_model, a detached loss, a "
            f"zero learning rate, or checkpointing without enable_input_require_grads()."
        )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise UserError(f"{name} holds values that are no numbers: the training diverged.")
    if hasattr(model, "peft_config"):
        check_targets(model)
        check_head(model)


def _waits(name: str, stuck: set[str], parameters: dict, before: Snapshot) -> bool:
    """Tell whether a weight could not move yet, as the factor it is multiplied with was zero.

    A weight that the optimizer does not hold is told apart by its gradient, or as nothing was written
    to it while the other factor was written to.
    """
    gradient = parameters[name].grad
    if gradient is not None and gradient.any():
        return False
    layer = (
        name.rsplit(".", 3)[0] if name.endswith((".weight", ".bias")) else name.rsplit(".", 2)[0]
    )
    partners = [n for n in before.zero if n.startswith(f"{layer}.")] or list(before.zero)
    written = {n: parameters[n]._version > before.versions[n] for n in (name, *partners)}
    return any(n not in stuck and (written[name] or not written[n]) for n in partners)


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


def check_prefix(model: nn.Module, *, gradient_checkpointing: bool = False, use_cache: bool = True):
    """Refuse what a prefix cannot live with; on any other model, pass.

    Args:
        model: the PEFT model that is about to train or to generate.
        gradient_checkpointing: what the training arguments say.
        use_cache: what the call of ``generate`` says.

    Raises:
        UserError: the model has a prefix, and checkpointing is on in training, or it is about to
            generate without a cache and, tried on one token, cannot.
    """
    config = getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", None))
    if getattr(config, "peft_type", None) not in ("PREFIX_TUNING", "CARTRIDGE"):
        return
    modules = model.get_base_model().modules()
    recomputes = any(getattr(m, "gradient_checkpointing", False) and m.training for m in modules)
    if gradient_checkpointing or recomputes:
        raise UserError(
            "A prefix lives in the key-value cache, and gradient checkpointing recomputes layers "
            "without one: set gradient_checkpointing=False, or take a method without a cache."
        )
    settings = getattr(model, "generation_config", None)  # a classifier has none
    off = not use_cache or (not model.training and settings and settings.use_cache is False)
    if off and settings is not None and not _generates_without_cache(model):
        raise UserError(
            "A prefix lives in the key-value cache, and this decoder is told to keep none: "
            "set use_cache=True."
        )


def _generates_without_cache(model: nn.Module) -> bool:
    """Tell whether a model with a prefix makes the same two tokens with and without a cache."""
    training, token = model.training, 3 + (model.config.pad_token_id == 3)
    ids = torch.tensor([[token]], device=model.device)
    made = []
    with torch.no_grad(), torch.random.fork_rng():
        model.eval()
        for cache in (True, False):
            options = {"max_new_tokens": 2, "do_sample": False, "use_cache": cache}
            try:
                made.append(model.generate(input_ids=ids, **options).tolist())
            except (RuntimeError, ValueError, IndexError):
                made.append(None)
        model.train(training)
    return made[0] is None or made[0] == made[1]


def check_selection(
    *,
    load_best_model_at_end: bool = False,
    eval_strategy: str = "no",
    save_strategy: str = "steps",
    eval_dataset=None,
    **others,
) -> None:
    """Refuse to look for the best checkpoint where nothing is compared.

    Args:
        load_best_model_at_end: as in ``TrainingArguments``.
        eval_strategy: likewise.
        save_strategy: likewise.
        eval_dataset: what the trainer will be given.
        **others: further training arguments, ignored.

    Raises:
        UserError: nothing is evaluated, or not whenever a checkpoint is saved.
    """
    if not load_best_model_at_end:
        return
    matches = save_strategy in (eval_strategy, "best")
    if eval_strategy == "no" or eval_dataset is None or not matches:
        raise UserError(
            "load_best_model_at_end compares evaluations and finds none to compare: give "
            "eval_strategy the value of save_strategy, and pass an eval_dataset."
        )
