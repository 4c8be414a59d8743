"""Choose the laptop profile's settings for teaching SmolLM2-135M-Instruct the pizza style.

LoRA r = 8 on all linear layers, fp32, one thread, 36 steps of 4 examples. The learning rate is
chosen on the validation topics alone; it is then measured on the test topics, over three seeds,
with and without a quarter of general questions in each batch. Every run is one row of
data/results/laptop_style_study.json; rows already there are not run again. About 15 CPU minutes.

    pefthelpers fetch laptop
    python -m studies.laptop_style_study
"""

import re
import time

from peft import LoraConfig

from pefthelpers import data
from pefthelpers.measure import count_parameters, generate, mean_loss
from pefthelpers.training import fit
from studies import engine
from studies.engine import Cell

LADDER = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
CELL = Cell({"split": "validation", "replay_per_batch": 0}, LADDER, first=(2, 3, 4))
STEPS, BATCH_SIZE = 36, 4
SEEDS = (0, 1, 2)


def is_right(answer: str, question: data.Question) -> bool:
    """Tell whether an answer has one of the question's keywords as a whole word.

    A coarse check: a false sentence that mentions the word counts as right.
    """
    return any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE)
        for word in question.keywords
    )


def measure_style(model, tokenizer, examples) -> dict:
    """Return style compliance and loss on held-out pizza questions, with one answer to read."""
    start = time.process_time()
    chat = data.chat_examples(tokenizer, examples)
    texts = generate(model, tokenizer, chat, max_new_tokens=48, batch_size=60)
    return {
        "pizza_questions": len(examples),
        "style_share": sum(map(data.follows_style, texts)) / len(texts),
        "pizza_loss": mean_loss(model, tokenizer, chat, batch_size=60),
        "sample": {"question": examples[0].prompt, "answer": texts[0]},
        "style_cpu_s": round(time.process_time() - start, 1),
    }


def measure_general(model, tokenizer) -> dict:
    """Return right answers, leaked style and loss on the general questions."""
    start = time.process_time()
    questions = data.general_questions().measured[::2]
    chat = data.chat_examples(tokenizer, [question.example for question in questions])
    texts = generate(model, tokenizer, chat, max_new_tokens=24, batch_size=72)
    pairs = list(zip(texts, questions, strict=True))
    return {
        "general_questions": len(questions),
        "general_right": sum(is_right(*pair) for pair in pairs) / len(pairs),
        "general_leak": sum(map(data.leaks_style, texts)) / len(pairs),
        "general_loss": mean_loss(model, tokenizer, chat, batch_size=72),
        "general_sample": {"question": questions[0].prompt, "answer": texts[0]},
        "general_cpu_s": round(time.process_time() - start, 1),
    }


def measure_split(model, tokenizer, split: str) -> dict:
    """Return style on a split's pizza questions and, for the test, what is left of the rest."""
    task = data.pizza()
    if split == "test":
        return measure_style(model, tokenizer, task.test) | measure_general(model, tokenizer)
    # Half of the validation questions, five of each topic, are enough to choose by.
    row = measure_style(model, tokenizer, task.validation[::2])
    return row | {"validation": row["style_share"], "validation_loss": row["pizza_loss"]}


def run(split: str, learning_rate: float, seed: int = 0, replay_per_batch: int = 0) -> dict:
    """Train (at rate 0: leave the base as it is) and measure; return the figures."""
    config = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"
    )
    model, tokenizer = engine.tunable(config, profile="laptop", seed=seed, dtype="float32")
    row = {"steps": STEPS, "batch_size": BATCH_SIZE}
    row["trainable_parameters"] = count_parameters(model)[0]
    if learning_rate:
        start = time.process_time()
        losses = fit(
            model,
            tokenizer,
            data.chat_examples(tokenizer, data.pizza().train),
            learning_rate=learning_rate,
            steps=STEPS,
            batch_size=BATCH_SIZE,
            seed=seed,
            replay=data.chat_examples(tokenizer, data.general_questions().replay),
            replay_per_batch=replay_per_batch,
        )
        row["train_cpu_s"] = round(time.process_time() - start, 1)
        row["train_loss_last_quarter"] = sum(losses[-STEPS // 4 :]) / (STEPS // 4)
    return row | measure_split(model, tokenizer, split)


def main() -> None:
    """Run what the result file does not hold yet."""
    study = engine.start("laptop_style_study")
    for split in ("validation", "test"):
        study.one(run, {"split": split, "replay_per_batch": 0}, 0.0)
    (chosen,) = study.tune([CELL], run)
    for seed in SEEDS:
        for replay_per_batch in (0, BATCH_SIZE // 4):
            study.one(run, {"split": "test", "replay_per_batch": replay_per_batch}, chosen, seed)
    keys = [{"split": "test", "replay_per_batch": n} for n in (0, BATCH_SIZE // 4)]
    study.print_table([CELL, *(CELL._replace(key=key) for key in keys)], [chosen] * 3)


if __name__ == "__main__":
    main()
