"""The same notebooks under several package stacks: one table, notebook by stack."""

import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nbregress import stacks
from nbregress.report import duration, pages
from nbregress.result import Result
from nbregress.run_store import read_rows
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path

UNREACHED = "the matrix ended before it came to this stack"


@dataclass
class Column:
    """One stack's part of the table.

    Attributes:
        stack: its name.
        error: why its environment or its run does not exist; empty if they do.
        built_s: seconds to find or build the environment.
        python: its Python's version.
        versions: of the packages that the numbers depend on.
        results: by notebook.
    """

    stack: str
    error: str = ""
    built_s: float = 0.0
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def cell(self, notebook: str) -> str:
        """Return what the table says of a notebook: passed, or the first failing cell, or what drifted."""
        result = self.results.get(notebook)
        if result is None:
            return self.error or "not run"
        if result.good:
            return f"passed, {duration(result.seconds)}"
        if result.drifts:
            return f"drifted: {'; '.join(result.drifts)}"
        return f"{result.status}: {'; '.join([result.reason, *result.notes])}"

    @property
    def packages(self) -> str:
        """Return Python's and the packages' versions in one line, empty if nothing ran."""
        known = {"Python": self.python, **self.versions} if self.versions else {}
        return ", ".join(f"{name} {version}" for name, version in known.items())

    def good(self, notebook: str) -> bool:
        """Tell whether a notebook passed."""
        return notebook in self.results and self.results[notebook].good


@dataclass
class Table:
    """The whole matrix."""

    notebooks: list[str]
    columns: list[Column]

    @property
    def good(self) -> bool:
        """Tell whether every notebook passed under every stack."""
        return all(column.good(name) for column in self.columns for name in self.notebooks)

    def text(self) -> str:
        """Return the table for a terminal: marks, then each stack with a line for each fault."""
        lines = [" " * 28 + "".join(f"{column.stack:>12}" for column in self.columns)]
        for name in self.notebooks:
            marks = [self.mark(column, name) for column in self.columns]
            lines.append(f"{name:28}" + "".join(f"{mark:>12}" for mark in marks))
        for column in self.columns:
            lines.append(f"{column.stack}: {column.packages or column.error}")
            faults = [name for name in column.results if not column.good(name)]
            lines += [f"  {name}: {column.cell(name)}" for name in faults]
        return "\n".join(lines)

    def mark(self, column: Column, name: str) -> str:
        """Return one word, or the seconds of a notebook that passed."""
        result = column.results.get(name)
        if result is None:
            return "no build" if column.error else "not run"
        return duration(result.seconds) if result.good else result.status

    def html(self) -> str:
        """Return the page."""
        return pages().get_template("matrix.html.jinja").render(table=self)


def run(
    wanted: list[stacks.Stack], paths: list[Path], out: Path, *, jobs: int, profile: str
) -> Table:
    """Build each stack's environment, run the notebooks in it, and write the table.

    Args:
        wanted: the stacks, in the table's order.
        paths: the notebooks.
        out: folder for ``matrix.json``, ``matrix.html`` and a run's folder for each stack.
        jobs: notebooks at a time.
        profile: ``tiny``, ``laptop`` or ``gpu``.
    """
    unreached = [Column(stack.name, error=UNREACHED) for stack in wanted]
    table = Table([path.stem for path in paths], unreached)
    for number, stack in enumerate(wanted):
        print(f"{stack.name}: environment", flush=True)
        column = column_of(stack, paths, out / stack.name, jobs=jobs, profile=profile)
        table.columns[number] = column
        write(table, out)
    return table


def column_of(
    stack: stacks.Stack, paths: list[Path], out: Path, *, jobs: int, profile: str
) -> Column:
    """Return one stack's column."""
    start, column = time.perf_counter(), Column(stack.name)
    try:
        python = stacks.python_of(stack)
    except (stacks.BuildError, subprocess.CalledProcessError, OSError) as error:
        column.error = f"the environment could not be built: {error}"
        print(f"{stack.name}: {column.error}", flush=True)
        return column
    column.built_s = round(time.perf_counter() - start, 1)
    column.python = stacks.python_version(python)
    print(f"{stack.name}: {python} ({duration(column.built_s)})", flush=True)
    code = run_in(python, paths, out, jobs=jobs, profile=profile)
    try:
        content = read_rows(out)
    except UserError as error:
        column.error = f"the run ended with exit code {code} and no result: {error}"
        return column
    column.versions = content["about"]["versions"]
    column.results = {row["notebook"]: Result(**row) for row in content["notebooks"]}
    return column


def run_in(python: str, paths: list[Path], out: Path, *, jobs: int, profile: str) -> int:
    """Run the notebooks by another environment's Python with this checkout's package."""
    (out / "metrics.json").unlink(missing_ok=True)  # an older run's
    source = str(Path(__file__).resolve().parents[1])
    command = [python, "-m", "nbregress.cli", "run", *map(str, paths), "--profile", profile]
    command += ["--jobs", str(jobs), "--out", str(out.resolve())]
    environment = os.environ | {"PYTHONPATH": source}
    return subprocess.run(command, check=False, env=environment).returncode


def write(table: Table, out: Path) -> None:
    """Write ``matrix.json`` and ``matrix.html``."""
    with atomic_path(out / "matrix.json") as temporary:
        temporary.write_text(json.dumps(asdict(table), indent=1) + "\n", encoding="utf-8")
    with atomic_path(out / "matrix.html") as temporary:
        temporary.write_text(table.html(), encoding="utf-8")
