"""The rows of a run: from the hub at a pinned revision, or the committed fixture of the same columns."""

import json
from collections.abc import Callable

from pefthelpers.paths import data_dir
from peftruns.sheet import RUNS, TABLE

HUB_TIMEOUT_S = 5


def load_rows(name: str, profile: str = "tiny"):
    """Return a run's training rows as a ``datasets.Dataset``.

    ``gpu`` asks the hub; where it cannot be reached a sentence says so, and the fixture is read.

    Args:
        name: ``lora``, ``prefix``, ``adapters`` or ``qlora``.
        profile: ``tiny``, ``laptop`` or ``gpu``.
    """
    import datasets
    from huggingface_hub import HfApi

    source = TABLE["datasets"][RUNS[name]["dataset"]]
    if profile == "gpu" and (
        why := unreachable(HfApi().dataset_info, source["path"], source["revision"])
    ):
        print(f"{source['path']} cannot be had ({why}): the fixture of the same columns is read.")
    elif profile == "gpu":
        return datasets.load_dataset(**source)
    file = data_dir() / "article" / f"{RUNS[name]['dataset']}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    return datasets.Dataset.from_list([json.loads(line) for line in lines])


def unreachable(ask: Callable[..., object], name: str, revision: str) -> str:
    """Return why the hub does not answer for a name at a revision, or nothing: a short question first."""
    try:
        ask(name, revision=revision, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001, its network errors have no common class
        return type(error).__name__
    return ""
