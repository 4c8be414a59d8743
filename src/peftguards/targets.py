"""Does the adapter reach what it was meant to reach? Targets that fit in part, heads left out."""

import re

import torch
from torch import nn

from peftguards.errors import GuardError
from peftguards.weights import base_weights

HEADS = {"classifier", "score"}  # usual names of a classifier's head


def check_targets(model: nn.Module) -> None:
    """Refuse an adapter that adapts only a part of what its configuration names.

    Args:
        model: a PEFT model; all its adapters are looked at.

    Raises:
        GuardError: a name in target_modules, target_parameters, rank_pattern, alpha_pattern or
            modules_to_save fits no layer; the sentence lists the layers that are there.
    """
    for adapter, config in getattr(model, "peft_config", {}).items():
        for field, names in _unmatched(model, adapter, config).items():
            raise GuardError(
                f"{field} fits only in part: nothing is adapted or trained under "
                f"{', '.join(map(repr, names))}; the layers of this "
                f"{type(model.get_base_model()).__name__} that have no adapter are "
                f"{', '.join(_left_out(model)) or 'none'}."
            )


def _adapted(model: nn.Module, adapter: str) -> tuple[set[str], set[str]]:
    """Return names of the modules that an adapter changes or copies, and of such parameters."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    modules, parameters = set(), set()
    for name, module in model.get_base_model().named_modules():
        name = name.replace(".base_layer", "")
        if isinstance(module, BaseTunerLayer) and adapter in module._get_available_adapters():
            inner = getattr(module, "parameter_name", None)
            (parameters if inner else modules).add(f"{name}.{inner}" if inner else name)
        elif isinstance(module, AuxiliaryTrainingWrapper) or hasattr(module, "adaption_prompt"):
            modules.add(name)
    return modules, parameters


def _unmatched(model: nn.Module, adapter: str, config) -> dict[str, list[str]]:
    """Return ``{field: names that adapt nothing}`` of one adapter's configuration."""
    modules, parameters = _adapted(model, adapter)
    if getattr(config, "exclude_modules", None) or getattr(config, "layers_to_transform", None):
        modules |= {n for n, _ in model.get_base_model().named_modules()}  # meant to be left out
    ends = lambda name, pool: any(m == name or m.endswith(f".{name}") for m in pool)
    matches = lambda key, pool: any(re.match(rf"(.*\.)?({key})$", m) for m in pool)
    fields = {}
    targets = getattr(config, "target_modules", None) or []
    if isinstance(targets, str):  # a regular expression: the names in it, not in lookarounds
        words = re.findall(r"[A-Za-z_]\w+", re.sub(r"\(\?[!=<].*?\)|\\.|\[.*?\]", " ", targets))
        words = [] if targets == "all-linear" else words
        fields["target_modules"] = [w for w in words if not any(w in m for m in modules)]
    else:
        fields["target_modules"] = [t for t in targets if not ends(t, modules)]
    for field in ("target_parameters", "modules_to_save"):
        pool = parameters if field == "target_parameters" else modules
        fields[field] = [n for n in getattr(config, field, None) or [] if not ends(n, pool)]
    if not HEADS <= set(fields["modules_to_save"]):  # peft adds both names itself, one fits
        fields["modules_to_save"] = [n for n in fields["modules_to_save"] if n not in HEADS]
    for field in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(config, field, None) or {}
        fields[field] = [key for key in pattern if not matches(key, modules | parameters)]
    return {field: sorted(names) for field, names in fields.items() if names}


def _left_out(model: nn.Module) -> list[str]:
    """Return the short names of linear layers and fused experts that carry no adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found, base = {}, model.get_base_model()
    inside = tuple(n + "." for n, m in base.named_modules() if isinstance(m, BaseTunerLayer))
    for name, module in base.named_modules():
        kind, short = type(module).__name__, name.rpartition(".")[2]
        if isinstance(module, BaseTunerLayer) or f"{name}.".startswith(inside):
            continue
        if isinstance(module, nn.Linear):
            found[short] = short
        elif kind == "Conv1D":
            found[short] = f"{short} (Conv1D)"
        for inner, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3:
                found[f"{short}.{inner}"] = f"{short}.{inner} (fused: for target_parameters)"
    return sorted(found.values())


def check_head(model: nn.Module, saved: set[str] = frozenset()) -> None:
    """Refuse what training a model and saving its adapter would lose.

    A head is new where the checkpoint that the model was loaded from did not hold it; of a model that
    came another way, where its biases are all zero, or its weights, without biases, are spread as
    the configuration initialises them.

    Args:
        model: a PEFT model.
        saved: names of base weights that are saved although peft would not do it by itself.

    Raises:
        GuardError: a weight of the base is trained and not saved; a new head is neither.
    """
    kept = {t.data_ptr() for a in model.active_adapters for t in saved_state(model, a).values()}
    weights = {n: t for n, (_, t, replaced) in base_weights(model).items() if not replaced}
    weights = {n: t for n, t in weights.items() if n not in saved and t.data_ptr() not in kept}
    if lost := [name for name, tensor in weights.items() if tensor.requires_grad]:
        raise GuardError(
            f"{len(lost)} weights of the base are trained and not saved with the adapter, the first "
            f"is {lost[0]}: name their module in modules_to_save, or freeze them."
        )
    if new := _new_heads(model.get_base_model(), weights):
        head = new[0].split(".")[0]
        raise GuardError(
            f"The head {head!r} is new, and it is neither trained nor saved with the adapter: the "
            f"model would guess after reloading; give task_type, or modules_to_save=[{head!r}]."
        )


def _new_heads(base: nn.Module, weights: dict[str, torch.Tensor]) -> list[str]:
    """Return which of a base's weights belong to a head that no checkpoint held."""
    body = f"{getattr(base, 'base_model_prefix', '') or '-'}."
    inside = [t for n, t in weights.items() if n.startswith(body)]
    if not inside or base.get_output_embeddings() is not None:
        return []
    heads = {n: t for n, t in weights.items() if not n.startswith(body) and t.is_floating_point()}
    if any(hasattr(tensor, "_is_hf_initialized") for tensor in inside):  # by from_pretrained
        return [name for name, tensor in heads.items() if not hasattr(tensor, "_is_hf_initialized")]
    if biases := [tensor for name, tensor in heads.items() if name.endswith("bias")]:
        return list(heads) * (not any(tensor.any() for tensor in biases))
    spread = getattr(base.config, "initializer_range", None) or 0.0
    off = lambda t: abs(t.float().std().item() - spread) / (spread or 1.0)
    return [name for name, tensor in heads.items() if off(tensor) < 3 / tensor.numel() ** 0.5]


def saved_state(model: nn.Module, adapter: str) -> dict[str, torch.Tensor]:
    """Return what ``save_pretrained`` would write of an adapter, without untouched embeddings."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
