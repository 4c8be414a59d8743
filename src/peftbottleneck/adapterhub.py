"""Read and write adapters in the files of AdapterHub's library (``adapters`` 1.3.0).

That library does not run on transformers 5, so nothing of it is imported: the converters know its
file names, its configuration and the names of its weights. Converted are the two plain bottleneck
adapters, ``double_seq_bn`` (Houlsby) and ``seq_bn`` (Pfeiffer), and a classification head where
transformers' own model has the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from peftbottleneck import hubfiles
from peftbottleneck.config import BottleneckConfig
from peftbottleneck.errors import AdapterError
from peftbottleneck.heads import Head, head_of_modules, head_to_read
from peftbottleneck.model import is_adapter
from peftbottleneck.sites import hub_site

_PEFT_PREFIX = "base_model.model."
_PARTS = {"bottleneck_down": "adapter_down.0", "bottleneck_up": "adapter_up"}


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
        head: Read the classification head too, if the folder has one.
        task_type: PEFT's task type; ``"SEQ_CLS"`` where a head is read.

    Raises:
        AdapterError: no adapter in the folder; one of another kind or for another model; a head that
            the model does not have, or has with another number of labels.
    """
    folder = Path(folder)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    meta = hubfiles.read_meta(folder, "adapter")
    config = hubfiles.read_config(meta, base)
    config.task_type = task_type
    weights = {
        key.removeprefix(f"{base.base_model_prefix}."): value
        for key, value in hubfiles.read_weights(folder, "adapter").items()
    }
    names = partial(_hub_key, base, meta["name"])
    if head and (folder / "head_config.json").exists():
        found = _read_head(hubfiles.read_meta(folder, "head"), base)
        weights.update(hubfiles.read_weights(folder, "head"))
        names = partial(_hub_key, base, meta["name"], head=found)
        config.task_type, config.modules_to_save = "SEQ_CLS", list(found.trained) or None
    return _add(model, config, adapter_name, weights, names)


def to_adapterhub(model: PeftModel, folder: str | Path, *, adapter_name: str = "default") -> None:
    """Write an adapter, with its classification head if it has one, for AdapterHub.

    There, ``load_adapter(folder, use_safetensors=True)`` reads it.

    Args:
        model: A PEFT model with a bottleneck adapter at the placement's own sites.
        folder: Where to write; made if missing.
        adapter_name: Which adapter; it keeps this name.

    Raises:
        AdapterError: the model, the adapter's sites or its head have no counterpart in AdapterHub.
    """
    folder, base = Path(folder), model.get_base_model()
    if base.config.model_type not in hubfiles.MODEL_CLASSES:
        raise AdapterError(
            f"Keep this adapter in PEFT's files: AdapterHub has no {base.config.model_type} model."
        )
    state = {
        key.removeprefix(_PEFT_PREFIX): value.contiguous()
        for key, value in get_peft_model_state_dict(model, adapter_name=adapter_name).items()
    }
    modules = {key.rpartition(".")[0] for key in state if not is_adapter(key)}
    head = head_of_modules(base.config.model_type, modules) if modules else None
    adapter, others = {}, {}
    for key, value in state.items():
        name = _hub_key(base, adapter_name, key, head=head)
        if is_adapter(key):
            adapter[f"{base.base_model_prefix}.{name}"] = value
        else:
            others[name] = value
    folder.mkdir(parents=True, exist_ok=True)
    config = hubfiles.hub_config(model.peft_config[adapter_name])
    hubfiles.write(folder, "adapter", hubfiles.describe(base, adapter_name, config), adapter)
    if head:
        config = head.config(num_labels=base.config.num_labels)
        hubfiles.write(folder, "head", hubfiles.describe(base, adapter_name, config), others)


def _hub_key(
    base: nn.Module, adapter_name: str, key: str, *, head: Head | None = None
) -> str | None:
    """Return AdapterHub's name of a weight, without the prefix of the model's body.

    A weight that belongs neither to an adapter nor to the head has none.

    Args:
        base: The base model.
        adapter_name: The adapter's name in AdapterHub.
        key: The weight's name in the base model, such as
            ``roberta.encoder.layer.0.output.dropout.bottleneck_up.weight``.
        head: The head, for weights outside the adapter.
    """
    if not is_adapter(key):
        module, _, kind = key.rpartition(".")
        index = head.index(module) if head else None
        return f"heads.{adapter_name}.{index}.{kind}" if index else None
    site, part, kind = key.removeprefix(f"{base.base_model_prefix}.").rsplit(".", 2)
    return f"{hub_site(base.config.model_type, site)}.{adapter_name}.{_PARTS[part]}.{kind}"


def _add(
    model: nn.Module,
    config: BottleneckConfig,
    adapter_name: str,
    weights: dict[str, torch.Tensor],
    names: Callable[[str], str | None],
) -> PeftModel:
    """Add an adapter and fill it; take it out again if the weights do not fit."""
    fresh = not isinstance(model, PeftModel)
    if fresh:
        model = get_peft_model(model, config, adapter_name=adapter_name)
    else:
        model.add_adapter(adapter_name, config)
    mine = get_peft_model_state_dict(model, adapter_name=adapter_name)
    theirs = {key: name for key in mine if (name := names(key.removeprefix(_PEFT_PREFIX)))}
    try:
        if set(theirs.values()) != set(weights):
            only = min(set(theirs.values()) ^ set(weights))
            raise AdapterError(
                f"Load this adapter into the model it was trained on: {only} is in only one of "
                "the two."
            )
        state = {**mine, **{key: weights[name] for key, name in theirs.items()}}
        set_peft_model_state_dict(model, state, adapter_name=adapter_name)
    except (AdapterError, RuntimeError):  # RuntimeError: peft 0.20's word for another width
        model.unload() if fresh else model.delete_adapter(adapter_name)
        raise
    return model


def _read_head(meta: dict[str, Any], base: nn.Module) -> Head:
    """Return the head in AdapterHub's head_config.json.

    Raises:
        AdapterError: the base model has no such head, or one with another number of labels.
    """
    head = head_to_read(base.config.model_type, meta["config"])
    names = (name.replace(".original_module", "") for name, _ in base.named_modules())
    if len({head.index(name) for name in names} - {None}) != len(head.modules):
        raise AdapterError(
            "Load the base with AutoModelForSequenceClassification, or pass head=False: a "
            f"{type(base).__name__} has no place for this adapter's classification head."
        )
    if meta["config"]["num_labels"] != base.config.num_labels:
        raise AdapterError(
            f"Load the base with num_labels={meta['config']['num_labels']}, as this adapter's head "
            f"has it, not {base.config.num_labels}."
        )
    return head
