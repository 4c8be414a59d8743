"""QLoRA against LoRA against full fine-tuning, for notebook 06: learning rates searched, 3 seeds.

    pefthelpers fetch laptop
    python -m studies.qlora_study smollm2     # the pizza style; about 40 CPU minutes
    python -m studies.qlora_study kitchen     # ELICIT and LEARN; about 25 CPU minutes

Resumable: a run is a row of ``data/results/qlora_smollm2.json`` or ``qlora_kitchen.json``; rows that
are there are not run again. Each arm climbs a ladder of learning rates on seed 0 by validation, then
runs the chosen one on two more seeds; test figures are read at the chosen rate alone. 4-bit bases are
NF4 with double quantisation. Everything is computed in float32 on one thread, so that the bases
differ in nothing but the rounding of their weights. Seconds are process time, training alone.
"""

import functools
import sys
import time
from typing import NamedTuple

import torch
from peft import LoraConfig

from pefthelpers import data, kitchen
from pefthelpers.measure import count_parameters, exact_match, generate, mean_loss
from pefthelpers.training import collate, encode, fit
from peftmemory.tracing.live import LiveStorages
from peftmemory.tracing.step import create_states, name_model
from studies import engine
from studies.engine import Cell, Study
from studies.memory_measure import quantisation_tensors


class Arm(NamedTuple):
    """A method: which base, and the adapter's rank and alpha (0: train everything)."""

    four_bit: bool = False
    r: int = 0
    alpha: int = 0


ARMS = {
    "QLoRA r=64 alpha=16": Arm(True, 64, 16),  # the article's, and Dettmers et al.'s
    "LoRA r=8 alpha=16": Arm(False, 8, 16),
    "QLoRA r=8 alpha=16": Arm(True, 8, 16),
    "full": Arm(),
    "QLoRA r=64 alpha=128": Arm(True, 64, 128),
    "LoRA r=64 alpha=16": Arm(False, 64, 16),
}
SEEDS = (0, 1, 2)
ADAPTER_LADDER = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
FULL_LADDER = (1e-5, 2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)
# Where the search begins: positions on the ladder. It goes on while the best is at an edge.
FIRST = {"smollm2": {"adapter": (3,), "full": (4,)}, "kitchen": {"adapter": (4,), "full": (7,)}}
# SmolLM2: 24 steps of 4 short questions, for the price; 02's laptop run takes 36.
STEPS = {"pizza": 24, "elicit": 100, "learn": 200}
BATCH = {"pizza": 4, "elicit": 16, "learn": 16}


def build(profile: str, arm: Arm, seed: int):
    """Return (model ready to train, tokenizer)."""
    config = LoraConfig(
        task_type="CAUSAL_LM", r=arm.r, lora_alpha=arm.alpha, target_modules="all-linear"
    )
    loading = {"dtype": "float32", "four_bit": arm.four_bit, "double_quant": arm.four_bit}
    return engine.tunable(config if arm.r else None, profile=profile, seed=seed, **loading)


def train(model, tokenizer, examples, task: str, learning_rate: float, seed: int, fit=fit) -> dict:
    """Train; return the loss of the last quarter of the steps and CPU seconds a step."""
    start = time.process_time()
    losses = fit(
        model,
        tokenizer,
        examples,
        learning_rate=learning_rate,
        steps=STEPS[task],
        batch_size=BATCH[task],
        seed=seed,
    )
    last = losses[-len(losses) // 4 :]
    return {
        "steps": STEPS[task],
        "batch_size": BATCH[task],
        "trainable_parameters": count_parameters(model)[0],
        "train_loss": sum(last) / len(last),
        "step_cpu_s": round((time.process_time() - start) / STEPS[task], 4),
    }


def pizza_scores(
    model, tokenizer, learning_rate: float, seed: int, *, fit=fit, answers: bool = True
) -> dict:
    """Train on the pizza card (at rate 0: do not) and measure target and retention.

    Half of the validation, test and general questions are used. ``fit`` trains, as ``training.fit`` does;
    without ``answers`` none is generated, which takes a third of the time.
    """
    chat = lambda examples: data.chat_examples(tokenizer, examples[::2])
    task = data.pizza()
    train_examples = data.chat_examples(tokenizer, task.train)
    row = (
        train(model, tokenizer, train_examples, "pizza", learning_rate, seed, fit)
        if learning_rate
        else {"steps": 0}
    )
    test, general = chat(task.test), data.general_questions().measured
    if answers:
        texts = generate(model, tokenizer, test, max_new_tokens=48, batch_size=30)
        row |= {
            "test_style": sum(map(data.follows_style, texts)) / len(texts),
            "sample": texts[0],
        }
    loss = mean_loss(model, tokenizer, chat(task.validation), batch_size=30)
    return row | {
        "validation": -loss,
        "validation_loss": loss,
        "test_loss": mean_loss(model, tokenizer, test, batch_size=30),
        "test_questions": len(test),
        "general_loss": mean_loss(
            model, tokenizer, chat([q.example for q in general]), batch_size=36
        ),
    }


def measure(
    task: str, arm: str, learning_rate: float, seed: int, four_bit: bool, r: int, alpha: int
) -> dict:
    """Teach a task by an arm's method; return exact match on the kitchen's, and the losses."""
    made = Arm(four_bit, r, alpha)
    if task == "pizza":
        return pizza_scores(*build("laptop", made, seed), learning_rate, seed)
    examples = {"elicit": kitchen.elicit, "learn": kitchen.learn}[task](seed)
    model, tokenizer = build("tiny", made, seed)
    row = train(model, tokenizer, examples.train, task, learning_rate, seed)
    return row | {
        "validation": exact_match(model, tokenizer, examples.validation),
        "validation_loss": mean_loss(model, tokenizer, examples.validation),
        "test": exact_match(model, tokenizer, examples.test),
        "test_loss": mean_loss(model, tokenizer, examples.test),
        "general_loss": mean_loss(model, tokenizer, kitchen.retention()["documents"]),
    }


def bytes_by_kind(profile: str, arm: Arm, examples: int = 4) -> dict:
    """Count every live tensor of one training step in its steady state, by kind, at its peak."""
    model, tokenizer = build(profile, arm, 0)
    task = data.pizza() if profile == "laptop" else kitchen.elicit(0)
    chosen = task.train[:examples]
    if profile == "laptop":
        chosen = data.chat_examples(tokenizer, chosen)
    batch = collate(tokenizer, encode(tokenizer, chosen))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    model.train()
    live = LiveStorages(
        vocab_size=model.config.vocab_size, tokens=batch["input_ids"].numel() - examples
    )
    with live:
        name_model(model, live)
        for parameter in model.parameters():
            constants = quantisation_tensors(getattr(parameter, "quant_state", None))
            live.name(constants, "quantisation_constants")
        create_states(optimizer, trained, live)
        one_step(model, optimizer, batch, live)
    moment, kinds = max(live.peaks.items(), key=lambda item: sum(item[1].values()))
    return {
        "tokens": batch["input_ids"].numel(),
        "moment": moment,
        "bytes": {kind: size for kind, size in kinds.items() if size},
        "peak_bytes": sum(kinds.values()),
    }


def one_step(model, optimizer, batch, live: LiveStorages) -> None:
    """Run one training step; each phase is announced to the counter."""
    live.enter("forward")
    loss = model(**batch).loss
    live.enter("backward")
    loss.backward()
    live.enter("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def cells(task: str, names: list[str], first: dict[str, tuple[int, ...]]) -> list[Cell]:
    """Return the table of a task: its arms, each with the ladder of its kind."""
    found = []
    for name in names:
        key = {"task": task, "arm": name, **ARMS[name]._asdict()}
        adapter = bool(ARMS[name].r)
        ladder = ADAPTER_LADDER if adapter else FULL_LADDER
        found.append(Cell(key, ladder, first["adapter" if adapter else "full"]))
    return found


def smollm2(study: Study) -> None:
    """Run the real model's part; two arms of rank 64 train in the kitchen alone, for the price."""
    for four_bit in (False, True):
        base = functools.partial(build, "laptop", Arm(four_bit), 0)
        key = {"task": "pizza", "arm": "base", "four_bit": four_bit}
        study.measure(lambda base=base: pizza_scores(*base(), 0.0, 0), **key)
    names = list(ARMS)[:-1]
    for name in names:
        traced = functools.partial(bytes_by_kind, "laptop", ARMS[name])
        study.measure(traced, task="bytes", arm=name)
    table = cells("pizza", names[:-1], FIRST["smollm2"])
    study.print_table(table, study.tune(table, measure, SEEDS[1:]))


def kitchen_part(study: Study) -> None:
    """Run the kitchen's part: both tasks, every arm."""
    table = [cell for t in ("learn", "elicit") for cell in cells(t, list(ARMS), FIRST["kitchen"])]
    study.print_table(table, study.tune(table, measure, SEEDS[1:]))


def main() -> None:
    """Run what is not in the record yet."""
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    parts = {"smollm2": smollm2, "kitchen": kitchen_part}
    if part not in parts:
        sys.exit("usage: python -m studies.qlora_study smollm2|kitchen")
    parts[part](engine.start(f"qlora_{part}"))


if __name__ == "__main__":
    main()
