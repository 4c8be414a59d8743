"""Read and write adapters in the files of AdapterHub's library (``adapters`` 1.3.0).

That library does not run on transformers 5, so nothing of it is imported: the converters know its
file names, its configuration and the names of its weights. Converted are the two plain bottleneck
adapters, ``double_seq_bn`` (Houlsby) and ``seq_bn`` (Pfeiffer), with the head of a plain model class
or a classification head that transformers' own model has too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from peftbottleneck.config import BottleneckConfig
from peftbottleneck.errors import AdapterError
from peftbottleneck.heads import head_to_write, read_head, take_label_names
from peftbottleneck.hubconfig import MODEL_TYPES, describe, hub_config, read_config
from peftbottleneck.hubfiles import has_head, read, write
from peftbottleneck.model import differing, is_adapter
from peftbottleneck.sites import hub_site

_PEFT_PREFIX = "base_model.model."
_PARTS = {
    "bottleneck_down": "adapter_down.0",
    "bottleneck_up": "adapter_up",
    "bottleneck_activation": "adapter_down.1.f",  # one that learns, such as PReLU
}


def from_adapterhub(
    model: nn.Module,
    folder: str | Path,
    *,
    adapter_name: str = "default",
    head: bool = True,
    task_type: str | None = None,
) -> PeftModel:
    """Return a PEFT model that computes what AdapterHub computes with the adapter in ``folder``.

    Args:
        model: A base model of transformers, or a PEFT model that gets one adapter more. It is
            changed in place, and left as it was if the adapter does not fit.
        folder: What AdapterHub's ``save_adapter`` wrote.
        adapter_name: The name it gets here.
        head: Read the head too, if the folder has one.
        task_type: PEFT's task type; a head that is read brings its own.

    Raises:
        AdapterError: no adapter in the folder; one of another kind or for another model; a head that
            the model does not have, or has with another number of labels.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    meta, weights = read(folder := Path(folder), "adapter")
    config = read_config(meta, weights, base)
    config.task_type = task_type
    prefix = f"{base.base_model_prefix}."
    weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    with_head = head and has_head(folder)
    if with_head:
        head_meta, head_weights = read(folder, "head")
        own, config.modules_to_save, found_type = read_head(head_meta, head_weights, base)
        weights.update(own)
        config.task_type = found_type or task_type

    def hub_key(key: str) -> str | None:
        if is_adapter(key):
            return _hub_key(base, meta["name"], key)
        return key if with_head else None

    model = _add(model, config, adapter_name, weights, hub_key)
    if with_head:
        take_label_names(head_meta, base)
    return model


def to_adapterhub(model: PeftModel, folder: str | Path, *, adapter_name: str = "default") -> None:
    """Write an adapter, with its head if it has one, for AdapterHub.

    There, ``load_adapter(folder, use_safetensors=True)`` reads it.

    Args:
        model: A PEFT model with a bottleneck adapter at the placement's own sites.
        folder: Where to write; made if missing.
        adapter_name: Which adapter; it keeps this name.

    Raises:
        AdapterError: the model, the adapter's sites or its head have no counterpart in AdapterHub.
    """
    folder, base = Path(folder), model.get_base_model()
    if base.config.model_type not in MODEL_TYPES:
        raise AdapterError(
            f"Keep this adapter in PEFT's files: AdapterHub has no {base.config.model_type} model."
        )
    state = {
        key.removeprefix(_PEFT_PREFIX): value.contiguous()
        for key, value in get_peft_model_state_dict(model, adapter_name=adapter_name).items()
    }
    adapter = {
        f"{base.base_model_prefix}.{_hub_key(base, adapter_name, key)}": value
        for key, value in state.items()
        if is_adapter(key)
    }
    others = {key: value for key, value in state.items() if not is_adapter(key)}
    head = head_to_write(base, adapter_name, others) if others else None
    folder.mkdir(parents=True, exist_ok=True)
    config = hub_config(model.peft_config[adapter_name])
    write(folder, "adapter", describe(base, adapter_name, config), adapter)
    if head:
        write(folder, "head", *head)


def _hub_key(base: nn.Module, adapter_name: str, key: str) -> str:
    """Return AdapterHub's name of an adapter's weight, without the prefix of the model's body."""
    site, part, kind = key.removeprefix(f"{base.base_model_prefix}.").rsplit(".", 2)
    return f"{hub_site(base.config.model_type, site)}.{adapter_name}.{_PARTS[part]}.{kind}"


def _add(
    model: nn.Module,
    config: BottleneckConfig,
    adapter_name: str,
    weights: dict[str, torch.Tensor],
    hub_key: Callable[[str], str | None],
) -> PeftModel:
    """Add an adapter and fill it; take it out again if the weights do not fit."""
    fresh = not isinstance(model, PeftModel)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if fresh:
        model = get_peft_model(model, config, adapter_name=adapter_name)
    else:
        model.add_adapter(adapter_name, config)
    try:
        mine = get_peft_model_state_dict(model, adapter_name=adapter_name)
        theirs = {key: name for key in mine if (name := hub_key(key.removeprefix(_PEFT_PREFIX)))}
        if difference := differing({name: mine[key] for key, name in theirs.items()}, weights):
            raise AdapterError(f"Load this adapter into the model it was trained on: {difference}.")
    except AdapterError:
        model.unload() if fresh else model.delete_adapter(adapter_name)
        for parameter in trainable:
            parameter.requires_grad_(True)
        raise
    state = {**mine, **{key: weights[name] for key, name in theirs.items()}}
    set_peft_model_state_dict(model, state, adapter_name=adapter_name)
    return model
