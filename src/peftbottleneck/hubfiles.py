"""AdapterHub's files: an adapter_config.json and weights, and the same for a head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

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
_STEMS = {"adapter": "adapter", "head": "model_head"}
_INITIALISATION = {"identity": "mam_adapter", "bert": "bert", "houlsby": "houlsby"}
MODEL_CLASSES = {
    "bert": "BertAdapterModel",
    "roberta": "RobertaAdapterModel",
    "xlm-roberta": "XLMRobertaAdapterModel",
    "electra": "ElectraAdapterModel",
    "distilbert": "DistilBertAdapterModel",
    "llama": "LlamaAdapterModel",
    "mistral": "MistralAdapterModel",
    "gpt2": "GPT2AdapterModel",
    "t5": "T5AdapterModel",
    "mt5": "MT5AdapterModel",
}


def read_config(meta: dict[str, Any], base: nn.Module) -> BottleneckConfig:
    """Turn AdapterHub's adapter_config.json into ours.

    Raises:
        AdapterError: another kind of adapter, or one for another model.
    """
    hub, model_type = meta["config"], base.config.model_type
    if meta["model_type"] != model_type or meta["hidden_size"] != base.config.hidden_size:
        raise AdapterError(
            f"Load this adapter into a {meta['model_type']} model of hidden size "
            f"{meta['hidden_size']}: the base is {model_type}, {base.config.hidden_size}."
        )
    odd = sorted(key for key, value in _PLAIN.items() if hub.get(key, value) != value)
    numbers = ("reduction_factor", "scaling")
    odd += [key for key in numbers if not isinstance(hub.get(key, 1.0), (int, float))]
    if hub.get("mh_adapter") == hub.get("original_ln_before"):
        odd.append("mh_adapter")
    if odd:
        raise AdapterError(
            "Use AdapterHub's library for this adapter: only double_seq_bn and seq_bn can be "
            f"converted, and it differs from both in {', '.join(odd)}."
        )
    return BottleneckConfig(
        placement="houlsby" if hub["mh_adapter"] else "pfeiffer",
        reduction_factor=hub["reduction_factor"],
        non_linearity=hub["non_linearity"].lower(),
        dropout=hub.get("dropout", 0.0),
        scaling=hub.get("scaling", 1.0),
    )


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


def describe(base: nn.Module, adapter_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return what AdapterHub saves with the weights of an adapter or a head."""
    return {
        "config": config,
        "hidden_size": base.config.hidden_size,
        "model_class": MODEL_CLASSES[base.config.model_type],
        "model_name": base.config.name_or_path or None,
        "model_type": base.config.model_type,
        "name": adapter_name,
        "version": VERSION,
    }


def write(folder: Path, kind: str, meta: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Write the two files of an ``"adapter"`` or a ``"head"``; the folder exists."""
    text = json.dumps(meta, indent=2, sort_keys=True)
    (folder / f"{kind}_config.json").write_text(text, encoding="utf-8")
    save_file(weights, folder / f"{_STEMS[kind]}.safetensors")


def read_meta(folder: Path, kind: str) -> dict[str, Any]:
    """Read the configuration file of an ``"adapter"`` or a ``"head"``.

    Raises:
        AdapterError: there is none, or it is PEFT's and not AdapterHub's.
    """
    path = folder / f"{kind}_config.json"
    if not path.exists():
        raise AdapterError(f"Give the folder of an AdapterHub adapter: {path} does not exist.")
    meta = json.loads(path.read_text(encoding="utf-8"))
    if "peft_type" in meta:
        raise AdapterError(
            f"Load {folder} with PeftModel.from_pretrained: PEFT wrote it, not AdapterHub."
        )
    return meta


def read_weights(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    """Read the weights of an ``"adapter"`` or a ``"head"``, safetensors before pickle.

    Raises:
        AdapterError: there are none.
    """
    stem = _STEMS[kind]
    if (path := folder / f"{stem}.safetensors").exists():
        return load_file(path)
    if (path := folder / f"pytorch_{stem}.bin").exists():
        return torch.load(path, map_location="cpu", weights_only=True)
    raise AdapterError(f"Give the folder of an AdapterHub adapter: {folder} has no {kind} weights.")
