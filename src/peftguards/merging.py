"""Would a merge store what the adapters do? Each layer is merged in copies and compared."""

import copy
import math

import torch
from torch import nn

from peftguards.errors import GuardError


def tuner_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the adapted layers of a model by name, whatever the method."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)}


@torch.no_grad()
def outputs(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return what a layer makes of random inputs with its adapters and without; None if unknown.

    Known are linear layers, ``Conv1D`` and norms. The random generator of torch is left alone.
    """
    base = layer.get_base_layer()
    kind, weight = type(base).__name__, getattr(base, "weight", None)
    if kind == "Conv1D" or kind.endswith("Norm"):
        width = weight.shape[0 if kind == "Conv1D" else -1]
    else:
        width = getattr(base, "in_features", None)
    if width is None or hasattr(layer, "parameter_name"):  # the last: experts, routed
        return None
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(weight.device, weight.dtype if weight.is_floating_point() else torch.float32)
    try:
        return layer(x).double(), base(x).double()
    except ValueError:  # Poly asks which task it is
        return None


def _flat(layer: nn.Module) -> torch.Tensor:
    """Return all weights of a layer's base as one float64 vector."""
    return torch.cat([p.double().flatten() for p in layer.get_base_layer().parameters()])


def _exact(layer: nn.Module) -> torch.Tensor:
    """Return the base as a merge makes it that rounds nothing to the base's dtype."""
    made = copy.deepcopy(layer).eval()
    made.get_base_layer().double()
    try:
        made.merge()
    except RuntimeError:  # dtypes that this method does not mix
        made = copy.deepcopy(layer).eval().double()
        made.merge()
    return _flat(made)


def _distance(layer: nn.Module) -> float:
    """Return how far merging moves a layer's output, as a share of what its adapters do to it.

    All is in float64; 0 where no output can be made.
    """
    made = copy.deepcopy(layer).eval().double()
    try:
        apart = outputs(made)
        made.merge()
        together = outputs(made)
    except RuntimeError:  # AdaMSS keeps a float32 matrix of its own
        return 0.0
    if apart is None:
        return 0.0
    effect, off = (apart[0] - apart[1]).norm(), (together[1] - apart[0]).norm()
    return (off / effect if effect > 1e-9 * apart[1].norm() else off).item()


@torch.no_grad()
def merge_effect(layer: nn.Module) -> tuple[float, float]:
    """Return which part of a layer's correction a merge keeps, and the noise that it adds.

    Wanted is what merging the active adapters into a base in float64 would change, stored what peft's merge in
    the weight's dtype changes: kept is ``<stored, wanted> / ||wanted||²``, noise ``||stored - wanted||
    / ||wanted||``. What changes less than a millionth of the weights counts as nothing: (1, 0).
    """
    before, wanted = _flat(layer), _exact(layer)
    rounded = copy.deepcopy(layer).eval()
    rounded.merge()
    wanted, stored = wanted.sub_(before), _flat(rounded).sub_(before)
    if (size := wanted.norm()) <= 1e-6 * before.norm():
        return 1.0, 0.0
    kept = (stored @ wanted / size**2).item()
    return kept, (stored.sub_(wanted).norm() / size).item()


def check_merge(model: nn.Module, *, max_loss: float = 0.05, max_noise: float = 0.5) -> None:
    """Refuse a merge of the active adapters that would not store what they do now.

    Each layer is merged in copies, which takes 90 s of one CPU for 10⁹ weights. It may lose at most
    ``max_loss`` of its correction, and take on noise of ``max_noise`` of it: rounding the base has cost
    as much. In float64 it must compute what it computes now, to one part in a hundred.

    Raises:
        GuardError: nothing can be merged, or it is merged; the base is quantised or offloaded; two
            modules share a weight; the dtype loses too much, or values are no numbers; peft cannot
            merge or unload the method, or merging computes something else.
    """
    layers = tuner_layers(model)
    if not layers or not hasattr(model, "peft_config"):
        raise GuardError(
            "There is nothing to merge: no adapter changes weights; keep a prompt, a prefix or a plain "
            "model as it is."
        )
    _refuse_states(model, layers)
    if head := _head_in_the_way(model):
        raise GuardError(
            f"Call merge_adapter() and keep the PEFT model, or use LoRA: peft cannot merge and unload "
            f"this method beside the trained head {head!r} of several layers."
        )
    for name, layer in layers.items():
        _refuse_loss(name, layer, max_loss, max_noise)


def _head_in_the_way(model: nn.Module) -> str | None:
    """Return the name of a trained head that stops ``merge_and_unload``, None if there is none.

    For (IA)3, LoHa and MiSS peft 0.21 reads the weight of whatever it puts back, and a head such as
    RoBERTa's, two linear maps in one module, has none (huggingface/peft#3114).
    """
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils import ModulesToSaveWrapper

    if getattr(type(model.base_model), "_replace_module", None) is not BaseTuner._replace_module:
        return None
    heads = {n: m for n, m in model.named_modules() if isinstance(m, ModulesToSaveWrapper)}
    names = (n for n, m in heads.items() if not hasattr(m.original_module, "weight"))
    return next((name.rpartition(".")[2] for name in names), None)


def _refuse_states(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Refuse layers whose base cannot take a merge: merged, offloaded, quantised or shared."""
    places: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), set()).add(name)
    for name, layer in layers.items():
        if layer.merged:
            raise GuardError("An adapter is merged already: call unmerge_adapter() first.")
        base = layer.get_base_layer()
        stored = [*base.parameters(), *base.buffers()]
        if any(t.is_meta for t in stored):
            raise GuardError(
                f"The base of {name} is offloaded, and a merge cannot be tried on it: load it whole."
            )
        if any(hasattr(t, "quant_state") or t.itemsize < 2 or _packs(t) for t in stored):
            raise GuardError(
                "The base is quantised: a merge would round the adapter to the grid of its few bits; "
                "load the base in float32, load the adapter on it, and merge there."
            )
        if hasattr(layer, "token_indices"):  # peft writes such rows to both places itself
            continue
        shared = [n for p in base.parameters() for n in places[id(p)]]
        shared = [
            n for n in shared if not n.startswith(f"{name}.") and ".original_module." not in n
        ]
        if shared:
            raise GuardError(
                f"The weight of {name} is shared with {min(shared)}, and a merge would change both: "
                f"serve the adapter unmerged, or untie the weights before training."
            )


def _packs(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is of a quantisation library's own class."""
    return not isinstance(tensor, nn.Parameter) and type(tensor) not in (torch.Tensor, nn.Buffer)


@torch.no_grad()
def _refuse_loss(name: str, layer: nn.Module, max_loss: float, max_noise: float) -> None:
    """Refuse a layer that merging would change in another way than its adapters do."""
    try:
        (kept, noise), distance = merge_effect(layer), _distance(layer)
    except Exception as error:
        why = str(error) or type(error).__name__
        raise GuardError(f"peft cannot merge {name}: {why}; serve it unmerged.") from error
    if not abs(kept - 1) <= max_loss or not noise <= max_noise:
        dtype = next(layer.get_base_layer().parameters()).dtype
        diverged = " (nan: the training diverged, or the dtype's range is too small)"
        why = diverged if math.isnan(kept + noise) else ""
        raise GuardError(
            f"Merging into {dtype} keeps {kept:.0%} of the correction of {name}, under noise of {noise:.0%}: "
            f"serve the adapter unmerged, or merge and serve in float32{why}."
        )
    if distance > 0.01:
        raise GuardError(
            f"Merged, {name} would be {distance:.0%} of its correction away from what it computes now: "
            f"these adapters are no sum of weights; merge one alone, or serve them unmerged."
        )
