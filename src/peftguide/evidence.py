"""What the records say about each method on a kind of task, and what they cannot tell apart."""

import math
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
    """A kind of task: where its rows are, and what the guide calls it."""

    records: tuple[str, ...]
    task: str | None
    role: str
    words: str
    base: str


KINDS = {
    "elicit": TaskKind(
        ("sweep_decoder",),
        "elicit",
        "decoder",
        "make the default what the base does when asked",
        "the kitchen decoder",
    ),
    "learn": TaskKind(
        ("sweep_decoder",), "learn", "decoder", "new facts in a new format", "the kitchen decoder"
    ),
    "classify": TaskKind(
        ("encoder_study", "sweep_encoder"), None, "encoder", "labels for sentences", "MiniLM-L6"
    ),
    "summarise": TaskKind(
        ("sweep_seq2seq",),
        "elicit",
        "seq2seq",
        "summaries in a style that the base has on a cue",
        "the kitchen T5",
    ),
}
Records = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One method on one kind of task at its chosen learning rate.

    Attributes:
        method: its key.
        record: the name of the file under ``data/results``.
        learning_rate: chosen on validation with seed 0.
        file_bytes: the size of what is saved.
        test: seed to test score.
        general_loss: loss on old texts, one value a seed, where the study has it.
    """

    method: str
    record: str
    learning_rate: float
    file_bytes: int
    test: dict[int, float]
    general_loss: list[float] = field(default_factory=list)

    @cached_property
    def mean(self) -> float:
        """Mean test score over seeds."""
        return results.mean_and_sd(self.test.values())[0]

    @cached_property
    def half(self) -> float:
        """Half-width of the mean's 95 % t interval over seeds."""
        return half_width(self.test.values())


class Standing(NamedTuple):
    """How a method stands to the best of those compared.

    Told apart is who lies below by more than the interval of the paired difference. ``word`` is
    ``best``, ``tied`` (not told apart), ``close`` (told apart, by at most ``MARGIN``), or, more than
    ``MARGIN`` lower, ``unresolved`` (not told apart) or ``worse``.
    """

    word: str
    difference: float
    half: float


def half_width(values: Iterable[float]) -> float:
    """Return the half-width of the 95 % t interval of a mean; infinite for one value."""
    from scipy import stats

    values = list(values)
    if len(values) < 2:
        return math.inf
    spread = results.mean_and_sd(values)[1] / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * spread


@cache
def read_record(name: str):
    """Return the rows of a record as a DataFrame, None where it has not been measured yet."""
    there = (data_dir() / "results" / f"{name}.json").is_file()
    return results.rows(name) if there else None


def rows_of(name: str, records: Records | None):
    """Return a record's rows: out of ``records`` where it is given, from disk otherwise."""
    return read_record(name) if records is None else records.get(name)


def arms(kind: str, records: Records | None = None) -> dict[str, Arm]:
    """Return the methods that have rows on a kind of task, three seeds or more.

    Args:
        kind: a key of ``KINDS``.
        records: rows to use instead of those on disk: name of the record to DataFrame.
    """
    if kind not in KINDS:
        raise UserError(f"There is no task {kind!r}: take one of {', '.join(KINDS)}.")
    return _recorded_arms(kind) if records is None else _arms(kind, records)


@cache
def _recorded_arms(kind: str) -> dict[str, Arm]:
    return _arms(kind, None)


def _arms(kind: str, records: Records | None) -> dict[str, Arm]:
    found = {}
    for name in KINDS[kind].records:
        rows = rows_of(name, records)
        if rows is None or not len(rows) or "test" not in rows:
            continue
        rows = rows[rows["method"].notna()]
        if task := KINDS[kind].task:
            rows = rows[rows["task"] == task]
        for method, cell in rows.groupby("method"):
            if arm := _arm(str(method), name, cell):
                found[arm.method] = arm
    return found


def _arm(method: str, record: str, cell) -> Arm | None:
    """Return a method's runs at its chosen rate; None with fewer than three seeds or no test."""
    chosen = (
        results.at_chosen_rate(cell, ["method"]) if (cell["seed"] == 0).any() else cell.iloc[:0]
    )
    chosen = chosen.dropna(subset=["test"]) if len(chosen) else chosen
    if len(chosen) < SEEDS:
        return None
    size = "file_bytes" if "file_bytes" in chosen else "checkpoint_bytes"
    first = chosen.iloc[0]
    loss = list(chosen["general_loss"]) if "general_loss" in chosen else []
    test = {int(seed): float(score) for seed, score in zip(chosen.seed, chosen.test, strict=True)}
    return Arm(method, record, float(first["learning_rate"]), int(first[size]), test, loss)


def judge(compared: Mapping[str, Arm]) -> dict[str, Standing]:
    """Compare methods with the best of them, paired by seed.

    Less than ``RESOLUTION`` is never told apart. Not to be told apart does not prove equal: more
    than ``MARGIN`` lower is ``unresolved`` then, and not chosen.
    """
    if not compared:
        return {}
    best = max(compared.values(), key=lambda arm: arm.mean)
    standings = {}
    for name, arm in compared.items():
        seeds = sorted(set(best.test) & set(arm.test))
        differences = [best.test[seed] - arm.test[seed] for seed in seeds]
        lower = best.mean - arm.mean
        half = half_width(differences)
        apart = lower > max(half, RESOLUTION)
        far = lower > MARGIN
        word = ("worse" if apart else "unresolved") if far else ("close" if apart else "tied")
        standings[name] = Standing("best" if arm is best else word, lower, half)
    return standings


def base_row(kind: str, records: Records | None) -> Mapping[str, Any] | None:
    """Return the record's row of the untrained base, None where there is none."""
    rows = rows_of(KINDS[kind].records[0], records)
    if rows is None or "task" not in rows or not len(found := rows[rows["task"] == "base"]):
        return None
    return found.iloc[0]


@cache
def published() -> tuple[dict[str, Any], ...]:
    """Return Hugging Face's rows on Llama-3.2-3B: one seed each, see the file's caveats."""
    return tuple(results.read("peft_metamathqa_scores")["rows"])
