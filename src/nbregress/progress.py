"""What a person sees while notebooks run: a table that changes, or lines where there is no terminal."""

import time
from contextlib import nullcontext

from rich.console import Console
from rich.live import Live
from rich.table import Table

from nbregress.result import Result

COLOURS = {
    "passed": "green",
    "running": "bold",
    "waiting": "dim",
    "stopped": None,
    "not run": None,
}  # others: red


def cells(result: Result) -> tuple[str, ...]:
    """Return what a finished notebook's row holds: name, status, seconds, memory, reason."""
    memory = f"{result.peak_memory_gib:.2f} GiB" if result.peak_memory_gib else ""
    reason = result.reason or result.left_out
    return result.notebook, result.word, f"{result.seconds:.1f} s", memory, reason


class Lines(nullcontext):
    """Print a line for each notebook that ends."""

    told = 0  # notebooks

    def __call__(self, results: dict[str, Result], running: set[str]) -> None:
        """Tell of the notebooks that ended since the last call."""
        for result in list(results.values())[self.told :]:
            name, status, clock, memory, reason = cells(result)
            print(f"{name:28} {status:8} {clock:>9} {memory:>9}  {reason}".rstrip(), flush=True)
        self.told = len(results)


class Screen(Live):
    """Keep one row a notebook on a terminal; a row that is too long for it is cut."""

    def __init__(self, names: list[str], **console) -> None:
        """Start with every notebook waiting; ``console`` are options of rich's Console."""
        self.names, self.since = names, dict.fromkeys(names, 0.0)
        plain = Console(markup=False, emoji=False, highlight=False, **console)
        super().__init__(console=plain, auto_refresh=False)

    def __call__(self, results: dict[str, Result], running: set[str]) -> None:
        """Draw the table anew."""
        table, now = Table.grid(padding=(0, 2), expand=True), time.monotonic()
        for ratio in (None, None, None, None, 1):  # the reason alone gives way
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
        for name in self.names:
            row = (name, "waiting")
            if name in results:
                row = cells(results[name])
            elif name in running:
                self.since[name] = self.since[name] or now
                row = (name, "running", f"{now - self.since[name]:.1f} s")
            table.add_row(*row, style=COLOURS.get(row[1], "red"))
        self.update(table, refresh=True)


def summary(store, *, cut: bool) -> str:
    """Return what a finished run says last.

    Args:
        store: the run.
        cut: whether the rows above were cut to a terminal's width; then what failed is said in full.
    """
    bad = [row for row in store.rows if not row.good]
    told = [f"{row.notebook} {row.status}: {row.reason}" for row in bad if cut]
    wall_s, apart = store.about()["wall_s"], sum(row.not_run for row in store.rows)
    passed = f"{len(store.rows) - len(bad) - apart} passed"
    took = f"{passed}, {f'{apart} not run, ' * bool(apart)}{len(bad)} failed in {wall_s:.0f} s"
    if store.trouble:
        took += ", and not every file could be written"
    page = store.out / "report.html"
    pages = store.unreported or ([f"report: {page}"] if page.exists() else [])
    return "\n".join([*told, "; ".join([took, *pages]), *store.trouble])
