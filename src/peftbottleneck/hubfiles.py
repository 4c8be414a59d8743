"""AdapterHub's files: an adapter_config.json and weights, and the same for a head."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from peftbottleneck.errors import AdapterError

_NEEDED = {"adapter": ("config", "hidden_size", "model_type", "name"), "head": ("config", "name")}
_STEMS = {"adapter": "adapter", "head": "model_head"}


class HubFolder(NamedTuple):
    """What AdapterHub wrote: an adapter and, if there is one and it is wanted, a head."""

    meta: dict[str, Any]
    weights: dict[str, torch.Tensor]
    head_meta: dict[str, Any] | None
    head_weights: dict[str, torch.Tensor]


def read_folder(folder: Path, *, head: bool) -> HubFolder:
    """Read the files in a folder, with the weights' names as AdapterHub writes them today.

    Raises:
        AdapterError: a file is missing, cannot be read, or is something else.
    """
    try:
        meta = _read_meta(folder, "adapter")
        weights = _todays_names(_read_weights(folder, "adapter"))
        if not head or not any((folder / name).exists() for name in _file_names("head")):
            return HubFolder(meta, weights, None, {})
        return HubFolder(meta, weights, _read_meta(folder, "head"), _read_weights(folder, "head"))
    except OSError as problem:
        raise AdapterError(f"Make {folder} readable: {problem}.") from None


def _todays_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights of 2020 under the names of today, as AdapterHub does while loading.

    Adapters for tasks and for languages had places of their own (adapter-hub/adapters, loading.py,
    legacy_weights_mapping).
    """
    old = re.compile(r"\b(?:attention|layer)_text_(?:task|lang)_adapters\.")
    names = {name: old.sub("adapters.", name) for name in weights}
    names = {
        a: b.replace("invertible_lang_adapters.", "invertible_adapters.") for a, b in names.items()
    }
    if len(set(names.values())) < len(names):
        raise AdapterError(
            "Save the adapters of this file one by one: it holds a task's and a language's."
        )
    return {names[name]: value for name, value in weights.items()}


def write(folder: Path, kind: str, meta: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Write the two files of an ``"adapter"`` or a ``"head"``; the folder exists."""
    text = json.dumps(meta, indent=2, sort_keys=True)
    (folder / f"{kind}_config.json").write_text(text, encoding="utf-8")
    whole = {name: value.clone() for name, value in weights.items()}  # tied ones too
    save_file(whole, folder / f"{_STEMS[kind]}.safetensors")


def _file_names(kind: str) -> tuple[str, str, str]:
    """Return the names of the configuration, and of the weights as safetensors and as a pickle."""
    stem = _STEMS[kind]
    return f"{kind}_config.json", f"{stem}.safetensors", f"pytorch_{stem}.bin"


def _read_meta(folder: Path, kind: str) -> dict[str, Any]:
    """Read the configuration file of an ``"adapter"`` or a ``"head"``.

    Raises:
        AdapterError: there is none, or it is not AdapterHub's.
    """
    path = folder / _file_names(kind)[0]
    if not path.is_file():
        raise AdapterError(_what_is_wrong(folder, path))
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise AdapterError(f"Download {path} again: it is not JSON ({problem}).") from None
    if isinstance(meta, dict) and "peft_type" in meta:
        raise AdapterError(
            f"Load {folder} with PeftModel.from_pretrained: PEFT wrote it, not AdapterHub."
        )
    missing = [key for key in _NEEDED[kind] if not isinstance(meta, dict) or key not in meta]
    if not missing and not isinstance(
        meta["config"], (dict, type(None) if kind == "head" else dict)
    ):
        missing = ["config"]
    if missing:
        raise AdapterError(
            f"Give the folder of an AdapterHub adapter: {path} is another program's or cut short, "
            f"it has no {' and no '.join(missing)}."
        )
    return meta


def _what_is_wrong(folder: Path, path: Path) -> str:
    """Return the sentence about a folder that lacks the file at ``path``."""
    inner = sorted(found.parent.name for found in folder.glob(f"*/{path.name}"))
    if not folder.exists():
        return f"Download the adapter and give its folder: {folder} does not exist."
    if not folder.is_dir():
        return f"Give the folder of an AdapterHub adapter, unpacked: {folder} is a file."
    if path.name == "head_config.json":
        return f"Pass head=False to read the adapter alone: {path}, which describes its head, is missing."
    if inner:
        return f"Give one of the folders in {folder}, one adapter each: {', '.join(inner)}."
    if (folder / "adapter_fusion_config.json").exists():
        return f"Use AdapterHub's library: {folder} holds an AdapterFusion, and {path.name} does not exist."
    if (folder / "config.json").exists():
        return (
            f"Give an adapter's folder: {folder} holds a whole model, {path.name} does not exist."
        )
    return f"Give the folder of an AdapterHub adapter: {path} does not exist."


def _read_weights(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    """Read the weights of an ``"adapter"`` or a ``"head"``, safetensors before pickle.

    Raises:
        AdapterError: there are none, or the file holds something else.
    """
    _, safe, pickled = _file_names(kind)
    if (path := folder / safe).exists():
        weights = _load_safe(path)
    elif (path := folder / pickled).exists():
        weights = _load_pickle(path)
    else:
        instead = ", or pass head=False" if kind == "head" else ""
        raise AdapterError(
            f"Give the folder of an AdapterHub adapter{instead}: {folder} has no {kind} weights."
        )
    if not isinstance(weights, dict) or not all(_is_weight(value) for value in weights.values()):
        raise AdapterError(f"Download the adapter again: {path} holds more than named weights.")
    return weights


def _is_weight(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _load_safe(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as problem:
        raise AdapterError(_damaged(path, f"damaged ({problem})")) from None


def _load_pickle(path: Path) -> Any:
    """Load a pickle that may hold tensors and nothing that runs.

    Raises:
        AdapterError: it holds more, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - whatever a damaged pickle raises; torch's text says to allow it
        raise AdapterError(
            _damaged(
                path,
                "damaged or holds more than tensors, and is not read further because a pickle can "
                "run a program: a file in safetensors cannot",
            )
        ) from None


def _damaged(path: Path, how: str) -> str:
    """Return the sentence about a file of weights that cannot be read."""
    with path.open("rb") as file:
        if file.read(7) == b"version":
            return f"Fetch {path} with `git lfs pull`: it is only Git LFS's pointer to the weights."
    return f"Ask for the adapter again, saved with use_safetensors=True: {path} is {how}."
