"""The folder of a run: claimed by one run at a time, written whole or not at all, told at the end."""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout

from nbregress import baselines, notebooks
from nbregress.plan import Plan
from nbregress.result import GOOD, Job, Outcome, Result, fits
from nbregress.stamp import stamp
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path
from pefthelpers.profiles import settings

ROOM = 4096  # bytes that a folder must take before a run starts
STOPPED = "stopped before it was done"
# What a run is told by.
ABOUT = {
    "profile": str,
    "parameters": dict,
    "date": str,
    "versions": dict,
    "processor": str,
    "wall_s": float,
}


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make a run's folder and keep other runs out of it; the claim ends with the process.

    Raises:
        UserError: another run writes there, or the folder cannot be made or written to.
    """
    with atomic_path(out / ".writable") as probe:
        probe.write_text("x" * ROOM, "utf-8")
    (out / ".writable").unlink()
    owner = out / ".owner"
    try:
        lock = FileLock(out / ".lock").acquire(timeout=0)
    except Timeout as error:
        other = owner.read_text(encoding="utf-8") if owner.exists() else "unknown"
        raise UserError(
            f"Another run (process {other}) writes into {out}: wait for it, or choose another folder with --out."
        ) from error
    with lock:
        owner.write_text(str(os.getpid()), encoding="utf-8")
        try:
            for left in out.glob(".*.[0-9]*.part*"):  # half-written, by a run that was killed
                left.unlink()
            yield
        finally:
            owner.unlink(missing_ok=True)


def read_rows(folder: Path) -> dict:
    """Return ``metrics.json`` of a run, given as a folder or as that file.

    Returns:
        ``{"about": {...}, "notebooks": [one row for each]}``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder if folder.is_file() else folder / "metrics.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [Result.of(row).notebook for row in content["notebooks"]]
        if len(set(names)) < len(names):
            raise ValueError("a notebook stands in it twice")
        about = {"processor": "", "wall_s": 0} | content["about"]
        settings("decoder", about["profile"])
        wrong = [key for key, kind in ABOUT.items() if not fits(about[key], kind)]
        if wrong:
            raise ValueError(f"{wrong[0]} is {about[wrong[0]]!r}")
        return content | {"about": about}
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run: there is no metrics.json in it.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again.") from error


def plain(value: object) -> object:
    """Return a value as strict JSON takes it: NaN and infinity as text."""
    return json.loads(json.dumps(value), parse_constant=lambda name: str(float(name)))


@dataclass
class RunStore:
    """Results and executed notebooks of a run, in memory and in its folder.

    A file that cannot be written (a full disk, a folder taken away) ends no notebook that runs: it is
    said in ``trouble``, tried again at the end, and the run is not good if it fails then too.
    """

    out: Path  # the run's folder, claimed
    plan: Plan
    recorded: dict[str, dict]  # baselines by notebook
    names: list[str]  # all notebooks of the run, in the order of the collection
    results: dict[str, Result] = field(default_factory=dict)
    changes: dict[str, list[baselines.Change]] = field(default_factory=dict)  # against the baseline
    executed: dict[str, str] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)  # files that could not be written
    unreported: list[str] = field(default_factory=list)  # pages that could not be made
    start: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> list[Result]:
        """Return the results so far, in the order of the collection."""
        return [self.results[name] for name in self.names if name in self.results]

    @property
    def good(self) -> bool:
        """Tell whether every notebook is good and every file was written."""
        return not self.trouble and all(row.good for row in self.rows)

    def resume(self, jobs: list[Job]) -> None:
        """Take over what the folder holds of jobs that passed with the same source and parameters."""
        if not (self.out / "metrics.json").exists():
            return
        wanted = {job.notebook: (job.source_hash, plain(job.values)) for job in jobs}
        for row in read_rows(self.out)["notebooks"]:
            path = self.out / f"{row['notebook']}.ipynb"
            result = Result(**row | {"status": GOOD, "reason": "", "drifts": [], "notes": []})
            same = (result.source_hash, result.values) == wanted.get(result.notebook)
            if not same or row["status"] not in (GOOD, "drifted"):
                continue
            with suppress(UserError):  # it is not there, or was cut off: it runs again
                self.executed[result.notebook] = nbformat.writes(notebooks.read(path))
                self._judge(result)

    def add(self, outcome: Outcome) -> None:
        """Judge a result, write the executed notebook and the metrics so far."""
        name = outcome.result.notebook
        self.executed[name] = outcome.executed
        self._judge(outcome.result)
        if outcome.executed:
            self.write(f"{name}.ipynb", outcome.executed)
        self.write("metrics.json", self.metrics())

    def _judge(self, result: Result) -> None:
        name = result.notebook
        recorded = self.recorded.get(name, {})
        self.changes[name] = baselines.judge(result, recorded, comparable=not self.plan.values)
        self.results[name] = result

    def metrics(self) -> str:
        """Return the text of ``metrics.json``."""
        rows = [asdict(result) for result in self.rows]
        return json.dumps(plain({"about": self.about(), "notebooks": rows}), indent=1)

    def about(self) -> dict:
        """Return what the run's figures hang on."""
        about = {**stamp(), "profile": self.plan.profile, "parameters": plain(self.plan.values)}
        versions = [*(row.versions for row in self.rows if row.versions), about["versions"]]
        wall_s = round(time.monotonic() - self.start, 1)
        return about | {"versions": versions[0], "wall_s": wall_s}

    def write(self, name: str, text: str) -> None:
        """Write a file of the run's folder whole, or say in ``trouble`` why not."""
        try:
            with atomic_path(self.out / name) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        except (OSError, UserError) as error:
            self.trouble.append(f"{name} could not be written: {error}")
            if name.endswith(".ipynb"):
                with suppress(OSError):  # an older run's: it would be taken for this one's
                    (self.out / name).unlink()

    def finish(self) -> None:
        """Write everything that is not there yet; what has no result was stopped."""
        for name in self.names:
            if name not in self.results:
                self._judge(Result(name, "stopped", reason=STOPPED))
        self.trouble = []
        for name, text in self.executed.items():
            if text and not (self.out / f"{name}.ipynb").exists():
                self.write(f"{name}.ipynb", text)
        self.write("metrics.json", self.metrics())

    def report(self, name: str, render: Callable[["RunStore"], str]) -> None:
        """Write a report that ``render`` makes of this run; a run outlives one that cannot be made."""
        try:
            (self.out / name).unlink(missing_ok=True)  # an older run's
            self.write(name, render(self))
        except Exception as error:  # noqa: BLE001 - the fault may be any library's
            why = traceback.format_exception_only(error)[0].splitlines()[0]
            self.unreported.append(f"there is no {name}, it could not be made ({why})")
