"""The one engine of all studies: runs that resume, the search of a learning rate, and gates.

A study is a table of cells (task, method, rank …) and a function that measures one run of a cell. Its
runs are the rows of one JSON file of data/results, each written as it ends.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import get_peft_model

from nbregress.stamp import stamp
from pefthelpers import models, results, session
from pefthelpers.paths import data_dir

# The columns that a study's table shows, where its rows have them.
SCORES = ("validation", "test", "test_loss", "style_share")


class Cell(NamedTuple):
    """What is trained, and where its learning rate is searched.

    Attributes:
        key: what names the cell's rows: task, method, rank …
        ladder: the learning rates that may be tried, in rising order.
        first: positions on the ladder where the search begins.
    """

    key: dict[str, object]
    ladder: Sequence[float]
    first: Sequence[int]


class Study:
    """Rows of one experiment in one JSON file, written after each run.

    Args:
        path: the file; rows that it holds are not run again.
    """

    def __init__(self, path: Path) -> None:
        """Read the rows there are."""
        self.path = path
        self.rows: list[dict] = results.read(path)["rows"] if path.exists() else []

    def find(self, **key) -> list[dict]:
        """Return the rows whose values equal those of ``key``."""
        return [row for row in self.rows if all(row.get(k) == v for k, v in key.items())]

    def measure(self, run: Callable[[], dict], **key) -> dict:
        """Return the row of ``key``; if there is none, call ``run`` and keep what it returns.

        Args:
            run: returns the measured values of one run; CPU seconds are added unless it tells its own.
            **key: what identifies the run: task, method, learning rate, seed.
        """
        if found := self.find(**key):
            return found[0]
        start = time.process_time()
        row = {**key, **run()}
        row.setdefault("cpu_s", round(time.process_time() - start, 1))
        self.rows.append(row)
        about = stamp() | (
            {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
        )
        results.write(self.path, {"about": about, "rows": self.rows})
        print(json.dumps(row), flush=True)
        return row

    def one(self, run: Callable[..., dict], key: dict, learning_rate: float, seed: int = 0) -> dict:
        """Return the row of one run of a cell: ``run(**key, learning_rate=…, seed=…)``."""
        key = {**key, "learning_rate": learning_rate, "seed": seed}
        return self.measure(lambda: run(**key), **key)

    def measure_each(self, keys: Iterable[dict], run: Callable[..., dict]) -> None:
        """Measure what has no learning rate, ``run(**key)`` for each key, and print its numbers."""
        for key in keys:
            row = self.measure(lambda key=key: run(**key), **key)
            numbers = {n: v for n, v in row.items() if n not in key and isinstance(v, int | float)}
            print(*key.values(), *(f"{n} {v:,}" for n, v in numbers.items()), sep=" | ")

    def tune(
        self,
        cells: Iterable[Cell],
        run: Callable[..., dict],
        seeds: Iterable[int] = (),
        tie: float = results.TIE,
    ) -> list[float]:
        """Search each cell's learning rate on seed 0, then run the chosen one on every seed.

        Args:
            cells: the study's table.
            run: measures one run; takes what names the cell, ``learning_rate`` and ``seed``.
            seeds: those on which the chosen rate runs.
            tie: as ``results.mildest`` takes it.

        Returns:
            The chosen rate of each cell.
        """
        chosen, seeds = [], tuple(seeds)
        for key, ladder, first in cells:
            measure = lambda rate, key=key: self.one(run, key, rate)
            rate = search_learning_rate(measure, ladder, first, tie)["learning_rate"]
            for seed in seeds:
                self.one(run, key, rate, seed)
            chosen.append(rate)
        return chosen

    def print_table(self, cells: Iterable[Cell], rates: Iterable[float]) -> None:
        """Print each cell's chosen rate with the mean and deviation over seeds of what it reached."""
        for cell, rate in zip(cells, rates, strict=True):
            rows = self.find(**cell.key, learning_rate=rate)
            figures = [f"{name} {_spread(rows, name)}" for name in SCORES if name in rows[0]]
            print(*cell.key.values(), f"rate {rate:g}", *figures, sep=" | ")


def _spread(rows: list[dict], column: str) -> str:
    values = [row[column] for row in rows if column in row]
    mean, deviation = mean_and_sd(values)
    return f"{mean:.3f} ± {deviation:.3f} (n = {len(values)})"


class Gate(NamedTuple):
    """A figure, None where it is not recorded, and the bound it must keep: ``least`` or ``most``."""

    name: str
    value: float | None
    side: str
    bound: float

    def passed(self) -> bool:
        """Tell whether the figure is recorded and keeps its bound."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.side == "least" else self.value <= self.bound

    def __str__(self) -> str:
        """Return verdict, name, figure and bound in one line."""
        value = "not recorded" if self.value is None else f"{self.value:.3f}"
        verdict = "pass" if self.passed() else "FAIL"
        return f"{verdict}  {self.name}: {value} (at {self.side} {self.bound:g})"


def judge(gates: list[Gate]) -> int:
    """Print every gate, the failed ones on stderr again; return the exit code, 1 if one failed."""
    failed = [gate for gate in gates if not gate.passed()]
    print("", *gates, sep="\n")
    print(f"\n{len(gates) - len(failed)} of {len(gates)} gates passed.")
    for gate in failed:
        print(gate, file=sys.stderr)
    return 1 if failed else 0


def tunable(config, role: str = "decoder", profile: str = "tiny", *, seed: int, **loading):
    """Load a base and make it trainable by a PEFT configuration, whole where that is None.

    Args:
        config: of ``peft``.
        role: as ``models.load`` takes it, like ``profile`` and ``loading``.
        profile: ``tiny`` or ``laptop``.
        seed: draws the method's initial weights.
        **loading: options of ``models.load``.

    Returns:
        ``(model, tokenizer)``.
    """
    model, tokenizer = models.load(role, profile, **loading)
    torch.manual_seed(seed)
    return (get_peft_model(model, config) if config else model), tokenizer


def quiet_on_one_thread() -> None:
    """Use one thread, so that sums are added in one order, and silence the libraries."""
    torch.set_num_threads(1)
    session.quiet()


def start(name: str) -> Study:
    """Return the study of data/results that has this name, on one thread."""
    quiet_on_one_thread()
    return Study(data_dir() / "results" / f"{name}.json")


def run_study(
    name: str,
    cells: list[Cell],
    run: Callable[..., dict],
    seeds: Iterable[int],
    tie: float = results.TIE,
) -> None:
    """Run what the study's record does not hold yet, and print its table."""
    study = start(name)
    study.print_table(cells, study.tune(cells, run, seeds, tie))


def mean_and_sd(values: Iterable[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (0 for a single value)."""
    values = list(values)
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def search_learning_rate(
    measure: Callable[[float], dict],
    ladder: Sequence[float],
    first: Iterable[int],
    tie: float = results.TIE,
) -> dict:
    """Search the lowest learning rate that validation cannot tell from the best.

    The search goes on while the best is at the edge of those tried, and then by halves below the chosen
    rate until one no longer ties: the chosen rate is inside of those tried on the mild side too.

    Args:
        measure: returns the row of a learning rate.
        ladder: the learning rates that may be tried, in rising order; halves may lie between or below.
        first: positions on the ladder that are tried in any case.
        tie: as ``results.mildest`` takes it.

    Returns:
        The chosen row.
    """
    tried = {position: measure(ladder[position]) for position in first}
    score = lambda position: (
        tried[position]["validation"],
        -tried[position].get("validation_loss", 0),
        -position,
    )
    while True:
        best = max(tried, key=score)
        wanted = {best - 1, best + 1} & set(range(len(ladder))) - set(tried)
        if not wanted:
            break
        tried |= {position: measure(ladder[position]) for position in sorted(wanted)}
    rows = list(tried.values())
    while True:
        chosen = results.mildest(rows, tie)
        rate = chosen["learning_rate"]
        known = any(0.49 * rate < row["learning_rate"] < rate for row in rows)
        if (
            known or rate < ladder[0] / 256
        ):  # so mild a rate trains nothing: the start does the task
            return chosen
        rows.append(measure(float(f"{rate / 2:.3g}")))
