"""Choose the laptop profile's settings for teaching SmolLM2-135M-Instruct the pizza style.

LoRA r = 8 on all linear layers, fp32, one thread. Learning rate, steps and batch size are chosen on
the validation topics alone; the chosen settings are then measured on the test topics, over three
seeds, with and without a quarter of general questions in each batch. Every run is one row of
data/results/laptop_style_study.json; rows already there are not run again.

    pefthelpers fetch laptop
    python data/scripts/laptop_style_study.py
"""

import json
import os
import platform
import time
from datetime import date
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import LoraConfig, get_peft_model

from pefthelpers import datasets, fetch, models
from pefthelpers.measure import answers, count_parameters, mean_loss
from pefthelpers.paths import atomic_path, data_dir
from pefthelpers.training import fit

RESULT = data_dir() / "results" / "laptop_style_study.json"
# (learning rate, steps, batch size)
GRID = [(2e-3, 36, 4), (1e-3, 36, 4), (4e-3, 36, 4)]
SEEDS = (0, 1, 2)


def lora(seed: int):
    """Return (SmolLM2 with a fresh LoRA on every linear layer, tokenizer)."""
    model, tokenizer = models.load("decoder", "laptop", dtype="float32")
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"
    )
    return get_peft_model(model, config), tokenizer


def measure_style(model, tokenizer, examples) -> dict:
    """Return style compliance and loss on held-out pizza questions, with one answer to read."""
    start = time.process_time()
    chat = datasets.chat_examples(tokenizer, examples)
    texts = answers(model, tokenizer, chat, max_new_tokens=48, batch_size=60)
    return {
        "pizza_questions": len(examples),
        "style_share": sum(map(datasets.follows_style, texts)) / len(texts),
        "pizza_loss": mean_loss(model, tokenizer, chat, batch_size=60),
        "sample": {"question": examples[0].prompt, "answer": texts[0]},
        "style_cpu_s": round(time.process_time() - start, 1),
    }


def measure_general(model, tokenizer) -> dict:
    """Return right answers, leaked style and loss on the general questions."""
    start = time.process_time()
    questions = datasets.general_questions().measured[::2]
    chat = datasets.chat_examples(tokenizer, [question.example for question in questions])
    texts = answers(model, tokenizer, chat, max_new_tokens=24, batch_size=72)
    pairs = list(zip(texts, questions, strict=True))
    return {
        "general_questions": len(questions),
        "general_right": sum(datasets.is_right(*pair) for pair in pairs) / len(pairs),
        "general_leak": sum(map(datasets.leaks_style, texts)) / len(pairs),
        "general_loss": mean_loss(model, tokenizer, chat, batch_size=72),
        "general_sample": {"question": questions[0].prompt, "answer": texts[0]},
        "general_cpu_s": round(time.process_time() - start, 1),
    }


def run(split: str, *, learning_rate=0.0, steps=0, batch_size=4, seed=0, replay_per_batch=0):
    """Train (unless ``steps`` is 0: the base) and measure; return one row."""
    model, tokenizer = lora(seed)
    task = datasets.pizza()
    row = {"trainable_parameters": count_parameters(model)[0]}
    if steps:
        start = time.process_time()
        losses = fit(
            model,
            tokenizer,
            datasets.chat_examples(tokenizer, task.train),
            learning_rate=learning_rate,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            replay=datasets.chat_examples(tokenizer, datasets.general_questions().replay),
            replay_per_batch=replay_per_batch,
        )
        row |= {
            "train_cpu_s": round(time.process_time() - start, 1),
            "train_loss_last_quarter": sum(losses[-steps // 4 :]) / len(losses[-steps // 4 :]),
        }
    # Half of the validation questions, five of each topic, are enough to choose by.
    examples = task.test if split == "test" else task.validation[::2]
    row |= measure_style(model, tokenizer, examples)
    return row | (measure_general(model, tokenizer) if split == "test" else {})


def best(rows: list[dict]) -> dict:
    """Return the settings with most style on validation; of equals the lowest pizza loss."""
    tried = [row for row in rows if row["split"] == "validation" and row["settings"]["steps"]]
    chosen = min(tried, key=lambda row: (-row["style_share"], row["pizza_loss"]))
    return {name: chosen["settings"][name] for name in ("learning_rate", "steps", "batch_size")}


def environment() -> dict:
    """Return what the figures depend on."""
    manifest = json.loads((fetch.laptop_model_dir() / "manifest.json").read_text())
    return {
        "model": manifest["model"],
        "origin": manifest["origin"],
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": {n: version(n) for n in ("torch", "transformers", "peft", "pefthelpers")},
    }


def main() -> None:
    """Run what the result file does not hold yet, and print each row."""
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else []

    def add(split: str, **settings) -> None:
        if any(row["split"] == split and row["settings"] == settings for row in rows):
            return
        row = {"split": split, "settings": settings, **run(split, **settings)}
        rows.append(row | {"date": date.today().isoformat()})
        text = json.dumps(
            {"environment": environment(), "rows": rows}, indent=1, ensure_ascii=False
        )
        with atomic_path(RESULT) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(json.dumps(row, ensure_ascii=False), flush=True)

    add("validation", steps=0)
    add("test", steps=0)
    for learning_rate, steps, batch_size in GRID:
        add("validation", learning_rate=learning_rate, steps=steps, batch_size=batch_size)
    chosen = best(rows)
    for seed in SEEDS:
        for replay_per_batch in (0, chosen["batch_size"] // 4):
            add("test", **chosen, seed=seed, replay_per_batch=replay_per_batch)


if __name__ == "__main__":
    main()
