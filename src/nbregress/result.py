"""What one notebook's run is given, and what comes back of it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import nbformat

from nbregress import answers, notebooks

GOOD = "passed"
STATUSES = (GOOD, "failed", "drifted", "stopped")


@dataclass(frozen=True)
class Job:
    """One notebook to execute, complete: it may travel to another machine."""

    notebook: str  # file stem
    source: str  # the notebook file's text
    folder: str  # where its code should run, if that folder exists there
    values: dict[str, object]  # parameters, already checked
    threads: int = 1  # of OpenMP
    timeout_s: float = 0  # for the whole notebook; 0 is no limit
    cell_timeout_s: float = 0  # for one cell; 0 is no limit
    answers: str = ""  # stubs or solutions: what every exercise's check must say
    caller: str = ""  # who wants it, as ``isolation.caller`` names it, and may stop it

    @classmethod
    def of(cls, path: Path, values: dict[str, object], **limits) -> "Job":
        """Read a notebook file into a job: as the runner reads it, so that ids of cells are the same."""
        folder, book = str(path.resolve().parent), notebooks.read(path)
        if limits.get("answers") == "solutions":
            answers.solve(book)
        return cls(path.stem, nbformat.writes(book), folder, values, **limits)

    @property
    def source_hash(self) -> str:
        """Return the hash of its code cells."""
        return notebooks.source_hash(notebooks.parse(self.source, self.notebook))


@dataclass
class Result:
    """How one notebook ended."""

    notebook: str  # file stem
    # passed, failed, drifted (a metric left its tolerance) or stopped (by Ctrl-C or --fail-fast, before its end)
    status: str
    seconds: float = 0.0  # wall time including the kernel's start
    reason: str = ""  # of one that is not good: the cell and the error's last line, in one line
    cell: int | None = None  # the failing one's number in the file, from 0; None: none is to blame
    cell_id: str = ""
    source: str = ""  # of that cell
    traceback: str = ""  # what the cell showed, without colours
    metrics: dict[str, dict] = field(default_factory=dict)  # {name: {"value", "unit"}}
    drifts: list[str] = field(default_factory=list)  # a sentence a metric beyond its tolerance
    notes: list[str] = field(default_factory=list)  # what is worth a look, but no failure
    # Why the notebook left a part out, as it said with quote("left_out", …): that part's metrics are not missed.
    left_out: str = ""
    source_hash: str = ""  # of the code cells that ran
    values: dict[str, object] = field(default_factory=dict)  # its parameters
    cpu_s: float = 0.0  # of the notebook's process and its kernel
    peak_memory_gib: float = 0.0  # resident memory of the largest of its processes
    kernel_starts: int = 0  # 2 if the first kernel never started
    versions: dict[str, str] = field(default_factory=dict)  # of the packages that numbers depend on

    @property
    def good(self) -> bool:
        """Tell whether nothing is wrong with it."""
        return self.status == GOOD

    @property
    def not_run(self) -> bool:
        """Tell whether it passed by leaving out what it is for, such as 05b without AdapterHub's environment."""
        return self.good and bool(self.left_out)

    @property
    def word(self) -> str:
        """The status as a person reads it."""
        return "not run" if self.not_run else self.status

    @classmethod
    def of(cls, row: object) -> "Result":
        """Return the result of a row of ``metrics.json``, which may be anybody's.

        Raises:
            ValueError: a field is missing, unknown or of another type, or the name would lead elsewhere.
        """
        kinds = get_type_hints(cls)
        if not isinstance(row, dict) or not {"notebook", "status"} <= row.keys() <= kinds.keys():
            raise ValueError(f"not a notebook's row: {str(row)[:80]}")
        if wrong := [key for key, value in row.items() if not fits(value, kinds[key])]:
            raise ValueError(f"{wrong[0]} is {str(row[wrong[0]])[:80]!r}")
        if row["status"] not in STATUSES:
            raise ValueError(f"the status {row['status']!r} is none of {', '.join(STATUSES)}")
        if not re.fullmatch(r"[^/\\:\0]+", row["notebook"]) or row["notebook"] in (".", ".."):
            raise ValueError(f"{row['notebook']!r} is no notebook's name")
        for name, metric in row.get("metrics", {}).items():
            if not {"value", "unit"} <= metric.keys() or not isinstance(metric["unit"], str):
                raise ValueError(f"the metric {name} is {str(metric)[:80]}")
        return cls(**row)


def fits(value: object, kind: type) -> bool:
    """Tell whether a value read from JSON is of an annotated type."""
    if kind is object:
        return True
    if kind is float:
        return type(value) in (int, float)
    if kind is int or not get_args(kind):
        return type(value) is kind
    if get_origin(kind) is dict:
        return type(value) is dict and all(fits(each, get_args(kind)[1]) for each in value.values())
    if get_origin(kind) is list:
        return type(value) is list and all(fits(each, get_args(kind)[0]) for each in value)
    return any(fits(value, each) for each in get_args(kind))


@dataclass
class Outcome:
    """A result and the executed notebook's text (empty if nothing was executed)."""

    result: Result
    executed: str = ""
