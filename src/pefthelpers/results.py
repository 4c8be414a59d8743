"""Read what was measured before: the one module that reads and writes result records.

A record is a JSON file of ``data/``: a notebook's metrics (``baselines/02_lora.tiny.json``), a study
(``results/lora_study.json``, one row a run) or figures that others published
(``published/qlora.json``). A name is a file's name without its ending.
"""

import json
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path, data_dir

FOLDERS = ("baselines", "results", "published")
# Of learning rates whose validation ties the lowest is taken: a higher one buys nothing, and forgets more.
TIE = 0.02  # of a share: two answers in a hundred
LOSS_TIE = 0.05  # nats a token


def path_of(name: str) -> Path:
    """Return the file of a record, whichever folder it lies in.

    Raises:
        UserError: nothing is recorded under this name.
    """
    for folder in FOLDERS:
        if (path := data_dir() / folder / f"{name}.json").is_file():
            return path
    raise UserError(f"Nothing is recorded as {name!r}: see the files in data/results.")


def read(name: str | Path) -> dict[str, Any]:
    """Return a whole record, for instance ``02_lora.laptop`` or ``peft_metamathqa``, or a file.

    Raises:
        UserError: nothing is recorded under this name, or the file is damaged.
    """
    path = name if isinstance(name, Path) else path_of(name)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore it with git checkout.") from error


def rows(name: str):
    """Return the rows of a record, for instance ``lora_study``, as a pandas DataFrame, one run each.

    Raises:
        UserError: nothing is recorded under this name, the file is damaged, or it has no rows.
    """
    import pandas as pd

    record = read(name)
    if not isinstance(record, dict) or not isinstance(record.get("rows"), list):
        raise UserError(f"{path_of(name)} has no rows: read it with results.read({name!r}).")
    return pd.DataFrame(record["rows"])


@cache
def _referred(name: str) -> Any:
    """Return what a reference begins with: a notebook's metrics by name, or a whole record."""
    try:
        metrics = read(f"{name}.tiny")["metrics"]
    except UserError:
        return read(name)
    return {metric: found["value"] for metric, found in metrics.items()}


def look_up(reference: str) -> Any:
    """Return a recorded value.

    Args:
        reference: steps with ``/`` between them. The first is a notebook's stem (its metrics in the
            tiny profile) or a record's name; the others are keys, or positions in a list. In a list
            of rows ``key=value`` keeps the rows that have it, ``chosen`` those at the learning rate
            of ``chosen_rate``, and a key alone is the rows' mean of it.

    Raises:
        UserError: nothing is recorded there.
    """
    name, *steps = reference.split("/")
    try:
        found = _referred(name)
        for step in steps:
            found = _step(found, step)
    except (UserError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"The ledger refers to {reference!r}, which is not recorded.") from error
    return found


def _step(found: Any, step: str) -> Any:
    if not isinstance(found, list):
        return found[step]
    if "=" in step:
        key, value = step.split("=", 1)
        return [row for row in found if json.dumps(row.get(key)).strip('"') == value]
    if step.isdigit():
        return found[int(step)]
    if step == "chosen":
        return _step(found, f"learning_rate={chosen_rate(found)}")
    return sum(row[step] for row in found) / len(found)


def write(path: Path, content: dict) -> None:
    """Write a record, whole or not at all; its rows, if it has any, one a line."""
    if "rows" not in content:
        text = json.dumps(content, indent=1, ensure_ascii=False)
    else:
        head = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in content.items() if k != "rows"]
        rows = ",\n".join(map(json.dumps, content["rows"]))
        text = "{" + ",\n".join([*head, f'"rows": [\n{rows}\n]}}'])
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def tied(rows: Iterable[dict], tie: float = TIE) -> list[dict]:
    """Return the rows whose learning rates validation cannot tell from the best.

    Args:
        rows: with ``learning_rate``, ``validation`` (higher is better) and, where measured, ``validation_loss``
            in nats. Where no answer is right yet, losses within ``LOSS_TIE`` of the lowest tie.
        tie: how far below the best ``validation`` a score still counts as equal to it.
    """
    rows = list(rows)
    best = max(row["validation"] for row in rows)
    losses = [row.get("validation_loss", math.nan) for row in rows]
    if 0 <= best <= tie and not any(map(math.isnan, losses)):
        return [row for row in rows if row["validation_loss"] <= min(losses) + LOSS_TIE]
    return [row for row in rows if row["validation"] >= best - tie - 1e-9]


def mildest(rows: Iterable[dict], tie: float = TIE) -> dict:
    """Return the row of the lowest learning rate among ``tied``: a higher one buys nothing, and forgets more."""
    return min(tied(rows, tie), key=lambda row: row["learning_rate"])


def chosen_rate(rows: Iterable[dict], tie: float = TIE) -> float | None:
    """Return the learning rate that validation chooses on seed 0: the lowest of ``tied`` that ran on three seeds.

    None where no rate that ties with the best did.
    """
    rows = [row for row in rows if not math.isnan(row.get("validation", math.nan))]
    runs = {(row["learning_rate"], row["seed"]) for row in rows}
    rates = [row["learning_rate"] for row in tied((r for r in rows if r["seed"] == 0), tie)]
    return min((rate for rate in rates if sum(rate == r for r, _ in runs) >= 3), default=None)


def at_chosen_rate(rows, by: list[str], tie: float = TIE):
    """Keep the rows at each cell's ``chosen_rate``.

    Args:
        rows: a DataFrame with the columns ``learning_rate``, ``seed`` and ``validation``.
        by: the columns that name a cell of the study; a cell without a chosen rate is left out.
        tie: as ``tied`` takes it.
    """
    chosen = lambda cell: cell[cell["learning_rate"] == chosen_rate(cell.to_dict("records"), tie)]
    return rows.groupby(by, group_keys=False)[list(rows.columns)].apply(chosen)
