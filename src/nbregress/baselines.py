"""Recorded metrics with tolerances: what a run has to reproduce, and how far it may be off."""

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from nbregress.result import Result
from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir
from pefthelpers.record import readable

EXACT = ((0.0, 0.0), (0.0, 0.0))
# By how a unit begins: how far a metric may be off, at least and as a part of its value, of one run alone
# (nobody knows how much training scatters, and another processor sums in another order) and where several
# have shown the scatter. None: not judged. A unit that is not here has to be equal, and a test refuses it.
KINDS = {
    r"(CPU )?(s|ms|us|µs|min|h)\b|ratio of times|.*/s$": None,
    r"(bits|bytes)(/| per )|(bits|kB|MB|MiB|GB|GiB)\b|of 4 bits$": ((0.0, 0.01), (0.0, 0.01)),
    r"(parameters|bytes|layers|matrices|rank|directions|tokens|steps|seeds|rows|runs|fine-tunings"
    r"|methods|models|answers|constants|claims)\b|of (\d[\d,]*|all)\b": EXACT,
    r"(share|accuracy)\b|of full fine-tuning's gain": ((0.1, 0.0), (0.03, 0.0)),
    r"nats\b": ((0.02, 0.25), (0.02, 0.05)),
    r"(ratio|times|measured|of full|of NF4's)\b": ((0.0, 0.1), (0.0, 0.05)),
    r"(logit|output|activation|gradient|weight|level|norm|difference|relative|cosine)\b|$"
    r"|of the \w|.*\|\|W\|\|": ((1e-4, 0.5), (1e-4, 0.05)),
}
SEVERAL = 3  # runs
WIDEST = 100  # times a value, or 1: a tolerance beyond it is a slip, and would let everything pass
HIGHER_IS_BETTER = ("accuracy", "exact_match", "compliance")
LOWER_IS_BETTER = ("nats", "s", "ms", "bytes", "MiB", "GiB")
SAME, MOVED, OFF = "same", "within tolerance", "beyond tolerance"
UNJUDGED, NEW, MISSING = "not judged", "new", "missing"


def floor_of(unit: str, value: float, runs: int = 1) -> float | None:
    """Return the least tolerance of a metric, by ``KINDS``, if its scatter is known of so many runs."""
    kind = next((rule for start, rule in KINDS.items() if re.match(start, unit)), EXACT)
    if kind is None:
        return None
    least, part = kind[runs >= SEVERAL]
    return least + part * abs(value)


def finite(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


@dataclass
class Change:
    """One metric in a reference and in a run."""

    name: str  # of the metric
    unit: str  # as recorded
    before: float | None  # of the reference, None if it is missing there
    after: float | None  # of the run, None if it is missing there
    tolerance: float | None  # absolute; None if the metric is not judged
    verdict: str  # same, within tolerance, beyond tolerance, or what else is wrong

    @property
    def bad(self) -> bool:
        """Tell whether a run with this metric has failed."""
        return self.verdict not in (SAME, MOVED, UNJUDGED, NEW)

    @property
    def sentence(self) -> str:
        """Return what is wrong with it in one line."""
        if self.verdict != OFF:
            return f"{self.name}: {self.verdict}"
        before, after, limit = map(readable, (self.before, self.after, self.tolerance))
        return f"{self.name}: {before} → {after} {self.unit}, tolerance {limit}"

    @property
    def direction(self) -> str:
        """Return which way it moved, and what that means where its name or unit tells."""
        if not (finite(self.before) and finite(self.after)):
            return ""
        if self.before == self.after:
            return "="
        up = self.after > self.before
        arrow = "↑" if up else "↓"
        higher = any(word in self.name for word in HIGHER_IS_BETTER)
        if not higher and self.unit.split("/")[0] not in LOWER_IS_BETTER:
            return arrow
        return f"{arrow} {'better' if up == higher else 'worse'}"


def compare(before: dict[str, dict], after: dict[str, dict]) -> list[Change]:
    """Compare two sets of metrics, those that fail first; the first set carries the tolerances."""
    changes = [_compare_one(name, before.get(name), after.get(name)) for name in before | after]
    return sorted(changes, key=lambda one: not one.bad)


def _compare_one(name: str, old: dict | None, new: dict | None) -> Change:
    unit = (old or new)["unit"]
    was, now = (old or {}).get("value"), (new or {}).get("value")
    known = (old or {}).get("tolerance")
    tolerance = floor_of(unit, was) if known is None and finite(was) else known
    if new is None:
        verdict = MISSING
    elif not finite(now):
        verdict = f"is {now}, not a finite number"
    elif old is None:
        verdict = NEW
    elif old["unit"] != new["unit"]:
        verdict = f"recorded in {old['unit']}, now in {new['unit']}"
    elif was == now:
        verdict = SAME
    elif tolerance is None:
        verdict = UNJUDGED
    else:
        verdict = MOVED if abs(now - was) <= tolerance else OFF
    return Change(name, unit, was, now, tolerance, verdict)


def path_of(notebook: str, profile: str, folder: Path | None = None) -> Path:
    """Return where a notebook's baseline stands."""
    return (folder or data_dir() / "baselines") / f"{notebook}.{profile}.json"


def read(path: Path) -> dict:
    """Return a baseline's file, nothing in it if there is none.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        baseline = json.loads(path.read_text(encoding="utf-8"))
        for name, metric in baseline["metrics"].items():
            numbers = [metric["value"], metric.get("tolerance") or 0]
            good = all(map(finite, numbers)) and 0 <= numbers[1] <= WIDEST * max(1, abs(numbers[0]))
            if not (good and isinstance(metric["unit"], str)):
                raise ValueError(f"{name} is {metric}")
        if not finite(baseline.get("seconds", 0)):
            raise ValueError("its seconds are no number")
        *stem, profile = path.stem.split(".")
        named = {"notebook": ".".join(stem), "profile": profile}
        if other := {
            key: baseline[key] for key in named if baseline.get(key, named[key]) != named[key]
        }:
            raise ValueError(f"it is of another one: {other}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The baseline {path.name} is damaged ({error}): restore it with `git checkout`, or delete "
            "it, run the notebook and write it anew with `pefthelpers baseline`."
        ) from error
    return baseline


def judge(result: Result, baseline: dict, *, comparable: bool) -> list[Change]:
    """Set a passed result's status, drifts and notes by its baseline; of a failed one the notes alone.

    Args:
        result: of a run.
        baseline: as ``read`` gave it.
        comparable: False if the run had parameters of its own: it is held against nothing.

    Returns:
        Every metric of the two, those that fail the run first.
    """
    known = baseline["metrics"] if baseline and comparable else {}
    changes = compare(known, result.metrics)
    excused = MISSING if result.left_out or not result.good else ""
    bad = [one.sentence for one in changes if one.bad and one.verdict != excused]
    if not result.good:
        result.notes += bad
        return changes
    result.notes += [result.left_out] if result.left_out else []
    if baseline and comparable:
        result.notes += [f"{x.name}: not in the baseline" for x in changes if x.verdict == NEW]
        if result.metrics and not known:
            result.notes.append("metrics not compared: the baseline holds none")
    else:
        why = "parameters were changed" if baseline else "no baseline recorded"
        result.notes.append(f"metrics not compared: {why}")
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        result.status, result.reason, result.drifts = "drifted", bad[0] + more, bad
    return changes


def from_runs(runs: list[dict[str, dict]]) -> dict[str, dict]:
    """Return metrics with tolerances from several runs' metrics; the value is the first run's.

    The tolerance is twice the range of all, or the unit's own for that many runs, whichever is larger.

    Raises:
        UserError: a metric that not every run has, or that has no finite value.
    """
    metrics = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run.get(name, {}).get("value") for run in runs]
        if not all(finite(value) for value in values):
            raise UserError(f"The metric {name} has no finite value in every run: {values}.")
        spread = 2 * (max(values) - min(values))
        own = floor_of(runs[0][name]["unit"], values[0], len(runs))
        tolerance = None if own is None else float(f"{max(spread, own):.4g}")
        metrics[name] = {**runs[0][name], "tolerance": tolerance}
    return metrics


def keep_tolerances(path: Path, metrics: dict[str, dict]) -> None:
    """Give metrics of a new recording the old tolerances; where one has left it, its scatter is unknown again.

    Raises:
        UserError: the old baseline is damaged.
    """
    known = read(path).get("metrics", {})
    for name, metric in metrics.items():
        old = known.get(name, {})
        if "tolerance" in old and not _compare_one(name, old, metric).bad:
            metric["tolerance"] = old["tolerance"]


def write(path: Path, rows: list[dict], about: dict) -> None:
    """Write one notebook's baseline from its rows in several runs; other keys of the file stay.

    So do its times, if ``pefthelpers record`` measured them: it runs one notebook alone.

    Raises:
        UserError: the runs differ in their source, one of them failed, or the old file is damaged.
    """
    name = rows[0]["notebook"]
    if any(row["status"] not in ("passed", "drifted") for row in rows):
        raise UserError(f"{name} did not pass in every run: a baseline is made of good runs alone.")
    if len({row["source_hash"] for row in rows}) > 1:
        raise UserError(f"The runs are of different sources of {name}: run it again in each.")
    content = read(path)
    for key in ("seconds", "cpu_s"):
        content.setdefault(key, statistics.median(row[key] for row in rows))
    metrics = from_runs([row["metrics"] for row in rows])
    own = {"versions": rows[0]["versions"], "runs": len(rows), "metrics": metrics}
    results.write(path, content | {"notebook": name} | about | own)
