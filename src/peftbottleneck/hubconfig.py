"""AdapterHub's configuration of an adapter and ours, side by side.

Facts about the format are from adapter-hub/adapters: configuration/adapter_config.py, loading.py
and utils.py today, and the same of the releases 1.0 (2020) to 3.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from peftbottleneck.config import BottleneckConfig
from peftbottleneck.errors import AdapterError

VERSION = "adapters.1.3.0"
# Everything else in AdapterHub's configuration must have the value its plain adapters have.
_PLAIN = {
    **dict.fromkeys(["output_adapter", "original_ln_after", "residual_before_ln"], True),
    **dict.fromkeys(["adapter_residual_before_ln", "ln_before", "ln_after"], False),
    **dict.fromkeys(["is_parallel", "use_gating", "phm_layer", "cross_adapter"], False),
    "inv_adapter": None,
    "leave_out": [],
    "stochastic_depth": 0.0,
}
_INITIALISATION = {"identity": "mam_adapter", "bert": "bert", "houlsby": "houlsby"}
# The architectures of ours that AdapterHub has too.
MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
MODEL_TYPES += ("llama", "mistral", "gpt2", "t5", "mt5")


def read_config(
    meta: dict[str, Any], weights: dict[str, torch.Tensor], base: nn.Module
) -> BottleneckConfig:
    """Turn AdapterHub's adapter_config.json into ours.

    Raises:
        AdapterError: another kind of adapter, or one for another model.
    """
    hub, model_type = meta["config"], base.config.model_type
    hidden_size = meta["hidden_size"] or base.config.hidden_size  # AdapterHub's may be null
    if meta["model_type"] != model_type or hidden_size != base.config.hidden_size:
        raise AdapterError(
            f"Load this adapter into a {meta['model_type']} model of hidden size "
            f"{hidden_size}: the base is {model_type}, {base.config.hidden_size}."
        )
    non_linearity = _todays_activation(meta)
    what = f"it is {hub['architecture']}" if hub.get("architecture") else ""
    odd = _differences(meta, weights) + (["non_linearity"] if non_linearity not in ACT2FN else [])
    if what or odd:
        raise AdapterError(
            "Use AdapterHub's library for this adapter: only double_seq_bn and seq_bn can be "
            f"converted, and {what or 'it differs from both in ' + ', '.join(odd)}."
        )
    return BottleneckConfig(
        placement="houlsby" if hub["mh_adapter"] else "pfeiffer",
        reduction_factor=hub["reduction_factor"],
        non_linearity=non_linearity,
        dropout=hub.get("dropout", 0.0),
        scaling=hub.get("scaling", 1.0),
    )


def _differences(meta: dict[str, Any], weights: dict[str, torch.Tensor]) -> list[str]:
    """Return the keys of AdapterHub's configuration that make another kind of adapter."""
    hub = {key: value for key, value in meta["config"].items() if value is not None}
    # Pfeiffer's configuration of 2020 names an invertible adapter, which only languages then had.
    inverse = hub.pop("inv_adapter", None) or hub.pop("invertible_adapter", None)
    if any("invertible_adapters." in name for name in weights):
        hub["inv_adapter"] = "in the file"
    elif inverse and meta.get("type") != "text_task":
        hub["inv_adapter"] = inverse
    odd = sorted(key for key, value in _PLAIN.items() if hub.get(key, value) != value)
    numbers = {"reduction_factor": hub.get("reduction_factor"), "scaling": hub.get("scaling", 1.0)}
    odd += [key for key, value in numbers.items() if type(value) not in (int, float)]
    mh_adapter = hub.get("mh_adapter")
    if mh_adapter not in (True, False) or mh_adapter == hub.get("original_ln_before", False):
        odd.append("mh_adapter")
    return odd


def _todays_activation(meta: dict[str, Any]) -> str:
    """Return an activation's name in transformers.

    Until a file named its version, ``gelu`` was the tanh approximation and ``gelu_orig`` the exact
    one (adapter-hub/adapters, utils.py, ACTIVATION_RENAME).
    """
    name = str(meta["config"].get("non_linearity"))
    if "version" not in meta:
        name = {"gelu": "gelu_new", "gelu_orig": "gelu"}.get(name.lower(), name)
    return {"leakyrelu": "leaky_relu"}.get(name.lower(), name.lower())


def hub_config(config: BottleneckConfig) -> dict[str, Any]:
    """Turn our configuration into AdapterHub's ``config``."""
    houlsby = config.placement == "houlsby"
    return {
        **_PLAIN,
        "mh_adapter": houlsby,
        "original_ln_before": not houlsby,
        "reduction_factor": config.reduction_factor,
        "non_linearity": config.non_linearity,
        "dropout": config.dropout,
        "scaling": float(config.scaling),
        "init_weights": _INITIALISATION[config.init_weights],
    }


def describe(
    base: nn.Module, name: str | None, config: dict[str, Any] | None, **more: Any
) -> dict[str, Any]:
    """Return what AdapterHub saves with the weights of an adapter or a head."""
    model_name = base.config.name_or_path
    if Path(model_name).exists():  # a folder's place is nobody else's business
        model_name = Path(model_name).name
    return {
        "config": config,
        "hidden_size": base.config.hidden_size,
        "model_class": type(base.config).__name__.replace("Config", "AdapterModel"),
        "model_name": model_name or None,
        "model_type": base.config.model_type,
        "name": name,
        "version": VERSION,
        **more,
    }
