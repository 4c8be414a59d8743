"""Measure what the kitchen decoder can be taught, by which method, and what it forgets meanwhile.

    python -m studies.kitchen_gates           # runs what is not recorded; prints the tables
    python -m studies.kitchen_gates --check   # reads the record; exit 1 names each failed gate

About half an hour on one core. Each finished run is one row of ``data/results/kitchen_gates.json``;
rows of other weights than those in the checkout are dropped. Learning rates are chosen on the
validation split, on the first base with seed 0 alone, and kept for the other seeds and base.
"""

import argparse
import os
import statistics
import sys
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import peft
import torch
import transformers

from pefthelpers import kitchen, session
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.paths import data_dir, sha256
from pefthelpers.results import best
from pefthelpers.training import fit
from studies.engine import Run, Study, search_learning_rate
from studies.kitchen_tables import print_tables
from studies.kitchen_world import pretrain_decoder
from studies.kitchen_world.tasks import replay

BASES = ("decoder", "decoder_seed2")
SEEDS = (0, 1, 2)
TASKS = {"elicit": kitchen.elicit, "learn": kitchen.learn}
STEPS = {"elicit": 100, "learn": 200}
BATCH_SIZE = 16
VIRTUAL_TOKENS = 8
# method -> the learning rates that every search begins with, a factor of about three apart
RATES = {
    "prompt": (1e-2, 3e-2, 1e-1),
    "prefix": (1e-3, 3e-3, 1e-2),
    "lora": (2e-3, 5e-3, 1e-2),
    "full": (3e-4, 1e-3, 3e-3),
}
# How often a search goes on by a factor of three where the best rate is at the edge of those tried.
EXTENSIONS = 2
# The cells that must pass a gate of LEARN, and with replay keep the old facts.
WEIGHT_METHODS = [("learn", "lora"), ("learn", "full")]
SKILLS = ("facts", "cued", "tasks", "tasks_cued", "documents_loss")


class Gate(NamedTuple):
    """A figure, None where it is not recorded, and the bound it must keep."""

    name: str
    value: float | None
    side: str
    bound: float

    def passed(self) -> bool:
        """Tell whether the figure is recorded and keeps its bound."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.side == "least" else self.value <= self.bound

    def __str__(self) -> str:
        """Return verdict, name, figure and bound in one line."""
        value = "not recorded" if self.value is None else f"{self.value:.3f}"
        verdict = "pass" if self.passed() else "FAIL"
        return f"{verdict}  {self.name}: {value} (at {self.side} {self.bound:g})"


def ladder(rates: tuple[float, ...]) -> list[float]:
    """Return the rates with ``EXTENSIONS`` more on either side, each a factor of three further."""
    found = list(rates)
    for _ in range(EXTENSIONS):
        found = [float(f"{found[0] / 3:.0e}"), *found, float(f"{found[-1] * 3:.0e}")]
    return found


def weights(base: str) -> str:
    """Return the first digits of the weights' SHA-256: a row belongs to them."""
    path = data_dir() / "kitchen" / base / "model.safetensors"
    return sha256(path)[:12] if path.exists() else "missing"


def load(base: str):
    """Load model and tokenizer of a base, float32."""
    folder = data_dir() / "kitchen" / base
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def adapt(model, method: str, base: str):
    """Make a base trainable by a method: prompt and prefix of 8 virtual tokens, LoRA r = 8."""
    if method == "full":
        return model
    virtual = {"task_type": "CAUSAL_LM", "num_virtual_tokens": VIRTUAL_TOKENS}
    if method == "prompt":
        folder = str(data_dir() / "kitchen" / base)
        start = {"prompt_tuning_init": "SAMPLE_VOCAB", "tokenizer_name_or_path": folder}
        config = peft.PromptTuningConfig(**virtual, **start)
    elif method == "prefix":
        width = model.config.hidden_size
        config = peft.PrefixTuningConfig(
            **virtual, prefix_projection=True, encoder_hidden_size=width
        )
    else:
        config = peft.LoraConfig(
            task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear"
        )
    return peft.get_peft_model(model, config)


def measure(run: Run) -> dict[str, float]:
    """Fine-tune once; return the target's scores and what is left of the old skills."""
    task = TASKS[run.task](run.seed)
    model, tokenizer = load(run.base)
    torch.manual_seed(run.seed)
    model = adapt(model, run.method, run.base)
    options = {"learning_rate": run.learning_rate, "steps": STEPS[run.task], "seed": run.seed}
    if run.replay:
        old = replay(2000, run.seed, plain_facts=run.task != "elicit")
        options |= {"replay": old, "replay_per_batch": BATCH_SIZE // 2}
    fit(model, tokenizer, task.train, batch_size=BATCH_SIZE, **options)
    old_skills = kitchen.retention()
    row = {
        "steps": STEPS[run.task],
        "trainable_parameters": count_parameters(model)[0],
        "validation": exact_match(model, tokenizer, task.validation),
        "validation_loss": mean_loss(model, tokenizer, task.validation),
        "test": exact_match(model, tokenizer, task.test),
        "documents_loss": mean_loss(model, tokenizer, old_skills.pop("documents")),
    }
    row |= {name: exact_match(model, tokenizer, rows) for name, rows in old_skills.items()}
    return {name: round(value, 4) for name, value in row.items()}


class Record:
    """The recorded rows of the weights in the checkout."""

    def __init__(self) -> None:
        """Read them, and drop the rows of other weights."""
        self.study = Study(data_dir() / "results" / "kitchen_gates.json")
        self.weights = {base: weights(base) for base in BASES}
        rows = self.study.rows
        self.study.rows = [row for row in rows if row["weights"] == self.weights[row["base"]]]

    def base(self, base: str) -> list[dict]:
        """Return the row of an untouched base, if there is one."""
        return self.study.find(base=base, task="base")

    def at_rates(self, task: str, method: str, *, replay: bool = False) -> list[dict]:
        """Return the rows among which the learning rate is chosen: first base, seed 0."""
        key = {"task": task, "method": method, "replay": replay}
        rows = self.study.find(base=BASES[0], seed=0, **key)
        return sorted(rows, key=lambda row: row["learning_rate"])

    def chosen(self, base: str, task: str, method: str, *, replay: bool = False) -> list[dict]:
        """Return the rows of all seeds at the chosen learning rate; none before the choice."""
        searched = self.at_rates(task, method, replay=replay)
        if len(searched) < len(RATES[method]):
            return []
        rate = best(searched)["learning_rate"]
        key = {"task": task, "method": method, "replay": replay}
        return self.study.find(base=base, learning_rate=rate, **key)

    def run(self, *arguments) -> dict:
        """Return the row of a run, measured unless it is recorded."""
        run = Run(*arguments)
        return self.study.measure(
            lambda: measure(run), weights=self.weights[run.base], **run._asdict()
        )

    def run_base(self, base: str) -> None:
        """Measure an untouched base unless it is recorded."""
        measured = lambda: pretrain_decoder.measure(*load(base))
        self.study.measure(measured, weights=self.weights[base], base=base, task="base")

    def search(self, task: str, method: str, *, replay: bool = False) -> float:
        """Measure the learning rates, and further ones while the best is at the edge of those tried.

        Returns:
            The rate that does best on validation.
        """
        run = lambda rate: self.run(BASES[0], task, method, rate, 0, replay)
        first = range(EXTENSIONS, EXTENSIONS + len(RATES[method]))
        return search_learning_rate(run, ladder(RATES[method]), first)["learning_rate"]


def run_first_base(record: Record) -> None:
    """Measure the first base where it is not recorded: all that has a gate."""
    cells = [(task, method) for task in TASKS for method in RATES]
    record.run_base(BASES[0])
    for replay, chosen in ((False, cells), (True, WEIGHT_METHODS)):
        for task, method in chosen:
            rate = record.search(task, method, replay=replay)
            for seed in SEEDS:
                record.run(BASES[0], task, method, rate, seed, replay)


def run_retention(record: Record) -> None:
    """Measure the rest of the retention table: every cell with replay too."""
    for task in TASKS:
        for method in reversed(RATES):
            record.search(task, method, replay=True)


def run_second_base(record: Record) -> None:
    """Measure the second base where it is not recorded, at the rates chosen on the first."""
    record.run_base(BASES[1])
    for replay in (False, True):
        for task in reversed(TASKS):
            for method in reversed(RATES):
                if replay and (task, method) not in WEIGHT_METHODS:
                    continue
                rate = record.search(task, method, replay=replay)
                for seed in SEEDS:
                    record.run(BASES[1], task, method, rate, seed, replay)


def gate(record: Record, cell: tuple, side: str, bound: float, *, replay: bool = False) -> Gate:
    """Return the gate of a cell (base, task, method): the mean over its seeds, None if one lacks.

    With replay the figure is the share of old facts, else the target's.
    """
    rows = record.chosen(*cell, replay=replay)
    complete = {row["seed"] for row in rows} >= set(SEEDS)
    column = "facts" if replay else "test"
    value = statistics.mean(row[column] for row in rows) if complete else None
    what = " with replay, old facts" if replay else ""
    return Gate(f"{', '.join(cell)}{what}, n = {len(SEEDS)}", value, side, bound)


def gates(record: Record) -> list[Gate]:
    """Return every gate, on both bases."""
    found = []
    for base in BASES:
        row = (record.base(base) or [{}])[0]
        for name, (bound, side) in pretrain_decoder.GATES.items():
            found.append(Gate(f"{base}, untouched, {name}", row.get(name), side, bound))
        for method in RATES:
            found.append(gate(record, (base, "elicit", method), "least", 0.95))
        for method in RATES:
            learns = ("learn", method) in WEIGHT_METHODS
            side, bound = ("least", 0.90) if learns else ("most", 0.10)
            found.append(gate(record, (base, "learn", method), side, bound))
        for cell in WEIGHT_METHODS:
            found.append(gate(record, (base, *cell), "least", 0.95, replay=True))
    return found


def main() -> int:
    """Run, print, and return 1 if a gate failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="read the record, run nothing")
    check_only = parser.parse_args().check
    record = Record()
    if not check_only:
        torch.set_num_threads(1)
        session.quiet()
        run_first_base(record)
        if record.weights[BASES[1]] != "missing":
            run_second_base(record)
        run_retention(record)
    print_tables(record, bases=BASES, tasks=TASKS, methods=RATES, skills=SKILLS)
    verdicts = gates(record)
    print("", *verdicts, sep="\n")
    failed = [gate for gate in verdicts if not gate.passed()]
    print(f"\n{len(verdicts) - len(failed)} of {len(verdicts)} gates passed.")
    for gate in failed:
        print(gate, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
