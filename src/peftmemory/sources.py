"""Where a model's ``config.json`` is found without a network."""

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

from peftmemory.errors import EstimateError

SHEETS = Path(__file__).with_name("model_configs")  # in ``more``: beyond the collection's own


def model_names(*, more: bool = True) -> list[str]:
    """Return the names of the committed shapes, alphabetically; without ``more`` the notebooks' own."""
    return sorted(path.stem for path in SHEETS.glob("**/*.json" if more else "*.json"))


def read_sheet(name: str) -> dict[str, Any]:
    """Return a model's sheet: ``name``, ``source``, ``parameters`` (exact count), ``config``.

    Raises:
        EstimateError: there is no such sheet.
    """
    places = (SHEETS, SHEETS / "more")
    path = next((p for each in places if (p := each / f"{name.lower()}.json").is_file()), None)
    if path is None:
        near = difflib.get_close_matches(name.lower(), model_names(), n=3)
        meant = f"did you mean {' or '.join(near)}? There" if near else "there"
        raise EstimateError(
            f"There is no model {name!r}: {meant} are {', '.join(model_names())}, a hub id in the"
            " cache, a folder or the path of a config.json."
        )
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def names_by_hub_id() -> dict[str, str]:
    """Return the committed shapes' names by hub id, in small letters."""
    sources = {name: read_sheet(name)["source"].lower() for name in model_names()}
    return {source: name for name, source in sources.items() if "/" in source}


def find(model: str) -> tuple[str, dict[str, Any]]:
    """Return a model's name and configuration: a committed shape, a file, a folder, a hub id.

    Raises:
        EstimateError: it is nowhere on this machine, or the file is no configuration.
    """
    path, name = Path(model), names_by_hub_id().get(model.lower())
    if name:
        return name, read_sheet(name)["config"]
    if model.endswith(".json") or path.is_file():
        return path.resolve().parent.name, read_json(path)
    if path.is_dir():
        return path.resolve().name, read_json(path / "config.json")
    if "/" in model and not model.startswith((".", "/", "~")):
        return model, read_json(in_cache(model))
    return model.lower(), read_sheet(model)["config"]


def in_cache(hub_id: str) -> Path:
    """Return the path of a hub model's ``config.json`` in the hub's cache.

    Raises:
        EstimateError: it is not there; the sentence says how to bring it.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:
        path = None
    if not isinstance(path, str):
        raise EstimateError(
            f"{hub_id} is neither a folder nor among the committed shapes nor in the hub's cache:"
            f" run `hf download {hub_id} config.json` once, or give the path of a config.json."
        )
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a published ``config.json``."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EstimateError(
            f"Cannot read {path} as JSON: give the path of a model's config.json."
        ) from error
    if not isinstance(raw, dict):
        raise EstimateError(f"{path} holds no configuration: give a model's config.json.")
    return raw
