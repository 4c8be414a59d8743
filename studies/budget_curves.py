"""How much more training does a small method need? Scores on LEARN against optimiser steps, for 02 and 07.

    python -m studies.budget_curves                  # the table below; about three CPU hours
    python -m studies.budget_curves 800 ln houlsby   # one budget, these cells

Resumable: a run is a row of ``data/results/budget_curves.json``. A cell is a method with its size. For each
budget of steps the learning rate is searched on validation with seed 0, from the rate that the longest
shorter budget in the record chose; the chosen rate runs on seeds 1 and 2 too. Each budget has a schedule of its own
(warm-up, then decay to 0 at its last step), so a curve's points are separate trainings, not stops of one.
Above ``LONG`` steps only the cells that had not come within ``FLAT`` of 1 before are trained: the others are
flat, there is nothing left to gain. Rows also say what is left of the old skills: old facts by exact match,
and the loss on old texts. float32, one thread.
"""

import statistics
import sys

from peft import LoraConfig

from pefthelpers import kitchen, methods
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.training import fit
from studies import engine
from studies.engine import Cell, Study

SEEDS = (0, 1, 2)
LONG, FLAT = 400, 0.03
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
FIRST = {
    "full": 5e-4,
    "lora q,v r=4": 1.6e-2,
    "lora q,v r=1": 1.6e-2,
    "lora all r=8": 4e-3,
    "lora mlp": 4e-3,
    "lora attention": 8e-3,
    "houlsby": 8e-3,
    "ln": 1.28e-1,
    "prompt": 1.28e-1,
    "prefix": 4e-3,
    "pfeiffer": 8e-3,
    "lora q,v r=16": 8e-3,
    "lora all r=1": 1.6e-2,
    "ia3": 2.56e-1,
}
# Steps, and the cells that had so many.
BUDGETS = {
    200: tuple(FIRST),
    800: tuple(FIRST),
    2000: (
        "prefix",
        "prompt",
        "ia3",
        "ln",
        "houlsby",
        "pfeiffer",
        "lora mlp",
        "lora q,v r=1",
        "lora q,v r=4",
    ),
    400: ("lora all r=8", "lora q,v r=4"),
    100: ("lora all r=8", "lora q,v r=4"),
}


def configuration(cell: str) -> object:
    """Return the configuration of a cell's method, None for full fine-tuning."""
    if cell not in LORA:
        return methods.config(cell, "decoder")
    targets, r = LORA[cell]
    return LoraConfig(task_type="CAUSAL_LM", r=r, lora_alpha=2 * r, target_modules=targets)


def measure(cell: str, steps: int, learning_rate: float, seed: int) -> dict:
    """Fine-tune once; return the method's size, the target's scores and what is kept."""
    data, old = kitchen.learn(seed), kitchen.retention()
    model, tokenizer = engine.tunable(configuration(cell), seed=seed)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=steps, seed=seed)
    row = {"trainable_parameters": count_parameters(model)[0]}
    for split in ("validation", "test"):
        examples = getattr(data, split)
        row[split] = exact_match(model, tokenizer, examples)
        row[f"{split}_loss"] = mean_loss(model, tokenizer, examples)
    row["facts"] = exact_match(model, tokenizer, old["facts"])
    row["general_loss"] = mean_loss(model, tokenizer, old["documents"])
    return {name: round(value, 5) for name, value in row.items()}


def run_cell(study: Study, cell: str, steps: int) -> None:
    """Measure a cell at one budget, unless a shorter one already was flat near 1."""
    shorter = [row for row in study.find(cell=cell) if row["steps"] < steps and row["seed"]]
    longest = max((row["steps"] for row in shorter), default=0)
    last = [row for row in shorter if row["steps"] == longest]
    if steps > LONG and last and statistics.mean(row["test"] for row in last) > 1 - FLAT:
        return
    begin = last[0]["learning_rate"] if last else FIRST[cell]
    position = min(range(len(LADDER)), key=lambda p: abs(LADDER[p] - begin))
    table = Cell({"cell": cell, "steps": steps}, LADDER, (position,))
    study.print_table([table], study.tune([table], measure, SEEDS))


def main() -> None:
    """Run what is not in the record yet."""
    study, asked = engine.start("budget_curves"), sys.argv[1:]
    for steps in map(int, asked[:1]) if asked else BUDGETS:
        for cell in asked[1:] or BUDGETS.get(steps, FIRST):
            run_cell(study, cell, steps)


if __name__ == "__main__":
    main()
