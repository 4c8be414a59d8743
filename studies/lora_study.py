"""Which matrices and which rank? LoRA on the kitchen decoder's two tasks, for notebook 02.

Run: python -m studies.lora_study     (resumable; about 12 CPU minutes)

For each task, each set of target modules and each rank: three learning rates on seed 0, and further ones while
the best on validation is at the edge of those tried; that one again on seeds 1 and 2. alpha = 2 r
everywhere. Test figures are read at the chosen rate only.
"""

import itertools

from peft import LoraConfig

from pefthelpers import kitchen
from pefthelpers.measure import count_parameters, exact_match
from pefthelpers.training import fit
from studies import engine
from studies.engine import Cell

TARGETS = {
    "q, v": ["q_proj", "v_proj"],
    "all linear": "all-linear",
}
RANKS = (1, 4, 16)
LADDER = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
TASKS = {"learn": kitchen.learn, "elicit": kitchen.elicit}
STEPS = {"learn": 300, "elicit": 100}
CELLS = [
    Cell({"task": task, "targets": targets, "r": r}, LADDER, first=(2, 3, 4))
    for task, r, targets in itertools.product(TASKS, RANKS, TARGETS)
]


def measure(task: str, targets: str, r: int, learning_rate: float, seed: int) -> dict:
    """Train one adapter; return parameters, validation and test exact match."""
    data, steps = TASKS[task](seed), STEPS[task]
    config = LoraConfig(
        task_type="CAUSAL_LM", r=r, lora_alpha=2 * r, target_modules=TARGETS[targets]
    )
    model, tokenizer = engine.tunable(config, seed=seed)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=steps, seed=seed)
    return {
        "steps": steps,
        "trainable_parameters": count_parameters(model)[0],
        "validation": exact_match(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
    }


if __name__ == "__main__":
    engine.run_study("lora_study", CELLS, measure, seeds=(1, 2))
