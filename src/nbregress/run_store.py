"""The folder of a run: claimed by one run at a time, written whole or not at all, told at the end."""

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from nbregress import baselines
from nbregress.plan import Plan
from nbregress.result import Job, Outcome, Result
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path
from pefthelpers.results import stamp


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make a run's folder and keep other runs out of it; the claim ends with the process.

    Raises:
        UserError: another run writes there, or the folder cannot be made or written to.
    """
    with atomic_path(out / ".writable") as probe:
        probe.write_text("")
    (out / ".writable").unlink()
    with open(out / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UserError(
                f"Another run (process {lock.read() or 'unknown'}) writes into {out}: wait for it, or "
                "choose another folder with --out."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


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
        for row in content["notebooks"]:
            Result(**row)
        return content
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run: there is no metrics.json in it.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run the notebooks again."
        ) from error


def plain(value: object) -> object:
    """Return a value as strict JSON takes it: NaN and infinity as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class RunStore:
    """Results and executed notebooks of a run, in memory and in its folder.

    A file that cannot be written (a full disk, a folder taken away) ends no notebook that runs: it is
    said in ``trouble``, tried again at the end, and the run is not good if it fails then too.

    Args:
        out: the run's folder, claimed.
        plan: the run's plan.
        recorded: baselines by notebook.
        names: all notebooks of the run, in the order of the collection.
    """

    def __init__(
        self, out: Path, plan: Plan, recorded: dict[str, dict | None], names: list[str]
    ) -> None:
        """Start with nothing done."""
        self.out, self.plan, self.recorded, self.names = out, plan, recorded, names
        self.results: dict[str, Result] = {}
        self.executed: dict[str, str] = {}
        self.trouble: list[str] = []  # files that could not be written
        self.unreported: list[str] = []  # pages that could not be made of what was written
        self.start = time.monotonic()

    @property
    def rows(self) -> list[Result]:
        """Return the results so far, in the order of the collection."""
        return [self.results[name] for name in self.names if name in self.results]

    @property
    def good(self) -> bool:
        """Tell whether every notebook is good and every file was written."""
        done = all(name in self.results and self.results[name].good for name in self.names)
        return done and not self.trouble

    def resume(self, jobs: list[Job]) -> None:
        """Take over what the folder holds of jobs that passed with the same source and parameters."""
        if not (self.out / "metrics.json").exists():
            return
        by_name = {job.notebook: job for job in jobs}
        for row in read_rows(self.out)["notebooks"]:
            result, job = Result(**row), by_name.get(row["notebook"])
            if job is None or result.status not in ("passed", "drifted"):
                continue
            if (result.source_hash, result.values) != (job.source_hash, plain(job.values)):
                continue
            path = self.out / f"{job.notebook}.ipynb"
            if path.exists():
                result.status, result.reason, result.drifts, result.notes = "passed", "", [], []
                self.executed[job.notebook] = path.read_text(encoding="utf-8")
                self._judge(result)

    def add(self, outcome: Outcome) -> None:
        """Judge a result, write the executed notebook and the metrics so far."""
        result = outcome.result
        self.executed[result.notebook] = outcome.executed
        self._judge(result)
        if outcome.executed:
            self.write(f"{result.notebook}.ipynb", outcome.executed)
        self.write("metrics.json", self.metrics())

    def _judge(self, result: Result) -> None:
        recorded = self.recorded.get(result.notebook)
        baselines.judge(result, recorded, comparable=not self.plan.values)
        self.results[result.notebook] = result

    def metrics(self) -> str:
        """Return the text of ``metrics.json``."""
        rows = [plain(asdict(result)) for result in self.rows]
        return json.dumps({"about": self.about(), "notebooks": rows}, indent=1, allow_nan=False)

    def about(self) -> dict:
        """Return what the run's figures hang on."""
        versions = next((row.versions for row in self.rows if row.versions), None)
        return {
            **stamp(),
            **({"versions": versions} if versions else {}),
            "profile": self.plan.profile,
            "parameters": plain(self.plan.values),
            "wall_s": round(time.monotonic() - self.start, 1),
        }

    def write(self, name: str, text: str) -> bool:
        """Write a file of the run's folder whole; tell whether that went well."""
        try:
            with atomic_path(self.out / name) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        except (OSError, UserError) as error:
            self.trouble.append(f"{name} could not be written: {error}")
            return False
        return True

    def finish(self) -> None:
        """Write everything that is not there yet; what has no result was stopped."""
        for name in self.names:
            stopped = Result(name, "stopped", reason="stopped before it was done")
            self.results.setdefault(name, stopped)
        self.trouble = []
        for name, text in self.executed.items():
            if text and not (self.out / f"{name}.ipynb").exists():
                self.write(f"{name}.ipynb", text)
        self.write("metrics.json", self.metrics())

    def report(self, name: str, render: Callable[["RunStore"], str]) -> None:
        """Write a report that ``render`` makes of this run; a run outlives one that cannot be made."""
        try:
            text = render(self)
        except Exception as error:  # noqa: BLE001 - the fault may be any library's
            with suppress(OSError):
                (self.out / name).unlink()  # an older run's
            words = (str(error).strip().splitlines() or [""])[0]
            why = f"{type(error).__name__}: {words}".rstrip(": ")
            self.unreported.append(f"there is no {name}, it could not be made ({why})")
        else:
            self.write(name, text)
