"""The record of gated runs on a pair of bases: which rate was chosen, what its seeds reached.

Each base has its own search of a learning rate, with seed 0; the chosen rate is kept for the other seeds. (A rate that
ties on one base need not do so on its sister: full fine-tuning's mildest on LEARN, 3e-4, learned 0.95 of it on the
first and 0.77 on the second.)
"""

import statistics
from collections.abc import Callable, Iterable

from pefthelpers.paths import data_dir, sha256
from pefthelpers.results import mildest
from studies.engine import Cell, Gate, Study, mean_and_sd

SEEDS = (0, 1, 2)


def place(base: str) -> dict[str, object]:
    """Return role and variant of a base, as ``models.load`` takes them."""
    role, _, seed = base.partition("_seed")
    return {"role": role, "variant": int(seed or 1)}


def weights(base: str) -> str:
    """Return the first digits of the weights' SHA-256: a row belongs to them."""
    path = data_dir() / "kitchen" / base / "model.safetensors"
    return sha256(path)[:12] if path.exists() else "missing"


class Record(Study):
    """The recorded rows of the weights in the checkout.

    Args:
        name: of the file in data/results; the rows of other weights in it are dropped.
        bases: folders of data/kitchen.
        rates: method -> the learning rates that are tried in any case.
        extensions: how often a search goes on, by a factor of three, past an edge of these.
    """

    def __init__(self, name: str, bases, rates, extensions: int = 0) -> None:
        """Read the rows."""
        super().__init__(data_dir() / "results" / f"{name}.json")
        self.bases, self.rates, self.extensions = bases, rates, extensions
        self.weights = {base: weights(base) for base in bases}
        self.rows = [row for row in self.rows if row["weights"] == self.weights[row["base"]]]

    def base(self, base: str) -> dict:
        """Return the row of an untouched base; empty if there is none."""
        return next(iter(self.find(base=base, task="base")), {})

    def at_rates(self, base: str, task: str, method: str, *, replay: bool = False) -> list[dict]:
        """Return the rows among which a base's learning rate is chosen: its seed 0."""
        key = {"task": task, "method": method, "replay": replay}
        rows = self.find(base=base, seed=0, **key)
        return sorted(rows, key=lambda row: row["learning_rate"])

    def chosen(self, base: str, task: str, method: str, *, replay: bool = False) -> list[dict]:
        """Return the rows of all seeds at the chosen learning rate; none before the choice."""
        searched = self.at_rates(base, task, method, replay=replay)
        if len(searched) < len(self.rates[method]):
            return []
        rate = mildest(searched)["learning_rate"]
        key = {"task": task, "method": method, "replay": replay}
        return self.find(base=base, learning_rate=rate, **key)

    def measure_base(self, run: Callable[[str], dict], base: str) -> None:
        """Measure an untouched base unless it is recorded."""
        self.measure(lambda: run(base), weights=self.weights[base], base=base, task="base")

    def measure_cells(
        self,
        run: Callable[..., dict],
        cells: Iterable[tuple[str, str]],
        *,
        base: str | None = None,
        replay: bool = False,
        seeds: Iterable[int] = SEEDS,
    ) -> None:
        """Search the rate of each (task, method), and measure it on a base for some seeds."""
        run_of = lambda weights, **cell: run(**cell)
        base = base or self.bases[0]
        for task, method in cells:
            key = {"weights": self.weights[base], "base": base, "task": task, "method": method}
            key["replay"] = replay
            ladder = extended(self.rates[method], self.extensions)
            first = range(self.extensions, self.extensions + len(self.rates[method]))
            (rate,) = self.tune([Cell(key, ladder, first)], run_of)
            for seed in seeds:
                self.one(run_of, key, rate, seed)

    def gate(
        self,
        cell: tuple[str, str, str],
        side: str,
        bound: float,
        *,
        column: str = "test",
        replay: bool = False,
        seeds: int = len(SEEDS),
    ) -> Gate:
        """Return the gate of a cell (base, task, method): the mean over its seeds, None if one lacks."""
        rows = self.chosen(*cell, replay=replay)
        values = [row[column] for row in rows if column in row]
        value = statistics.mean(values) if values and len(rows) >= seeds else None
        what = f"{' with replay' if replay else ''}{'' if column == 'test' else f', {column}'}"
        return Gate(f"{', '.join(cell)}{what}, n = {len(rows)}", value, side, bound)


def extended(rates: tuple[float, ...], extensions: int) -> list[float]:
    """Return the rates with some more on either side, each a factor of three further."""
    found = list(rates)
    for _ in range(extensions):
        found = [float(f"{found[0] / 3:.0e}"), *found, float(f"{found[-1] * 3:.0e}")]
    return found


def print_tables(record: Record, *, tasks, skills, every_rate_of) -> None:
    """Print as Markdown: the chosen rates on each base, and each rate on the first.

    Args:
        record: what is printed.
        tasks: their names, in order.
        skills: the columns of the old skills.
        every_rate_of: the tasks whose every rate is printed.
    """
    for base in record.bases:
        untouched = record.base(base)
        print(f"{base}, untouched:", {name: untouched.get(name) for name in skills})
    for base in record.bases:
        chosen = lambda *cell, base=base, **on: filter(None, [record.chosen(base, *cell, **on)])
        title = f"{base}: rate chosen on validation, mean ± deviation over seeds"
        _print_table(title, chosen, tasks, record.rates, skills)
    each = lambda *cell, **on: [[row] for row in record.at_rates(record.bases[0], *cell, **on)]
    title = f"{record.bases[0]}: every rate, seed 0"
    _print_table(title, each, every_rate_of, record.rates, skills)


def _print_table(title: str, rows_of, tasks, methods, skills) -> None:
    """Print a line for each list of rows that ``rows_of(task, method, replay=...)`` returns."""
    names = ("task", "method", "rate", "trainable", "target", *skills, "CPU s", "n")
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for task in tasks:
        for method in methods:
            for replay in (False, True):
                name = f"{method} + replay" if replay else method
                for rows in rows_of(task, method, replay=replay):
                    print(f"| {task} | {name} | {' | '.join(_figures(rows, skills))} |")


def _figures(rows: list[dict], skills) -> list[str]:
    """Return a line's figures: means over the seeds that have them, and their deviation."""
    figures = []
    for column in ("test", *skills):
        values = [row[column] for row in rows if column in row]
        mean, deviation = mean_and_sd(values) if values else (0.0, 0.0)
        spread = f" ± {deviation:.3f}" if len(values) > 1 else ""
        figures.append(f"{mean:.3f}{spread}" if values else "")
    first, cpu_s = rows[0], statistics.mean(row["cpu_s"] for row in rows)
    trainable = first.get("trainable_parameters", first.get("trainable"))
    return [
        f"{first['learning_rate']:g}",
        f"{trainable:,}",
        *figures,
        f"{cpu_s:.0f}",
        f"{len(rows)}",
    ]
