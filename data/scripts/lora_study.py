"""Which matrices and which rank? LoRA on the kitchen decoder, ELICIT and LEARN, for notebook 02.

Run: python data/scripts/lora_study.py     (resumable; about 25 CPU minutes)

For each set of target modules and each rank: three learning rates on seed 0, the best on
validation again on seeds 1 and 2. alpha = 2 r everywhere. Test figures are read at that rate only.
"""

import torch
from peft import LoraConfig, get_peft_model

from pefthelpers import kitchen, models, session
from pefthelpers.measure import count_parameters, exact_match
from pefthelpers.paths import data_dir
from pefthelpers.study import Study, best
from pefthelpers.training import fit

TARGETS = {
    "q, v": ["q_proj", "v_proj"],
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "MLP": ["gate_proj", "up_proj", "down_proj"],
    "all linear": "all-linear",
}
RANKS = (1, 4, 16)
LEARNING_RATES = (2e-3, 5e-3, 1e-2, 2e-2)
STEPS = {"elicit": 100, "learn": 300}
TASKS = {"elicit": kitchen.elicit, "learn": kitchen.learn}


def one_run(task: str, targets: str, r: int, learning_rate: float, seed: int) -> dict:
    """Train one adapter; return parameters, validation and test exact match."""
    data = TASKS[task](seed)
    model, tokenizer = models.load("decoder")
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=r, lora_alpha=2 * r, target_modules=TARGETS[targets]
    )
    model = get_peft_model(model, config)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=STEPS[task], seed=seed)
    return {
        "steps": STEPS[task],
        "trainable_parameters": count_parameters(model)[0],
        "validation": exact_match(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
    }


def main() -> None:
    """Run what is not in the record yet."""
    torch.set_num_threads(1)
    session.quiet()
    study = Study(data_dir() / "results" / "lora_study.json")
    cells = [(task, targets, r) for task in TASKS for targets in TARGETS for r in RANKS]

    def measure(cell, learning_rate, seed):
        task, targets, r = cell
        key = {"task": task, "targets": targets, "r": r}
        return study.measure(
            lambda: one_run(task, targets, r, learning_rate, seed),
            **key,
            learning_rate=learning_rate,
            seed=seed,
        )

    for cell in cells:
        searched = [measure(cell, rate, 0) for rate in LEARNING_RATES]
        for seed in (1, 2):
            measure(cell, best(searched)["learning_rate"], seed)


if __name__ == "__main__":
    main()
