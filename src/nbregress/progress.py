"""What a person sees while notebooks run: a table that changes, or lines where there is no terminal."""

import sys
import time

from nbregress.result import Result


def line(name: str, status: str, seconds: float | None, memory_gib: float, text: str) -> str:
    """Return one row of the table."""
    clock = f"{seconds:.1f} s" if seconds is not None else ""
    memory = f"{memory_gib:.2f} GiB" if memory_gib else ""
    return f"{name:28} {status:8} {clock:>9} {memory:>9}  {text}".rstrip()


def of_result(result: Result) -> str:
    """Return a finished notebook's row."""
    return line(
        result.notebook, result.status, result.seconds, result.peak_memory_gib, result.reason
    )


class Lines:
    """Print a line for each notebook that ends."""

    def __init__(self) -> None:
        """Start with nothing told."""
        self.told: set[str] = set()

    def __call__(self, results: dict[str, Result], running: set[str]) -> None:
        """Tell of the notebooks that ended since the last call."""
        for name, result in results.items():
            if name not in self.told:
                print(of_result(result), flush=True)
        self.told |= set(results)


class Table:
    """Redraw one row a notebook, on a terminal of ``width`` columns.

    Args:
        names: the notebooks.
        width: columns; longer rows are cut, so that a row stays a line.
    """

    def __init__(self, names: list[str], width: int) -> None:
        """Start with an empty screen."""
        self.names, self.width, self.drawn = names, width, 0
        self.since: dict[str, float] = {}

    def __call__(self, results: dict[str, Result], running: set[str]) -> None:
        """Draw the table over the last one."""
        for name in running:
            self.since.setdefault(name, time.monotonic())
        rows = [self.row(name, results, running)[: self.width - 1] for name in self.names]
        up = f"\x1b[{self.drawn}A" if self.drawn else ""
        sys.stdout.write(up + "".join(f"\x1b[2K{row}\n" for row in rows))
        sys.stdout.flush()
        self.drawn = len(rows)

    def row(self, name: str, results: dict[str, Result], running: set[str]) -> str:
        """Return the row of one notebook: done, running or waiting."""
        if name in results:
            return of_result(results[name])
        if name in running:
            return line(name, "running", time.monotonic() - self.since[name], 0, "")
        return line(name, "waiting", None, 0, "")


def summary(kept, *, cut: bool) -> str:
    """Return what a finished run says last.

    Args:
        kept: the run.
        cut: whether the rows above were cut to a terminal's width; then what failed is said in full.
    """
    bad = [row for row in kept.rows if not row.good]
    counts = f"{len(kept.rows) - len(bad)} passed, {len(bad)} failed"
    took = f"{kept.about()['wall_s']:.0f} s"
    told = [f"{row.notebook} {row.status}: {row.reason}" for row in bad if cut]
    return "\n".join(
        [*told, f"{counts} in {took}; report: {kept.out / 'report.html'}", *kept.trouble]
    )
