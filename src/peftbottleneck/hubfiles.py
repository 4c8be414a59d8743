"""AdapterHub's files: an adapter_config.json and weights, and the same for a head."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from peftbottleneck.errors import AdapterError

_NEEDED = {
    "adapter": ("config", "hidden_size", "model_type", "name"),
    "head": ("config", "model_class", "name"),
}
_STEMS = {"adapter": "adapter", "head": "model_head"}


def has_head(folder: Path) -> bool:
    """Say whether a folder holds a head, or a part of one."""
    return any(folder.glob("head_config.json")) or any(folder.glob("*model_head.*"))


def read(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read the configuration file and the weights of an ``"adapter"`` or a ``"head"``.

    The weights have the names that AdapterHub gives them today.

    Raises:
        AdapterError: a file is missing, cannot be read, or is something else.
    """
    try:
        return _read_meta(folder, kind), _todays_names(_read_weights(folder, kind))
    except OSError as problem:
        raise AdapterError(f"Make {folder} readable: {problem}.") from None


def _todays_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights of 2020 under the names of today, as AdapterHub does while loading.

    Adapters for tasks and for languages had places of their own (adapter-hub/adapters, loading.py,
    legacy_weights_mapping).
    """
    renamed = {}
    for name, value in weights.items():
        now = re.sub(r"\b(attention|layer)_text_(task|lang)_adapters\b", "adapters", name)
        now = now.replace("invertible_lang_adapters.", "invertible_adapters.")
        if ".non_linearity." not in now:  # a learned activation: a second name of adapter_down.1
            renamed[now] = value
    return renamed


def write(folder: Path, kind: str, meta: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Write the two files of an ``"adapter"`` or a ``"head"``; the folder exists."""
    text = json.dumps(meta, indent=2, sort_keys=True)
    (folder / f"{kind}_config.json").write_text(text, encoding="utf-8")
    whole = {name: value.clone() for name, value in weights.items()}  # tied ones too
    save_file(whole, folder / f"{_STEMS[kind]}.safetensors")


def _read_meta(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / f"{kind}_config.json"
    if not path.is_file():
        raise AdapterError(_what_is_wrong(folder, path))
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise AdapterError(f"Download {path} again: it is not JSON ({problem}).") from None
    meta = meta if isinstance(meta, dict) else {}
    if "peft_type" in meta:
        raise AdapterError(
            f"Load {folder} with PeftModel.from_pretrained: PEFT wrote it, not AdapterHub."
        )
    missing = [key for key in _NEEDED[kind] if key not in meta]
    config = meta.get("config")  # null for the head of a plain class
    if not isinstance(config, dict) and (config is not None or kind == "adapter"):
        missing = ["config"]
    if missing:
        raise AdapterError(
            f"Give the folder of an AdapterHub adapter: {path} is another program's or cut short, "
            f"without {', '.join(missing)}."
        )
    return meta


def _what_is_wrong(folder: Path, path: Path) -> str:
    """Return the sentence about a folder that lacks the file at ``path``."""
    if path.name == "head_config.json":
        return f"Pass head=False to read the adapter alone: its head has no {path}."
    if folder.is_file():
        return f"Give the folder of an AdapterHub adapter, unpacked: {folder} is a file."
    if inner := sorted(found.parent.name for found in folder.glob(f"*/{path.name}")):
        return f"Give one of the folders in {folder}, one adapter each: {', '.join(inner)}."
    return f"Give the folder of an AdapterHub adapter on this machine: {path} does not exist."


def _read_weights(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    stem = _STEMS[kind]
    if (path := folder / f"{stem}.safetensors").exists():
        weights = _load(path, load_file)
    elif (path := folder / f"pytorch_{stem}.bin").exists():
        weights = _load(path, partial(torch.load, map_location="cpu", weights_only=True))
    else:
        instead = ", or pass head=False" if kind == "head" else ""
        raise AdapterError(
            f"Give the folder of an AdapterHub adapter{instead}: {folder} has no {kind} weights."
        )
    values = weights.values() if isinstance(weights, dict) else [None]
    if not all(isinstance(value, torch.Tensor) and value.is_floating_point() for value in values):
        raise AdapterError(f"Download the adapter again: {path} holds more than named weights.")
    return weights


def _load(path: Path, load: Callable[[Path], Any]) -> Any:
    with path.open("rb") as file:
        if file.read(7) == b"version":
            raise AdapterError(f"Fetch {path} with `git lfs pull`: it is only Git LFS's pointer.")
    try:
        return load(path)
    except Exception:  # noqa: BLE001 - damage raises anything; torch's own text says to allow code
        raise AdapterError(
            f"Ask for the adapter again, saved with use_safetensors=True: {path} is damaged or, as "
            "a pickle can, holds more than weights, and is not read, since that could run a program."
        ) from None
