"""How much more training does a small method need? Scores on LEARN against optimiser steps.

Run: python -m studies.budget_curves    (resumable; about five CPU hours in all)

A cell is a method with its size. For each cell and each budget of steps the learning rate is searched on
validation with seed 0, on a ladder of factors of two: of the rates within ``TIE`` of the best one's score
the lowest is taken, and the search goes on while that rate or the best one is at the edge of those tried.
The chosen rate runs on seeds 1 and 2 too. Each budget has a schedule of its own (warm-up, then decay to 0
at its last step), so a curve's points are separate trainings, not stops of one. Rows also say what is left
of the old skills: old facts by exact match, and the loss on old texts.
"""

import argparse
import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peft import LoraConfig, get_peft_model

from pefthelpers import kitchen, methods, models, session
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.paths import data_dir
from pefthelpers.training import fit
from studies.engine import Study

BUDGETS = (100, 200, 400, 800, 2000)
SEEDS = (0, 1, 2)
TIE = 0.02  # of validation's share: 3 of 144 answers
LOSS_TIE = 0.05  # nats, where no answer is right yet
LADDER = tuple(2.0**k * 1e-3 for k in range(-6, 11))  # 1.6e-5 to 1.02
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
# LoRA by target modules and rank. r = 10 on attention trains 51,200 numbers, r = 6 on the MLP 50,688.
LORA = {
    "lora all r=1": ("all-linear", 1),
    "lora all r=8": ("all-linear", 8),
    "lora attention": (ATTENTION, 10),
    "lora mlp": (MLP, 6),
    "lora q,v r=1": (["q_proj", "v_proj"], 1),
    "lora q,v r=4": (["q_proj", "v_proj"], 4),
    "lora q,v r=16": (["q_proj", "v_proj"], 16),
}
# Where a cell's first search begins: a learning rate of the ladder.
FIRST = {"full": 5e-4} | dict.fromkeys(LORA, 4e-3)
FIRST |= {"houlsby": 8e-3, "pfeiffer": 8e-3, "ln": 1.28e-1, "ia3": 2.56e-1}
FIRST |= {"prefix": 4e-3, "prompt": 1.28e-1}


def adapted(cell: str, seed: int):
    """Return (model ready to train, tokenizer) of a cell; ``seed`` draws its initial weights."""
    model, tokenizer = models.load("decoder")
    torch.manual_seed(seed)
    if cell in LORA:
        targets, r = LORA[cell]
        config = LoraConfig(task_type="CAUSAL_LM", r=r, lora_alpha=2 * r, target_modules=targets)
    else:
        config = methods.config(cell, "decoder")
    return (get_peft_model(model, config) if config else model), tokenizer


def one_run(cell: str, steps: int, learning_rate: float, seed: int) -> dict:
    """Fine-tune once; return the method's size, the target's scores and what is kept."""
    data, old = kitchen.learn(seed), kitchen.retention()
    model, tokenizer = adapted(cell, seed)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=steps, seed=seed)
    row = {"trainable_parameters": count_parameters(model)[0]}
    for split in ("validation", "test"):
        examples = getattr(data, split)
        row[split] = exact_match(model, tokenizer, examples)
        row[f"{split}_loss"] = mean_loss(model, tokenizer, examples)
    row["facts"] = exact_match(model, tokenizer, old["facts"])
    row["general_loss"] = mean_loss(model, tokenizer, old["documents"])
    return {name: round(value, 5) for name, value in row.items()}


def mildest(rows: list[dict]) -> dict:
    """Return the row of the lowest rate that validation cannot tell from the best.

    Scores are compared where some answer is right, losses where none is.
    """
    best = max(row["validation"] for row in rows)
    if best > TIE:
        tied = [row for row in rows if row["validation"] >= best - TIE]
    else:
        lowest = min(row["validation_loss"] for row in rows)
        tied = [row for row in rows if row["validation_loss"] <= lowest + LOSS_TIE]
    return min(tied, key=lambda row: row["learning_rate"])


def search(measure: Callable[[float], dict], first: int) -> int:
    """Return the ladder's position of the mildest rate, inside of those tried on both sides."""
    tried = {position: measure(LADDER[position]) for position in (first - 1, first)}
    score = lambda row: (row["validation"], -row["validation_loss"])
    while True:
        chosen = mildest(list(tried.values()))["learning_rate"]
        low = next(p for p in tried if tried[p]["learning_rate"] == chosen)
        high = max(tried, key=lambda position: score(tried[position]))
        wanted = {low - 1, high + 1} & set(range(len(LADDER))) - set(tried)
        if not wanted:
            return low
        tried |= {position: measure(LADDER[position]) for position in sorted(wanted)}


def run_cell(study: Study, cell: str) -> None:
    """Measure a cell at every budget; a budget's search begins where the last one ended."""
    position = min(range(len(LADDER)), key=lambda p: abs(LADDER[p] - FIRST[cell]))
    for steps in BUDGETS:

        def measure(rate: float, seed: int = 0, steps: int = steps) -> dict:
            key = {"cell": cell, "steps": steps, "learning_rate": rate, "seed": seed}
            return study.measure(lambda: one_run(cell, steps, rate, seed), **key)

        position = search(measure, position)
        for seed in SEEDS[1:]:
            measure(LADDER[position], seed)


def main() -> None:
    """Run what is not in the record yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="*", default=list(FIRST), choices=list(FIRST))
    parser.add_argument("--record", default="budget_curves", help="file under data/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    session.quiet()
    study = Study(data_dir() / "results" / f"{options.record}.json")
    for cell in options.cells:
        run_cell(study, cell)


if __name__ == "__main__":
    main()
