"""What one notebook's run is given, and what comes back of it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from nbregress import notebooks

GOOD = "passed"


@dataclass(frozen=True)
class Job:
    """One notebook to execute, complete: it may travel to another machine.

    Attributes:
        notebook: file stem.
        source: the notebook file's text.
        folder: where its code should run, if that folder exists there.
        values: parameters, already checked.
        threads: OpenMP threads.
        timeout_s: seconds for the whole notebook; 0 is no limit.
        cell_timeout_s: seconds for one cell; 0 is no limit.
        caller: who wants it, as ``apart.caller`` names it, and may stop it.
    """

    notebook: str
    source: str
    folder: str
    values: dict[str, object]
    threads: int = 1
    timeout_s: float = 0
    cell_timeout_s: float = 0
    caller: str = ""

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
    """How one notebook ended.

    Attributes:
        notebook: file stem.
        status: ``passed``, ``failed``, ``drifted`` (a metric left its tolerance) or
            ``stopped`` (by Ctrl-C or --fail-fast, before it was done).
        seconds: wall time including the kernel's start.
        reason: one line for a notebook that is not good: the cell and the error's last line.
        cell: number of the failing cell in the notebook file, from 0; None if no cell is to blame.
        cell_id: its id.
        source: its source.
        traceback: what the cell showed, without colours.
        metrics: ``{name: {"value", "unit"}}``.
        drifts: one sentence for each metric that left its baseline.
        notes: what is worth a look, but no failure.
        left_out: why the notebook left a part out, as it said with ``quote("left_out", ...)``;
            the metrics of that part are then not missed.
        source_hash: of the code cells that ran.
        values: its parameters.
        cpu_s: CPU seconds of the notebook's process and kernel.
        peak_memory_gib: the largest resident memory of one of its processes.
        kernel_starts: 2 if the first kernel never started.
        versions: of the packages that the numbers depend on, where it ran.
    """

    notebook: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    cell: int | None = None
    cell_id: str = ""
    source: str = ""
    traceback: str = ""
    metrics: dict[str, dict] = field(default_factory=dict)
    drifts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: str = ""
    source_hash: str = ""
    values: dict[str, object] = field(default_factory=dict)
    cpu_s: float = 0.0
    peak_memory_gib: float = 0.0
    kernel_starts: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Tell whether nothing is wrong with it."""
        return self.status == GOOD

    def as_row(self) -> dict:
        """Return it as JSON keeps it."""
        return asdict(self)


@dataclass
class Outcome:
    """A result and the executed notebook's text (empty if nothing was executed)."""

    result: Result
    executed: str = ""
