"""Read the record of ``seq2seq_gates.py``: choose learning rates, check gates, write tables."""

import json
from functools import cache
from statistics import mean, stdev
from typing import NamedTuple

from pefthelpers.paths import data_dir, sha256
from studies.kitchen_world.summary_language import MASTERED

RECORD = data_dir() / "results" / "seq2seq_gates.json"
BASES = ("seq2seq", "seq2seq_seed2")
OLD_SKILLS = ("plain", "cued", "nonna", "facts", "tasks", "general_loss")


class Gate(NamedTuple):
    """A figure and the bound it must keep; ``value`` is None where nothing was measured."""

    name: str
    value: float | None
    bound: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        """Tell whether the figure was measured and keeps its bound."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        """Return one line: verdict, name, figure, bound."""
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        sign = ">=" if self.at_least else "<="
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {value} (must be {sign} {self.bound:g})"


@cache
def weights_of(base: str) -> str:
    """Return twelve digits that tell one pre-training from another."""
    return sha256(data_dir() / "kitchen" / base / "model.safetensors")[:12]


def read_rows() -> list[dict]:
    """Return the recorded rows that belong to the weights in the checkout."""
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.exists() else []
    return [row for row in rows if row["weights"] == weights_of(row["base"])]


def recorded(rows: list[dict], **wanted) -> list[dict]:
    """Return the rows with these values."""
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def best_rate(rows: list[dict], task: str, method: str, *, replay: bool = False) -> float:
    """Return the learning rate that did best on validation (ties: lower validation loss).

    Chosen on the first base with seed 0, and kept for the other seeds and the second base.
    """
    tried = recorded(rows, base=BASES[0], task=task, method=method, seed=0, replay=replay)
    return max(tried, key=lambda row: (row["validation"], -row["validation_loss"]))["learning_rate"]


def chosen(rows: list[dict], base: str, task: str, method: str, *, replay: bool = False) -> list:
    """Return the rows of every seed at the chosen learning rate; none if none was tried."""
    wanted = {"task": task, "method": method, "replay": replay}
    if not recorded(rows, base=BASES[0], seed=0, **wanted):
        return []
    rate = best_rate(rows, task, method, replay=replay)
    return recorded(rows, base=base, learning_rate=rate, **wanted)


def base_gates(rows: list[dict], base: str) -> list[Gate]:
    """Return the gates of a pre-trained base before any fine-tuning."""
    found = recorded(rows, base=base, task="base")
    if not found:
        return [Gate(f"{base}: base scores", None, 0)]
    row = found[0]
    cells = [name for name in row if name.endswith((" english", " italian"))]
    kinds = [f"task {kind}" for kind in MASTERED]
    gap = abs(row["greedy_cued"] - row["teacher_forced_cued"])
    return [
        *(Gate(f"{base}: {name}", row[name], 0.95) for name in (*cells, *kinds)),
        Gate(f"{base}: facts", row["facts"], 0.99),
        Gate(f"{base}: nonna uncued", row["nonna uncued"], 0.0, at_least=False),
        Gate(f"{base}: greedy against teacher-forced", gap, 0.0, at_least=False),
    ]


def tuning_gates(rows: list[dict], base: str) -> list[Gate]:
    """Return the gates of fine-tuning on one base: means over the seeds, three on the first."""

    def gate(task, method, bound, *, column="test", at_least=True, replay=False):
        found = chosen(rows, base, task, method, replay=replay)
        enough = len(found) >= (3 if base == BASES[0] else 1)
        values = [row[column] for row in found if column in row]
        value = mean(values) if enough and values else None
        what = f"{task}, {method}{' with replay' if replay else ''}, {column}"
        return Gate(f"{base}: {what}", value, bound, at_least)

    gates = [
        *(gate("elicit", m, 0.95) for m in ("prefix_projection", "lora")),
        *(gate("learn_facts", m, 0.90) for m in ("lora", "full")),
        gate("learn_facts", "prefix_projection", 0.30, at_least=False),
    ]
    if base != BASES[0]:
        return gates
    return [
        *gates,
        *(gate("elicit", m, 0.95) for m in ("prefix", "prompt", "full")),
        *(gate("elicit", m, 0.95, column="beams_100") for m in ("prefix", "prefix_projection")),
        *(gate("learn_facts", m, 0.30, at_least=False) for m in ("prefix", "prompt")),
        *(gate("learn_format", m, 0.90) for m in ("prefix", "prefix_projection")),
        *(gate("learn_facts", m, 0.95, column="facts", replay=True) for m in ("lora", "full")),
    ]


def all_gates(rows: list[dict]) -> list[Gate]:
    """Return every gate, both bases, and that decoding agrees with scoring in every run."""
    gaps = [abs(r["greedy_100"] - r["teacher_forced_100"]) for r in rows if "greedy_100" in r]
    gates = [gate for base in BASES for gate in base_gates(rows, base) + tuning_gates(rows, base)]
    name = "largest gap between greedy decoding and teacher-forced exact match"
    return [*gates, Gate(name, max(gaps, default=None), 0.0, at_least=False)]


def _spread(rows: list[dict], column: str) -> str:
    """Return mean ± standard deviation over the seeds that measured a column."""
    values = [row[column] for row in rows if column in row]
    if not values:
        return ""
    deviation = f"±{stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{deviation}"


def _row(rows: list[dict], *front: object) -> str:
    """Return one table line: ``front``, then target, old skills, CPU seconds, seeds."""
    columns = [_spread(rows, column) for column in ("test", *OLD_SKILLS)]
    seconds = f"{mean(row['cpu_s'] for row in rows):.0f}"
    cells = (*front, rows[0]["trainable"], *columns, seconds, len(rows))
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _header(*front: str) -> list[str]:
    """Return a table's first two lines."""
    names = (*front, "trainable", "target", *OLD_SKILLS, "CPU s", "seeds")
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def main_table(rows: list[dict], tasks, methods) -> list[str]:
    """Return the table of chosen learning rates: mean ± deviation over seeds, both bases."""
    lines = _header("task", "base", "method", "learning rate")
    for task in tasks:
        for base in BASES:
            for method in methods:
                for replay in (False, True):
                    if found := chosen(rows, base, task, method, replay=replay):
                        name = method + (" + replay" if replay else "")
                        rate = found[0]["learning_rate"]
                        lines.append(_row(found, task, base, name, rate))
    return lines


def retention_table(rows: list[dict], tasks, methods) -> list[str]:
    """Return what is left of the old skills at each learning rate tried, seed 0, first base."""
    lines = _header("task", "method", "replay", "learning rate")
    for task in tasks:
        for method in methods:
            wanted = {"base": BASES[0], "seed": 0, "task": task, "method": method}
            found = recorded(rows, **wanted)
            for row in sorted(found, key=lambda row: (row["replay"], row["learning_rate"])):
                replay = "half" if row["replay"] else "none"
                lines.append(_row([row], task, method, replay, row["learning_rate"]))
    return lines
