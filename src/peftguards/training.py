"""Is it training? A snapshot before, a check afterwards."""

from typing import NamedTuple

import torch
from torch import nn

from peftguards.errors import GuardError
from peftguards.targets import check_head, check_targets
from peftguards.weights import digest


class Before(NamedTuple):
    """What a parameter was before training."""

    trains: bool
    hash: str  # empty where it is offloaded: it is not looked at
    writes: int  # how often torch has written to it
    zero: bool  # all zero, as LoRA's B


def _is_zero(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor holds values and all are zero."""
    return not tensor.is_meta and not tensor.any()


def snapshot(model: nn.Module) -> dict[str, Before]:
    """Remember each parameter before training, for ``check_training`` afterwards."""
    return {
        n: Before(p.requires_grad, digest(p), p._version, p.requires_grad and _is_zero(p))
        for n, p in model.named_parameters()
    }


def check_training(model: nn.Module, before: dict[str, Before]) -> None:
    """Compare a trained model with its ``snapshot``; one healthy step is enough to pass.

    Raises:
        GuardError: nothing was trainable; a frozen weight moved; a trainable one never moved (unless
            it waits for a factor that began at zero, as LoRA's A waits for B in the first step) or
            is no number; targets fit only in part; a trained weight, or a new head, is not saved.
    """
    trainable = [name for name, was in before.items() if was.trains]
    if not trainable:
        raise GuardError("Nothing requires a gradient: wrap the model with get_peft_model first.")
    weights = dict(model.named_parameters())
    if off := [name for name in trainable if weights[name].is_meta]:
        raise GuardError(
            f"{len(off)} trainable weights have no values here, the first is {off[0]}: their layer is "
            f"offloaded; load with a device_map that names devices alone, or without one."
        )
    same = {name for name, was in before.items() if digest(weights[name]) == was.hash}
    if moved := [name for name in before if name not in same and name not in trainable]:
        raise GuardError(
            f"{len(moved)} frozen weights moved, the first is {moved[0]}: "
            f"give the optimizer only parameters that require a gradient."
        )
    if stuck := _stuck(weights, before, trainable, same):
        raise GuardError(
            f"{len(stuck)} of {len(trainable)} trainable weights never moved, the first is "
            f"{stuck[0]}: look for an optimizer built before get_peft_model, a detached loss, a "
            f"zero learning rate, or checkpointing without enable_input_require_grads()."
        )
    if lost := [name for name in trainable if not weights[name].isfinite().all()]:
        raise GuardError(f"{lost[0]} holds values that are no numbers: the training diverged.")
    if hasattr(model, "peft_config"):
        check_targets(model)
        check_head(model)


def _stuck(weights: dict, before: dict[str, Before], trainable: list, same: set) -> list[str]:
    """Return trainable weights that did not move, but for those that could not move yet.

    Such a weight was written to, by an optimizer that holds it, and a factor that began at zero has
    moved: of its own layer, or anywhere if layers share their factors. Where an optimizer's writing
    leaves no trace (bitsandbytes'), a gradient of zeros stands for it.
    """
    layer = lambda name: name.rsplit(".", 3)[0]
    zeros = [name for name in trainable if before[name].zero]
    written = {name for name, was in before.items() if weights[name]._version > was.writes}
    traced = any(name in written for name in trainable if name not in same)

    def waits(name: str) -> bool:
        gradient = weights[name].grad
        held = name in written if traced else gradient is not None and not gradient.any()
        factors = [n for n in zeros if layer(n) == layer(name)] or zeros
        return held and any(factor not in same for factor in factors)

    return [name for name in trainable if name in same and not waits(name)]
