"""Would a merge keep what was trained? Each layer is merged in a copy and compared with the truth."""

import copy
import math

import torch
from torch import nn

from pefthelpers.errors import UserError


def tuner_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the adapted layers of a model by name, whatever the method."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)}


def outputs(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return what a layer makes of random inputs with its adapters and without; None if unknown.

    Known are linear layers, ``Conv1D`` and norms. The random generator of torch is left alone.
    """
    base = layer.get_base_layer()
    kind, weight = type(base).__name__, getattr(base, "weight", None)
    if kind == "Conv1D":
        width = weight.shape[0]
    elif kind.endswith("Norm"):
        width = weight.shape[-1]
    else:
        width = getattr(base, "in_features", None)
    if width is None or hasattr(layer, "parameter_name"):  # the last: experts, routed
        return None
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    x = x.to(weight.device, dtype)
    with torch.no_grad():
        return layer(x).double(), base(x).double()


def _merged(layer: nn.Module, adapters: list[str] | None, exact: str = "") -> tuple:
    """Merge a copy of a layer; return its base before and after, outputs before and after.

    ``exact`` says what is in float64: ``base``, so that nothing is rounded to its dtype, or ``all``.
    """
    layer = copy.deepcopy(layer).eval()
    if exact:
        (layer if exact == "all" else layer.get_base_layer()).double()
    weights = lambda: [p.detach().double().clone() for p in layer.get_base_layer().parameters()]
    before, apart = weights(), outputs(layer) if exact == "all" else None
    layer.merge(adapter_names=adapters)
    return before, weights(), apart, outputs(layer) if apart else None


def _norm(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """Return the norm of the difference of two lists of tensors."""
    return sum((x - y).pow(2).sum() for x, y in zip(a, b, strict=True)).sqrt().item()


def _rounding(layer: nn.Module, adapters: list[str] | None) -> float:
    """Return the share of a layer's correction that merging into the base's dtype loses."""
    try:
        before, target, *_ = _merged(layer, adapters, "base")
    except RuntimeError:  # dtypes that cannot be mixed
        before, target, *_ = _merged(layer, adapters, "all")
    size, lost = _norm(target, before), _norm(_merged(layer, adapters)[1], target)
    if not math.isfinite(size + lost):
        return math.nan
    return lost / size if size else 0.0


def _distortion(layer: nn.Module) -> float:
    """Return how far merging moves a layer's output, as a share of what its adapters do to it."""
    try:
        _, _, apart, together = _merged(layer, None, "all")
    except RuntimeError:  # AdaMSS keeps a float32 matrix of its own
        return 0.0
    if apart is None:
        return 0.0
    effect, off = _norm(apart[:1], apart[1:]), _norm(together[1:], apart[:1])
    return off / effect if effect else off


def merge_loss(layer: nn.Module, adapter: str | None = None) -> float:
    """Return the share of a layer's correction that rounding loses in a merge.

    ``||merged - W - dW|| / ||dW||``: merged is what peft's merge makes of a copy of the layer, dW
    what it would add in float64 (for LoRA, (alpha / r) B A). 0 for an untrained adapter, NaN where
    values are no numbers.

    Args:
        layer: an adapted layer of any method that can be merged.
        adapter: name of one adapter; the active ones if None.
    """
    return _rounding(layer, None if adapter is None else [adapter])


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
    """Refuse a merge of the active adapters that would not keep what they do.

    Every adapted layer is merged in a copy, one at a time, in its own dtype and in float64; the model
    stays as it is.

    Args:
        model: a PEFT model.
        max_loss: the largest share of a layer's correction that may be lost.

    Raises:
        UserError: nothing can be merged; the base is quantised or offloaded; a weight is shared with
            another layer; values are no numbers; the dtype loses more than ``max_loss``; merging
            computes something else; a trained head is in the way of unloading.
    """
    layers = tuner_layers(model)
    if not hasattr(model, "peft_config") or not layers:
        raise UserError(
            "There is nothing to merge: only adapters that change weights can be merged, so keep a "
            "prompt, a prefix or a plain model as it is."
        )
    _refuse_states(model, layers)
    if head := head_in_the_way(model):
        kind = model.peft_config[model.active_adapters[0]].peft_type.value
        raise UserError(
            f"Call merge_adapter() and keep the PEFT model, or use LoRA: peft cannot merge and "
            f"unload {kind} beside the trained head {head!r}, which has no weight of its own."
        )
    for name, layer in layers.items():
        _refuse_loss(name, layer, max_loss)


def _refuse_states(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Refuse layers whose base cannot take a merge: merged, offloaded, quantised or shared."""
    places: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(parameter.data_ptr(), set()).add(name)
    for name, layer in layers.items():
        if layer.merged:
            raise UserError(
                "An adapter is merged already: call unmerge_adapter() to check a merge."
            )
        base = layer.get_base_layer()
        stored = [*base.named_parameters(), *base.named_buffers()]
        if any(t.is_meta for _, t in stored):
            raise UserError(
                f"The base of {name} is offloaded: load it whole, then check and merge."
            )
        plain = (nn.Parameter, torch.Tensor)
        if any(
            type(t) not in plain or t.dtype.itemsize < 2 or not t.is_floating_point()
            for _, t in stored
        ):
            raise UserError(
                "The base is quantised: a merge would round the adapter to the grid of its few "
                "bits; load the base in float32, load the adapter on it, and merge there."
            )
        if hasattr(layer, "token_indices"):  # peft writes tied rows to both places itself
            continue
        for _, parameter in base.named_parameters():
            others = [n for n in places[parameter.data_ptr()] if not n.startswith(f"{name}.")]
            if others := [n for n in others if ".original_module." not in n]:
                raise UserError(
                    f"The weight of {name} is shared with {others[0]}: a merge would change both; "
                    f"serve the adapter unmerged, or untie the weights before training."
                )


def _refuse_loss(name: str, layer: nn.Module, max_loss: float) -> None:
    """Refuse a layer that merging would change in another way than its adapters do."""
    try:
        lost, wrong = _rounding(layer, None), _distortion(layer)
    except Exception as error:
        raise UserError(
            f"peft cannot merge {name}: {error or type(error).__name__}; serve it unmerged."
        ) from error
    if math.isnan(lost):
        raise UserError(
            f"Merging {name} gives values that are no numbers (NaN or infinite): the training "
            f"diverged, or the dtype's range is too small; go back to an earlier checkpoint."
        )
    if lost > max_loss:
        dtype = str(layer.get_base_layer().weight.dtype).removeprefix("torch.")
        raise UserError(
            f"Merging into {dtype} loses {lost:.1%} of the correction of {name}: load the base "
            f"in float32, merge, keep that as the master copy, and compare answers before you "
            f"serve it in {dtype}."
        )
    if wrong > max_loss:
        raise UserError(
            f"Merged, {name} would be {wrong:.1%} of its correction away from what it computes now: "
            f"these adapters are no sum of weights; merge one alone, or serve them unmerged."
        )
