"""What the records say about each method on a kind of task, and what they cannot tell apart."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir

# The test sets have 240 to 2,006 examples: less than a point is not told apart whatever seeds say.
RESOLUTION = 0.01
# Two points below the best: as far as a method may lie and still be chosen for its cost.
MARGIN = 0.02
SEEDS = 3


class TaskKind(NamedTuple):
    """A kind of task: what the guide calls it, where its rows are, and the model they are of."""

    words: str
    task: str | None
    role: str
    base: str
    records: tuple[str, ...]


DECODER = ("decoder", "our toy decoder, 1.7 million parameters", ("sweep_decoder",))
ENCODER = ("encoder", "MiniLM-L6, 22.6 million parameters", ("encoder_study", "sweep_encoder"))
SEQ2SEQ = ("seq2seq", "our toy T5, 1.5 million parameters", ("sweep_seq2seq",))
KINDS = {
    "chat": TaskKind("answers in a conversation, not yet tried on the base", "learn", *DECODER),
    "elicit": TaskKind("make the default what the base does when asked", "elicit", *DECODER),
    "learn": TaskKind("new facts in a new format", "learn", *DECODER),
    "classify": TaskKind("labels for sentences", None, *ENCODER),
    "summarise": TaskKind("summaries in a style that the base has on a cue", "elicit", *SEQ2SEQ),
}
# An encoder-decoder learns as one: its own rows, of notebook 04's gates.
NEW_FACTS = TaskKind("new facts", "learn_facts", *SEQ2SEQ[:2], ("seq2seq_gates",))
Records = Mapping[str, Any]
QUESTIONS = 1319  # test questions behind each of Hugging Face's accuracies
PUBLISHED = "peft_metamathqa_scores/rows/method="  # Llama-3.2-3B, one seed each: its caveats


@dataclass(frozen=True)
class Arm:
    """One method on one kind of task at its chosen learning rate."""

    method: str  # its key
    record: str  # the name of the file under ``data/results``
    learning_rate: float  # chosen on validation with seed 0
    file_bytes: int | None  # the size of what is saved, where it was noted
    steps: int  # of training: a score is a statement about them
    test: dict[int, float]  # seed to test score
    old: dict[str, list[float]] = field(default_factory=dict)  # old texts' loss, old tasks

    @cached_property
    def mean(self) -> float:
        """Mean test score over seeds."""
        return statistics.mean(self.test.values())

    @property
    def score(self) -> str:
        """The mean with its range over seeds, which stays between 0 and 1."""
        return f"{self.mean:.3f} ({min(self.test.values()):.3f} to {max(self.test.values()):.3f})"


class Standing(NamedTuple):
    """How a method stands to the best of those compared.

    Told apart is who lies below by more than the interval of the paired difference. ``word`` is
    ``best``, ``tied`` (not told apart), ``close`` (told apart, by at most ``MARGIN``), or, more than
    ``MARGIN`` lower, ``unresolved`` (not told apart) or ``worse``.
    """

    word: str
    difference: float
    half: float


class Published(NamedTuple):
    """A method's best published row on a real model beside full fine-tuning's."""

    row: Mapping[str, Any]
    full: Mapping[str, Any]
    rows: int  # among how many it is the best
    gap: float
    half: float  # of the 95 % interval that the test questions leave


@cache
def published(method: str) -> Published | None:
    """Return what Hugging Face's comparison on Llama-3.2-3B says of a method, None if nothing."""
    rows, (full,) = (results.look_up(PUBLISHED + name) for name in (method, "full"))
    if not rows or full in rows:
        return None
    row = max(rows, key=lambda row: row["accuracy"])
    error = math.sqrt(sum(r["accuracy"] * (1 - r["accuracy"]) for r in (row, full)) / QUESTIONS)
    return Published(row, full, len(rows), row["accuracy"] - full["accuracy"], 1.96 * error)


def half_width(values: Iterable[float]) -> float:
    """Return the half-width of the 95 % t interval of a mean; infinite for one value."""
    values = list(values)
    if len(values) < 2:
        return math.inf
    return quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


@cache
def quantile(freedom: int) -> float:
    """Return Student's 97.5 % quantile."""
    from scipy import stats

    return float(stats.t.ppf(0.975, freedom))


@cache
def on_disk() -> Records:
    """Return the rows of every record that has been measured, by its name."""
    names = {name for kind in (*KINDS.values(), NEW_FACTS) for name in kind.records}
    there = data_dir() / "results"
    return {name: results.rows(name) for name in names if (there / f"{name}.json").is_file()}


def kind_of(task: str, role: str = "decoder") -> TaskKind:
    """Return the kind of a task, for a model of a role.

    Raises:
        UserError: no such task; the sentence lists those there are.
    """
    if task not in KINDS:
        raise UserError(
            f"There is no task {task!r}: take one of {', '.join(KINDS)}. Translation, code or extraction is "
            "elicit where the base does it when asked, else learn; preference tuning (DPO) is not here."
        )
    return NEW_FACTS if (task, role) == ("learn", "seq2seq") else KINDS[task]


def arms(task: str, records: Records | None = None, role: str = "decoder") -> Mapping[str, Arm]:
    """Return the methods that have rows on a kind of task, three seeds or more.

    Args:
        task: a key of ``KINDS``.
        records: rows to use instead of those on disk: name of the record to DataFrame.
        role: the model's: an encoder-decoder's new facts have rows of their own.
    """
    kind = kind_of(task, role)
    return recorded_arms(kind) if records is None else arms_in(kind, records)


def arms_in(kind: TaskKind, records: Records) -> Mapping[str, Arm]:
    """Return ``arms`` of some records."""
    found = {}
    for name in kind.records:
        rows = of_the_base(kind, records.get(name))
        if rows is None or "test" not in rows:
            continue
        if kind.task:
            rows = rows[rows["task"] == kind.task]
        for method, cell in rows.groupby("method"):
            runs = results.at_chosen_rate(cell, ["method"]) if 0 in set(cell["seed"]) else ()
            if len(runs) and len(runs := runs.dropna(subset=["test"])) >= SEEDS:
                found[method] = arm_of(method, name, runs)
    return found


def of_the_base(kind: TaskKind, rows):
    """Return a record's rows without replay of the base that a kind names, methods under one name."""
    if rows is None or "base" not in rows:
        return rows
    rows = rows[(rows["base"] == kind.role) & (rows["replay"] != True)]
    bare = rows["method"] == "prefix"  # the table's prefix is the one through a projection
    return rows[~bare].replace({"method": {"prefix_projection": "prefix"}})


@cache
def recorded_arms(kind: TaskKind) -> Mapping[str, Arm]:
    """Return ``arms`` of the records on disk, worked out once."""
    return arms_in(kind, on_disk())


def arm_of(method: str, record: str, runs) -> Arm:
    """Return a method's runs at its chosen rate as one arm."""
    size = next((name for name in ("file_bytes", "checkpoint_bytes") if name in runs), None)
    first = runs.iloc[0]
    test = dict(zip(runs["seed"].astype(int).tolist(), runs["test"].tolist(), strict=True))
    measured = lambda name: name in runs and runs[name].notna().all()  # else on one seed alone
    old = {name: list(runs[name]) for name in ("general_loss", "tasks") if measured(name)}
    rate = float(first["learning_rate"])
    numbers = int(first[size]) if size else None, int(first["steps"])
    return Arm(method, record, rate, *numbers, test, old)


def paired(best: Arm, arm: Arm) -> tuple[float, float]:
    """Return how far an arm's mean lies below the best's, and the half-width paired by seed."""
    both = sorted(set(best.test) & set(arm.test))
    return best.mean - arm.mean, half_width(best.test[seed] - arm.test[seed] for seed in both)


def judge(compared: Mapping[str, Arm]) -> dict[str, Standing]:
    """Compare methods with the best of them, paired by seed.

    Less than ``RESOLUTION`` is never told apart. Not to be told apart does not prove equal: more
    than ``MARGIN`` lower is ``unresolved`` then, and not chosen.
    """
    best = max(compared.values(), key=lambda arm: arm.mean, default=None)
    standings = {}
    for name, arm in compared.items():
        lower, half = paired(best, arm)
        apart = lower > max(half, RESOLUTION)
        far = lower > MARGIN
        word = ("worse" if apart else "unresolved") if far else ("close" if apart else "tied")
        standings[name] = Standing("best" if arm is best else word, lower, half)
    return standings


def base_row(kind: TaskKind, records: Records | None) -> Mapping[str, Any] | None:
    """Return the record's row of the untrained base, None where there is none."""
    return recorded_base(kind) if records is None else base_in(kind, records)


@cache
def recorded_base(kind: TaskKind) -> Mapping[str, Any] | None:
    """Return ``base_row`` of the records on disk, worked out once."""
    return base_in(kind, on_disk())


def base_in(kind: TaskKind, records: Records) -> Mapping[str, Any] | None:
    """Return ``base_row`` of some records."""
    rows = of_the_base(kind, records.get(kind.records[0]))
    if rows is None or "task" not in rows or not len(found := rows[rows["task"] == "base"]):
        return None
    return found.iloc[0]
