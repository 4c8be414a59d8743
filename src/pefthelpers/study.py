"""Experiments too long for a notebook: resumable, one JSON row per run, committed under data/results."""

import datetime
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from pefthelpers.paths import atomic_path, data_dir
from pefthelpers.session import STACK


def processor() -> str:
    """Return the processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on."""
    return {name: version(name) for name in STACK}


def stamp() -> dict[str, object]:
    """Return what every recorded figure hangs on: date, package versions, processor."""
    today = datetime.date.today().isoformat()
    return {"date": today, "versions": versions(), "processor": processor()}


class Run(NamedTuple):
    """What identifies one fine-tuning run; ``replay``: half of each batch are old texts."""

    base: str
    task: str
    method: str
    learning_rate: float
    seed: int = 0
    replay: bool = False


class Study:
    """Rows of one experiment in one JSON file, written after each run.

    Args:
        path: the file; rows that it holds are not run again.
    """

    def __init__(self, path: Path) -> None:
        """Read the rows there are."""
        self.path = path
        self.rows: list[dict] = json.loads(path.read_text())["rows"] if path.exists() else []

    def find(self, **key) -> list[dict]:
        """Return the rows whose values equal those of ``key``."""
        return [row for row in self.rows if all(row.get(k) == v for k, v in key.items())]

    def measure(self, run: Callable[[], dict], **key) -> dict:
        """Return the row of ``key``; if there is none, call ``run`` and keep what it returns.

        Args:
            run: returns the measured values of one run.
            **key: what identifies the run: task, method, learning rate, seed.
        """
        if found := self.find(**key):
            return found[0]
        start = time.process_time()
        values = run()
        row = {**key, **values, "cpu_s": round(time.process_time() - start, 1)}
        self.rows.append(row)
        self.save()
        print(json.dumps(row), flush=True)
        return row

    def save(self) -> None:
        """Write the file, whole or not at all, one row a line."""
        rows = ",\n".join(json.dumps(row) for row in self.rows)
        with atomic_path(self.path) as temporary:
            temporary.write_text(f'{{"about": {json.dumps(stamp())},\n"rows": [\n{rows}\n]}}\n')


def by_validation(row: dict) -> tuple:
    """Return what a choice is made by: the validation score, of equals the lower validation loss.

    Where there is no such loss, or it is the same too, the lower learning rate is taken.
    """
    loss = row.get("validation_loss", 0)
    known = not math.isnan(loss)  # a table has NaN where a row has no such loss
    return row["validation"], -loss if known else 0, -row["learning_rate"]


def best(rows: Iterable[dict]) -> dict:
    """Return the row that validation chooses."""
    return max(rows, key=by_validation)


def climb(
    measure: Callable[[float], dict],
    ladder: Sequence[float],
    first: Iterable[int],
    key: Callable[[dict], object] = by_validation,
) -> dict:
    """Search a learning rate, going on while the best is at the edge of those tried.

    Args:
        measure: returns the row of a learning rate.
        ladder: the learning rates that may be tried, in rising order.
        first: positions on the ladder that are tried in any case.
        key: the best row has the highest.

    Returns:
        The best row; at the edge of what was tried only where the ladder ends.
    """
    tried = {position: measure(ladder[position]) for position in first}
    while True:
        best_position = max(sorted(tried), key=lambda position: key(tried[position]))
        wanted = {best_position - 1, best_position + 1} & set(range(len(ladder))) - set(tried)
        if not wanted:
            return tried[best_position]
        tried |= {position: measure(ladder[position]) for position in sorted(wanted)}


def mean_and_sd(values: Iterable[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (0 for a single value)."""
    values = list(values)
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def recorded(name: str):
    """Return the rows of ``data/results/<name>.json`` as a pandas DataFrame.

    Args:
        name: of the record, for instance ``lora_study``.
    """
    import pandas as pd

    return pd.DataFrame(json.loads((data_dir() / "results" / f"{name}.json").read_text())["rows"])


def at_chosen_rate(rows, by: list[str]):
    """Keep the rows at the learning rate that validation chose on seed 0, where three seeds ran.

    Of rates that validation cannot tell apart, the one that ran on more seeds is taken.

    Args:
        rows: a DataFrame with the columns ``learning_rate``, ``seed`` and ``validation``.
        by: the columns that name a cell of the study; a cell with fewer seeds is left out.
    """
    first_seed = lambda cell: cell[cell["seed"] == 0].to_dict("records")

    def chosen(cell):
        score = {row["learning_rate"]: by_validation(row)[:2] for row in first_seed(cell)}
        tied = sorted(rate for rate in score if score[rate] == max(score.values()))
        runs = [cell[cell["learning_rate"] == rate] for rate in tied]
        most = max(runs, key=lambda rows: rows["seed"].nunique())
        return most if most["seed"].nunique() >= 3 else most.iloc[:0]

    return rows.groupby(by, group_keys=False)[list(rows.columns)].apply(chosen)
