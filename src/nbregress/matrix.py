"""The same notebooks under several package stacks, which tox builds: one table, notebook by stack."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nbregress import notebooks
from nbregress.report import duration, render
from nbregress.result import Result
from nbregress.run_store import read_rows
from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path, cache_dir

STACKS = ("pinned", "floor", "newest")  # the environments of tox.ini


@dataclass
class Column:
    """One stack's part of the table."""

    stack: str  # its name
    error: str = ""  # why its environment or its run does not exist; empty if they do
    built_s: float = 0.0  # seconds to find or build the environment
    python: str = ""  # its Python's version
    versions: dict[str, str] = field(default_factory=dict)  # of the packages that numbers depend on
    results: dict[str, Result] = field(default_factory=dict)  # by notebook

    def row(self, notebook: str) -> Result:
        """Return how a notebook ended; without a result it is ``no build`` or ``not run``."""
        status = "no build" if self.error else "not run"
        return self.results.get(notebook) or Result(notebook, status, reason=self.error)


@dataclass
class Matrix:
    """The whole table."""

    notebooks: list[str]
    columns: list[Column]

    @property
    def good(self) -> bool:
        """Tell whether every notebook passed under every stack."""
        return all(column.row(name).good for column in self.columns for name in self.notebooks)

    def write(self, out: Path) -> None:
        """Write ``matrix.json`` and ``matrix.html``."""
        results.write(out / "matrix.json", asdict(self))
        with atomic_path(out / "matrix.html") as temporary:
            temporary.write_text(render("matrix.html", table=self), encoding="utf-8")


def stacks(names: list[str], pythons: list[str]) -> dict[str, str]:
    """Return ``{stack: its Python}``, the running one where no other is asked for.

    Args:
        names: ``pinned``, ``floor``, ``newest``.
        pythons: ``STACK=PROGRAM`` texts; for another version than the running one's the CPU build of
            torch has to be at hand too.

    Raises:
        UserError: no such stack, a program that does not start, no tox, or this is no checkout.
    """
    known, found = ", ".join(STACKS), dict.fromkeys(names, sys.executable)
    if unknown := [name for name in names if name not in STACKS]:
        raise UserError(f"Unknown stack {unknown[0]!r}: choose from {known}.")
    for stack, _, program in (text.partition("=") for text in pythons):
        if stack not in STACKS:
            raise UserError(f"--python takes STACK=PROGRAM, STACK one of {known}.")
        try:
            python_version(program)
        except (OSError, subprocess.CalledProcessError) as error:
            words = f"{program!r} does not start: give --python a Python's path."
            raise UserError(words) from error
        found[stack] = program
    if not (root() / "tox.ini").is_file():
        raise UserError("The matrix needs a clone of the repository: tox.ini is missing.")
    if importlib.util.find_spec("tox") is None:
        raise UserError("The matrix needs tox: pip install 'pefthelpers[test]'.")
    return {name: found[name] for name in names}


def root() -> Path:
    """Return the checkout's folder."""
    return notebooks.notebooks_dir().resolve().parent


def python_version(python: str) -> str:
    """Return the version of a Python: 3.11.7."""
    asked = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(asked, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def installed_here() -> bool:
    """Tell whether the running environment holds exactly the pins that are meant for it, torch's too."""
    from packaging.requirements import Requirement

    files = [root() / name for name in ("requirements-torch.txt", "requirements.txt")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line and line[0] != "#"]
    pins = [pin for pin in pins if not pin.marker or pin.marker.evaluate()]
    try:
        return all(pin.specifier.contains(version(pin.name), prereleases=True) for pin in pins)
    except PackageNotFoundError:
        return False


def python_of(stack: str, python: str) -> str:
    """Return the Python of a stack's environment; tox builds it if no such one is kept.

    The running environment serves the pinned stack if it holds its pins. The newest stack is built anew
    each time, since what is newest does not stand in a file.

    Raises:
        ChildProcessError: it cannot be built.
    """
    if stack == "pinned" and python == sys.executable and installed_here():
        return sys.executable
    work = cache_dir() / "stacks"
    command = [sys.executable, "-m", "tox", "-c", str(root() / "tox.ini"), "--workdir", str(work)]
    command += ["run", "-e", stack, "--notest", "--override", f"testenv.base_python={python}"]
    command += ["--recreate"] if stack == "newest" else []
    done = subprocess.run(
        command, check=False, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        raise ChildProcessError(why(done.stdout + "\n" + done.stderr))
    return str(work / stack / "bin" / "python")


def why(said: str) -> str:
    """Return what pip says went wrong, in one line: the conflicting requirements or its last error."""
    conflict = re.search(r"The conflict is caused by:\n((?:    .*\n)+)", said)
    if conflict:
        return "; ".join(line.strip() for line in conflict.group(1).splitlines())
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    return (errors or said.strip().splitlines() or ["pip failed"])[-1]


def run(wanted: dict[str, str], paths: list[Path], out: Path, *, jobs: int, profile: str) -> Matrix:
    """Build each stack's environment, run the notebooks in it, and write the table.

    Args:
        wanted: Pythons by stack, in the table's order, as ``stacks`` gives them.
        paths: the notebooks.
        out: folder for ``matrix.json``, ``matrix.html`` and a run's folder for each stack.
        jobs: notebooks at a time.
        profile: ``tiny``, ``laptop`` or ``gpu``.
    """
    unreached = [Column(name, "the matrix ended before it came to this stack") for name in wanted]
    table = Matrix([path.stem for path in paths], columns=unreached)
    options = [*map(str, paths), "--profile", profile, "--jobs", str(jobs)]
    for number, (name, python) in enumerate(wanted.items()):
        print(f"{name}: environment", flush=True)
        table.columns[number] = column_of(name, python, out / name, options)
        table.write(out)
    return table


def column_of(stack: str, python: str, out: Path, options: list[str]) -> Column:
    """Return one stack's column: a run by its environment's Python with this checkout's package."""
    start, column = time.perf_counter(), Column(stack)
    try:
        python = python_of(stack, python)
        column.built_s = round(time.perf_counter() - start, 1)
        column.python = python_version(python)
        print(f"{stack}: {python} ({duration(column.built_s)})", flush=True)
        (out / "metrics.json").unlink(missing_ok=True)  # an older run's
        command = [python, "-m", "nbregress.cli", "run", *options, "--out", str(out.resolve())]
        ours = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        code = subprocess.run(command, check=False, env=ours).returncode
        content = read_rows(out)
    except OSError as error:
        column.error = f"the environment could not be built: {error}"
        print(f"{stack}: {column.error}", flush=True)
    except UserError as error:
        column.error = f"the run ended with exit code {code} and no result: {error}"
    else:
        column.versions = content["about"]["versions"]
        column.results = {row["notebook"]: Result(**row) for row in content["notebooks"]}
    return column
