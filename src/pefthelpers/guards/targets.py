"""Does the adapter reach what it was meant to reach? Targets that fit in part, heads left out."""

import re

from torch import nn

from pefthelpers.errors import UserError


def check_targets(model: nn.Module) -> None:
    """Refuse an adapter that adapts only a part of what its configuration names.

    Args:
        model: a PEFT model; all its adapters are looked at.

    Raises:
        UserError: a name in target_modules, target_parameters, rank_pattern, alpha_pattern or
            modules_to_save fits no layer; the sentence lists the layers that are there.
    """
    for adapter, config in getattr(model, "peft_config", {}).items():
        for field, names in _unmatched(model, adapter, config).items():
            raise UserError(
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
        elif isinstance(module, AuxiliaryTrainingWrapper):
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
    if len(getattr(config, "modules_to_save", None) or []) > len(fields["modules_to_save"]):
        fields["modules_to_save"] = []  # peft adds both usual names of a head, one fits
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
        UserError: a weight of the base is trained and not saved; a new head is neither.
    """
    from pefthelpers.guards.base import base_weights
    from pefthelpers.guards.files import saved_state

    kept = {t.data_ptr() for a in model.active_adapters for t in saved_state(model, a).values()}
    weights = {n: t for n, (_, t, replaced) in base_weights(model).items() if not replaced}
    lost = [n for n, t in weights.items() if t.requires_grad and t.data_ptr() not in kept]
    if lost := [n for n in lost if n not in saved]:
        raise UserError(
            f"{len(lost)} weights of the base are trained and not saved with the adapter, the first "
            f"is {lost[0]}: name their module in modules_to_save, or freeze them."
        )
    base = model.get_base_model()
    body = f"{getattr(base, 'base_model_prefix', '') or '-'}."
    frozen = {n: t for n, t in weights.items() if t.data_ptr() not in kept and n not in saved}
    if not any(n.startswith(body) for n in weights) or base.get_output_embeddings() is not None:
        return
    loaded = any(hasattr(t, "_is_hf_initialized") for n, t in weights.items() if n.startswith(body))
    heads = {n: t for n, t in frozen.items() if not n.startswith(body) and t.is_floating_point()}
    if loaded:
        new = [n for n, t in heads.items() if not hasattr(t, "_is_hf_initialized")]
    elif biases := [t for n, t in heads.items() if n.endswith("bias")]:
        new = list(heads) * (not any(t.any() for t in biases))
    else:
        spread = getattr(base.config, "initializer_range", None) or 0.0
        new = [
            n
            for n, t in heads.items()
            if abs(t.float().std().item() - spread) < 3 * spread / t.numel() ** 0.5
        ]
    if new:
        head = new[0].split(".")[0]
        raise UserError(
            f"The head {head!r} is new, and it is neither trained nor saved with the adapter: the "
            f"model would guess after reloading; give task_type, or modules_to_save=[{head!r}]."
        )
