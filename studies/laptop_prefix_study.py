"""Choose the learning rate of a text-initialised prefix on SmolLM2-135M-Instruct, the pizza style.

The prefix starts as the keys and values of a system message that asks for the style; what the
untrained prefix does is the row of rate 0. fp32, one thread, steps, batches and measures as in
laptop_style_study.py. The rate is chosen on the validation topics, then measured on the test topics
over three orders of the examples. One row a run in data/results/laptop_prefix_study.json; rows
already there are not run again. About 10 CPU minutes.

    pefthelpers fetch laptop
    python -m studies.laptop_prefix_study
"""

import torch
from peft import PrefixTuningConfig, get_peft_model, initialize_kv_prefix_from_text

from pefthelpers import data, measure, models, session
from pefthelpers.paths import data_dir
from pefthelpers.tasks import PIZZA_INSTRUCTION
from pefthelpers.training import fit
from studies.engine import Study, search_learning_rate
from studies.laptop_style_study import BATCH_SIZE, SEEDS, STEPS, measure_split

LADDER = (1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2)
FIRST = (2, 3)  # where the search begins: positions on the ladder


def with_text_prefix():
    """Return (SmolLM2 with a prefix that is a system message, tokenizer)."""
    model, tokenizer = models.load("decoder", "laptop", dtype="float32")
    message = [{"role": "system", "content": PIZZA_INSTRUCTION}]
    tokens = len(tokenizer.apply_chat_template(message, return_dict=False))
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=tokens)
    model = get_peft_model(model, config)
    initialize_kv_prefix_from_text(model, tokenizer, text=PIZZA_INSTRUCTION)
    return model, tokenizer


def run(split: str, learning_rate: float, seed: int) -> dict:
    """Train (at rate 0: leave the text as it is) and measure; return the figures."""
    model, tokenizer = with_text_prefix()
    row = {"steps": STEPS, "trainable_parameters": measure.count_parameters(model)[0]}
    if learning_rate:
        examples = data.chat_examples(tokenizer, data.pizza().train)
        options = {"steps": STEPS, "batch_size": BATCH_SIZE, "seed": seed}
        fit(model, tokenizer, examples, learning_rate=learning_rate, **options)
    return row | measure_split(model, tokenizer, split)


def main() -> None:
    """Run what the result file does not hold yet."""
    torch.set_num_threads(1)
    session.quiet()
    study = Study(data_dir() / "results" / "laptop_prefix_study.json")
    key = lambda split, rate, seed: {"split": split, "learning_rate": rate, "seed": seed}
    recorded = lambda *run_of: study.measure(lambda: run(*run_of), **key(*run_of))
    better = lambda row: (row["style_share"], -row["pizza_loss"])
    chosen = search_learning_rate(
        lambda rate: recorded("validation", rate, 0), LADDER, FIRST, key=better
    )
    for run_of in (("validation", 0.0, 0), ("test", 0.0, 0)):  # the text itself, untrained
        recorded(*run_of)
    for seed in SEEDS:
        recorded("test", chosen["learning_rate"], seed)


if __name__ == "__main__":
    main()
