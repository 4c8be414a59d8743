"""Which matrices and which rank? LoRA on the kitchen decoder's two tasks, for notebook 02.

Run: python -m studies.lora_study     (resumable; about 12 CPU minutes)

For each task, each set of target modules and each rank: three learning rates on seed 0, and further ones while
the best on validation is at the edge of those tried; that one again on seeds 1 and 2. alpha = 2 r
everywhere. Test figures are read at the chosen rate only.
"""

import itertools

import torch
from peft import LoraConfig, get_peft_model

from pefthelpers import kitchen, models, session
from pefthelpers.measure import count_parameters, exact_match
from pefthelpers.paths import data_dir
from pefthelpers.training import fit
from studies.engine import Study, search_learning_rate

TARGETS = {
    "q, v": ["q_proj", "v_proj"],
    "all linear": "all-linear",
}
RANKS = (1, 4, 16)
LADDER = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
FIRST = (2, 3, 4)  # where the search begins: positions on the ladder
TASKS = {"learn": kitchen.learn, "elicit": kitchen.elicit}
STEPS = {"learn": 300, "elicit": 100}


def one_run(task: str, targets: str, r: int, learning_rate: float, seed: int) -> dict:
    """Train one adapter; return parameters, validation and test exact match."""
    data, steps = TASKS[task](seed), STEPS[task]
    model, tokenizer = models.load("decoder")
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=r, lora_alpha=2 * r, target_modules=TARGETS[targets]
    )
    model = get_peft_model(model, config)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=steps, seed=seed)
    return {
        "steps": steps,
        "trainable_parameters": count_parameters(model)[0],
        "validation": exact_match(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
    }


def main() -> None:
    """Run what is not in the record yet."""
    torch.set_num_threads(1)
    session.quiet()
    study = Study(data_dir() / "results" / "lora_study.json")
    for task, r, targets in itertools.product(TASKS, RANKS, TARGETS):

        def measure(learning_rate, seed=0, cell=(task, targets, r)):
            key = dict(zip(("task", "targets", "r"), cell, strict=True))
            run = lambda: one_run(*cell, learning_rate, seed)
            return study.measure(run, **key, learning_rate=learning_rate, seed=seed)

        chosen = search_learning_rate(measure, LADDER, FIRST)
        for seed in (1, 2):
            measure(chosen["learning_rate"], seed)


if __name__ == "__main__":
    main()
