"""What one notebook's run is given, and what comes back of it."""

from dataclasses import dataclass, field
from pathlib import Path

from nbregress import notebooks

GOOD = "passed"


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
    caller: str = ""  # who wants it, as ``isolation.caller`` names it, and may stop it

    @classmethod
    def of(cls, path: Path, values: dict[str, object], **limits) -> "Job":
        """Read a notebook file into a job."""
        folder = str(path.resolve().parent)
        return cls(path.stem, path.read_text(encoding="utf-8"), folder, values, **limits)

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


@dataclass
class Outcome:
    """A result and the executed notebook's text (empty if nothing was executed)."""

    result: Result
    executed: str = ""
