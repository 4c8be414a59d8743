"""Is the adapter whole? What was trained is in the file, and what is in the file reaches the model."""

import copy
import re
from pathlib import Path

import torch
from torch import nn

from peftguards.errors import GuardError
from peftguards.merging import outputs, tuner_layers
from peftguards.targets import check_head, saved_state
from peftguards.weights import plain_name


def _load(folder: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a saved adapter, on the CPU."""
    from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME, load_peft_weights

    folder = Path(folder)
    if not any((folder / name).is_file() for name in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)):
        raise GuardError(
            f"{folder.name} holds no {SAFETENSORS_WEIGHTS_NAME}: save_pretrained first."
        )
    try:
        return load_peft_weights(str(folder), device="cpu")
    except Exception as error:
        raise GuardError(
            f"The adapter file in {folder.name} cannot be read ({type(error).__name__}): it is cut "
            f"short or of another format; copy or save it again."
        ) from error


def _compare(found: dict, expected: dict, folder: str | Path) -> None:
    """Refuse keys that are in the file alone or in the model alone."""
    from peft.utils.other import EMBEDDING_LAYER_NAMES

    # peft adds embeddings by itself when their size has changed, and wrapped ones under two names
    layer = lambda key: re.sub(r"\.(weight|trainable_tokens_delta)$", "", plain_name(key))
    extra = [k for k in found if k not in expected]
    extra = [k for k in extra if layer(k).rpartition(".")[2] not in EMBEDDING_LAYER_NAMES]
    missing = [key for key in expected if key not in found]
    if extra or missing:
        sides = [f"the model has no {key}" for key in extra[:1]]
        sides += [f"the file has no {key}" for key in missing[:1]]
        raise GuardError(
            f"Keys of the adapter in {Path(folder).name} do not match: {len(extra)} of {len(found)} "
            f"would be ignored and {len(missing)} of {len(expected)} stay as initialised "
            f"({', '.join(sides)}); save it from the unwrapped model, or rename the keys."
        )


def check_keys(folder: str | Path, base: nn.Module) -> None:
    """Compare a saved adapter's keys with those of a base that wears the adapter's configuration.

    The comparison is made on a copy without values. A folder without an adapter passes.

    Raises:
        GuardError: a key of the file would be ignored, or one that the model needs is not there.
    """
    if not (Path(folder) / "adapter_config.json").is_file():
        return
    found = _load(folder)
    base = getattr(base, "_orig_mod", getattr(base, "module", base))  # compiled, distributed
    for values in (_hollow(base), {}):  # a few methods start from the values of the base
        try:
            expected = _keys(folder, copy.deepcopy(base, values))
            break
        except Exception as error:  # noqa: BLE001
            problem = error
    else:
        raise GuardError(f"The adapter in {Path(folder).name} does not fit this base: {problem}")
    _compare(found, expected, folder)


def _hollow(base: nn.Module) -> dict:
    """Return a memo with which ``copy.deepcopy`` makes a copy of a base without values or hooks."""
    memo = {id(m._hf_hook): None for m in base.modules() if hasattr(m, "_hf_hook")}
    for value in (*base.parameters(), *base.buffers()):
        empty = torch.empty(value.shape, dtype=value.dtype, device="meta")
        is_parameter = isinstance(value, nn.Parameter)
        memo[id(value)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return memo


def _keys(folder: str | Path, base: nn.Module) -> dict[str, torch.Tensor]:
    """Return what an adapter of a folder's configuration would save on a base; no value is used."""
    from peft import PeftConfig, get_peft_model

    config = PeftConfig.from_pretrained(str(folder))
    if isinstance(getattr(config, "init_lora_weights", None), str):
        config.init_lora_weights = True  # PiSSA and others would decompose every weight
    with torch.random.fork_rng(devices=[]):
        return saved_state(get_peft_model(base, config, low_cpu_mem_usage=True), "default")


def check_adapter(folder: str | Path, model: nn.Module) -> None:
    """Compare a saved adapter with the model that it was saved from, or was just loaded into.

    Call it after ``save_pretrained``, ``from_pretrained``, ``load_adapter`` or ``hotswap_adapter``.

    Raises:
        GuardError: keys, values or scaling differ between file and model; values are no numbers; the
            adapter does nothing, as when B is all zero; a trained weight or a new head is not saved.
    """
    if not hasattr(model, "peft_config"):
        raise GuardError("This is no PEFT model: load the adapter on it with PeftModel first.")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise GuardError("The model is partly offloaded: load it whole, then check the adapter.")
    found, troubles = _load(folder), []
    for adapter in model.active_adapters:  # the folder is one of them
        try:
            return _check_one(found, folder, model, adapter)
        except GuardError as error:
            troubles.append(error)
    raise troubles[0]


def _check_one(found: dict, folder: str | Path, model: nn.Module, adapter: str) -> None:
    """Compare the tensors of a file with one adapter of a model."""
    state = saved_state(model, adapter)
    # what hot swapping set to zero, as the new adapter does not have it
    _compare(found, {k: v for k, v in state.items() if k in found or v.any()}, folder)
    for key, ours in state.items():
        file = found.get(key, ours).to(ours.device)
        if not torch.isfinite(file).all():
            raise GuardError(f"{key} holds values that are no numbers: the training diverged.")
        if not _equal(file, ours):
            raise GuardError(
                f"{key} has other values in {Path(folder).name} than in the model: it was trained "
                f"on after saving, or another adapter is loaded; save or load it again."
            )
    _check_scaling(folder, model, adapter)
    _check_effect(found, model)
    check_head(model, {key.removeprefix("base_model.model.") for key in found})


def _equal(file: torch.Tensor, ours: torch.Tensor) -> bool:
    """Tell whether two tensors hold the same, up to a dtype's rounding.

    Hot swapping fills a smaller rank up with zeros.
    """
    if file.dim() == ours.dim() and any(a < b for a, b in zip(file.shape, ours.shape, strict=True)):
        padding = [
            n for a, b in zip(file.shape[::-1], ours.shape[::-1], strict=True) for n in (0, b - a)
        ]
        file = nn.functional.pad(file, padding)
    if file.shape != ours.shape:
        return False
    return torch.equal(file.to(ours.dtype), ours) or torch.equal(ours.to(file.dtype), file)


def _check_effect(found: dict, model: nn.Module) -> None:
    """Refuse an adapter most of whose layers do nothing; those that the file does not have do not count."""
    layers = tuner_layers(model)
    ours = {n: m for n, m in layers.items() if any(key.startswith(f"{n}.") for key in found)}
    free = [m for m in (ours or layers).values() if not m.merged]
    effects = [_evaluated(layer) for layer in free]
    same = [torch.equal(*pair) for pair in effects if pair is not None]
    if sum(same) > len(same) / 2:
        raise GuardError(
            f"{sum(same)} of {len(same)} adapted layers change nothing (a LoRA whose B is zero, for "
            f"instance): the adapter was not trained, or its weights were not loaded."
        )


def _evaluated(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return ``outputs`` of a layer in evaluation mode; its modes are as before."""
    modes = {module: module.training for module in layer.modules()}
    layer.eval()
    try:
        return outputs(layer)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check_scaling(folder: str | Path, model: nn.Module, adapter: str) -> None:
    """Refuse LoRA layers that kept the scaling of an adapter that had the name before."""
    from peft import PeftConfig

    if not (Path(folder) / "adapter_config.json").is_file():
        return
    config = PeftConfig.from_pretrained(str(folder))
    if config.peft_type != "LORA":
        return
    pick = lambda patterns, name, usual: next(
        (v for key, v in patterns.items() if re.match(rf"(.*\.)?({key})$", name)), usual
    )
    for name, layer in tuner_layers(model).items():
        rank = pick(config.rank_pattern, name, config.r)
        alpha = pick(config.alpha_pattern, name, config.lora_alpha)
        saved = alpha / (rank**0.5 if config.use_rslora else rank)
        ours = float(getattr(layer, "scaling", {}).get(adapter, saved))
        if abs(ours - saved) > 1e-3 * abs(saved):
            raise GuardError(
                f"{name} multiplies by {ours:g} where the saved adapter has {saved:g} "
                f"(alpha over r): delete_adapter({adapter!r}) first, or load it under a new name."
            )


def check_reuse(folder: str | Path, model: nn.Module, adapter: str = "default") -> None:
    """Say what ``load_adapter`` would do under a name that is in use.

    peft keeps the configuration that the name has and copies those weights whose keys fit.
    ``peft.utils.hotswap.hotswap_adapter`` takes the saved adapter's rank and alpha as well.

    Raises:
        GuardError: the saved adapter has another configuration.
    """
    from peft import PeftConfig

    if adapter not in getattr(model, "peft_config", {}):
        return
    ignored = {"base_model_name_or_path", "revision", "inference_mode", "peft_version"}
    ignored |= {"auto_mapping", "task_type", "runtime_config", "corda_config", "eva_config"}
    old = model.peft_config[adapter].to_dict()
    new = PeftConfig.from_pretrained(str(folder)).to_dict()
    plain = lambda value: sorted(value, key=str) if isinstance(value, (set, list, tuple)) else value
    differ = [k for k in new if k not in ignored and plain(new[k]) != plain(old.get(k))]
    if differ:
        what = ", ".join(f"{key} {old.get(key)} there, {new[key]} here" for key in differ[:3])
        raise GuardError(
            f"The name {adapter!r} is in use ({what}): load_adapter would keep the old "
            f"configuration and mix both adapters; call delete_adapter({adapter!r}) first, give a "
            f"new name, or swap two LoRAs by hotswap_adapter."
        )


def brought_whole(folder: str | Path) -> set[str]:
    """Return the names of base weights that an adapter's file brings whole; none if there is no file."""
    from peft.utils import SAFETENSORS_WEIGHTS_NAME

    if not (Path(folder) / SAFETENSORS_WEIGHTS_NAME).is_file():
        return set()
    return {plain_name(key) for key in _load(folder) if _is_copy(key)}


def why_large(folder: str | Path) -> str:
    """Return a sentence that says what an adapter's file consists of, by bytes."""
    sizes = {key: t.numel() * t.element_size() for key, t in _load(folder).items()}
    whole = {k: s for k, s in sizes.items() if _is_copy(k)}
    total, copies = sum(sizes.values()), sum(whole.values())
    text = f"{total:,} bytes in {len(sizes)} tensors: {total - copies:,} of the adapter"
    if not whole:
        return text + ", and no whole layer beside it."
    largest = max(whole, key=whole.get)
    return (
        f"{text} and {copies:,} ({copies / total:.0%}) of whole layers, the largest {largest}: they "
        f"are there through modules_to_save, or as peft adds embeddings whose size has changed."
    )


def _is_copy(key: str) -> bool:
    """Tell whether a key of an adapter's file names a weight of the base, not one of an adapter."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    marks = {*filter(None, PEFT_TYPE_TO_PREFIX_MAPPING.values()), "prompt_", "adaption_"}
    return not any(mark in key for mark in marks)
