"""Choose the learning rate of a text-initialised prefix on SmolLM2-135M-Instruct, the pizza style.

The prefix starts as the keys and values of a system message that asks for the style; what the
untrained prefix does is the row of rate 0. fp32, one thread, steps, batches and measures as in
laptop_style_study.py. The rate is chosen on the validation topics, then measured on the test topics
over three orders of the examples. One row a run in data/results/laptop_prefix_study.json; rows
already there are not run again. About 10 CPU minutes.

    pefthelpers fetch laptop
    python -m studies.laptop_prefix_study
"""

from peft import PrefixTuningConfig, get_peft_model, initialize_kv_prefix_from_text

from pefthelpers import data, measure, models
from pefthelpers.tasks import PIZZA_INSTRUCTION
from pefthelpers.training import fit
from studies import engine
from studies.engine import Cell
from studies.laptop_style_study import BATCH_SIZE, SEEDS, STEPS, measure_split

CELL = Cell({"split": "validation"}, (1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2), first=(2, 3))


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
    study = engine.start("laptop_prefix_study")
    (chosen,) = study.tune([CELL], run)
    for split in ("validation", "test"):  # the text itself, untrained
        study.one(run, {"split": split}, 0.0)
    for seed in SEEDS:
        study.one(run, {"split": "test"}, chosen, seed)
    study.print_table([CELL, CELL._replace(key={"split": "test"})], [chosen, chosen])


if __name__ == "__main__":
    main()
