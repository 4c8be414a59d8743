"""Would a merge store what the adapter does? Each layer is merged in copies and compared."""

import copy

import torch
from torch import nn

from pefthelpers.errors import UserError


@torch.no_grad()
def merge_effect(layer: nn.Module) -> tuple[float, float]:
    """Return which part of a layer's correction a merge keeps, and the noise that it adds.

    Wanted is what merging the active adapters in float64 would change, stored what peft's merge in
    the weight's dtype changes: kept is ``<stored, wanted> / ||wanted||²``, noise ``||stored - wanted||
    / ||wanted||``. What changes less than a millionth of the weights counts as nothing: (1, 0).
    """
    flat = lambda of: torch.cat([p.double().flatten() for p in of.get_base_layer().parameters()])
    exact, rounded = copy.deepcopy(layer).eval(), copy.deepcopy(layer).eval()
    exact.get_base_layer().double()
    exact.merge()
    rounded.merge()
    before = flat(layer)
    wanted, stored = flat(exact).sub_(before), flat(rounded).sub_(before)
    if (size := wanted.norm()) <= 1e-6 * before.norm():
        return 1.0, 0.0
    kept = (stored @ wanted / size**2).item()
    return kept, (stored.sub_(wanted).norm() / size).item()


def check_merge(model: nn.Module, *, max_loss: float = 0.05, max_noise: float = 0.5) -> None:
    """Refuse a merge of the active adapters that would not store what they do now.

    Each layer is merged in copies, which takes 80 s of one CPU for 10⁹ weights. It may lose at most
    ``max_loss`` of its correction, and take on noise of ``max_noise`` of it: rounding the base has cost
    as much. Refused are quantised bases too, weights that two modules share, NaN, and what peft cannot
    merge or unload.
    """
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    layers = {n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
    if not layers or any(layer.merged for layer in layers.values()):
        raise UserError("There is nothing to merge: no adapter changes weights, or it is merged.")
    # For (IA)3, LoHa and MiSS peft 0.21 reads the weight of whatever it puts back, and a head such as
    # RoBERTa's, two linear maps in one module, has none (huggingface/peft#3114).
    reads = type(model.base_model)._replace_module is BaseTuner._replace_module
    heads = [m.original_module for m in model.modules() if isinstance(m, ModulesToSaveWrapper)]
    if reads and not all(hasattr(head, "weight") for head in heads):
        raise UserError(
            "Call merge_adapter() and keep the PEFT model, or use LoRA: peft cannot merge and unload "
            "this method beside a trained head of several layers."
        )
    named = list(model.named_parameters(remove_duplicate=False))
    for name, layer in layers.items():
        weight = getattr(layer.get_base_layer(), "weight", None)
        if hasattr(weight, "quant_state") or getattr(weight, "itemsize", 4) == 1:
            raise UserError(
                "The base is quantised: a merge would round the adapter to the 4-bit grid; load "
                "the base in float32, load the adapter on it, and merge there."
            )
        others = [n for n, p in named if p is weight and not n.startswith(f"{name}.")]
        if others and not hasattr(layer, "token_indices"):  # peft writes such rows to both itself
            raise UserError(
                f"The weight of {name} is shared with {others[0]}, and a merge would change both: "
                f"serve the adapter unmerged, or untie the weights before training."
            )
        try:
            kept, noise = merge_effect(layer)
        except Exception as error:
            raise UserError(f"{name} cannot be merged: {error}") from error
        if not abs(kept - 1) <= max_loss or noise > max_noise:
            raise UserError(
                f"Merging into {weight.dtype} keeps {kept:.0%} of the correction of {name}, under "
                f"noise of {noise:.0%}: serve the adapter unmerged, or merge and serve in float32 "
                f"(nan: the training diverged, or the dtype's range is too small)."
            )
