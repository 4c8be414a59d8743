"""The one engine of all studies: runs that resume, and the search of a learning rate.

A study is a table of cells (task, method, learning rate, seed) in one JSON file of data/results, one
row a run, written as each run ends.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pefthelpers import results


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
        results.write(self.path, {"about": results.stamp(), "rows": self.rows})


def search_learning_rate(
    measure: Callable[[float], dict],
    ladder: Sequence[float],
    first: Iterable[int],
    key: Callable[[dict], object] = results.by_validation,
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
