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

import os
import sys
import time
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import LoraConfig, get_peft_model

from pefthelpers import data, kitchen, models, session
from pefthelpers.measure import count_parameters, exact_match, generate, mean_loss
from pefthelpers.paths import data_dir
from pefthelpers.training import collate, encode, fit
from peftmemory.tracing.live import LiveStorages
from studies.engine import Study, search_learning_rate


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
    model, tokenizer = models.load(
        "decoder", profile, dtype="float32", four_bit=arm.four_bit, double_quant=arm.four_bit
    )
    torch.manual_seed(seed)
    if arm.r:
        config = LoraConfig(
            task_type="CAUSAL_LM", r=arm.r, lora_alpha=arm.alpha, target_modules="all-linear"
        )
        model = get_peft_model(model, config)
    return model, tokenizer


def train(model, tokenizer, examples, task: str, learning_rate: float, seed: int) -> dict:
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


def pizza_run(arm: Arm, learning_rate: float, seed: int) -> dict:
    """Teach SmolLM2 the pizza card by an arm's method."""
    return pizza_scores(*build("laptop", arm, seed), learning_rate, seed)


def pizza_scores(model, tokenizer, learning_rate: float, seed: int) -> dict:
    """Train on the pizza card (at rate 0: do not) and measure target and retention.

    Half of the validation, test and general questions are used.
    """
    chat = lambda examples: data.chat_examples(tokenizer, examples[::2])
    task = data.pizza()
    train_examples = data.chat_examples(tokenizer, task.train)
    row = (
        train(model, tokenizer, train_examples, "pizza", learning_rate, seed)
        if learning_rate
        else {"steps": 0}
    )
    test, general = chat(task.test), data.general_questions().measured
    texts = generate(model, tokenizer, test, max_new_tokens=48, batch_size=30)
    loss = mean_loss(model, tokenizer, chat(task.validation), batch_size=30)
    return row | {
        "validation": -loss,
        "validation_loss": loss,
        "test_loss": mean_loss(model, tokenizer, test, batch_size=30),
        "test_style": sum(map(data.follows_style, texts)) / len(texts),
        "test_questions": len(test),
        "general_loss": mean_loss(
            model, tokenizer, chat([q.example for q in general]), batch_size=36
        ),
        "sample": texts[0],
    }


def kitchen_run(task: str, arm: Arm, learning_rate: float, seed: int) -> dict:
    """Teach the kitchen decoder a task; return exact match and losses."""
    data = getattr(kitchen, task)(seed)
    model, tokenizer = build("tiny", arm, seed)
    row = train(model, tokenizer, data.train, task, learning_rate, seed)
    return row | {
        "validation": exact_match(model, tokenizer, data.validation),
        "validation_loss": mean_loss(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
        "test_loss": mean_loss(model, tokenizer, data.test),
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
        name_tensors(model, live)
        for _ in range(2):  # the first step creates the optimiser's states
            one_step(model, optimizer, batch, live)
    moment, kinds = max(live.peaks.items(), key=lambda item: sum(item[1].values()))
    return {
        "tokens": batch["input_ids"].numel(),
        "moment": moment,
        "bytes": {kind: size for kind, size in kinds.items() if size},
        "peak_bytes": sum(kinds.values()),
    }


def name_tensors(model, live: LiveStorages) -> None:
    """Tell the counter what is a weight, a 4-bit constant, a gradient."""
    for parameter in model.parameters():
        kind = "trainable_weights" if parameter.requires_grad else "frozen_weights"
        live.name([parameter], kind)
        live.name(constants(getattr(parameter, "quant_state", None)), "quantisation_constants")
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: live.name([p.grad], "gradients"))
    live.name(model.buffers(), "frozen_weights")


def constants(state) -> list[torch.Tensor]:
    """Return the tensors of a bitsandbytes quantisation state, second level included."""
    if state is None:
        return []
    own = [state.absmax, state.code, *([state.offset] if state.nested else [])]
    return own + constants(state.state2)


def one_step(model, optimizer, batch, live: LiveStorages) -> None:
    """Run one training step; the optimiser's states are named when it ends."""
    live.peaks = {}
    live.enter("forward")
    loss = model(**batch).loss
    live.enter("backward")
    loss.backward()
    live.enter("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for state in optimizer.state.values():
        live.name([t for t in state.values() if torch.is_tensor(t)], "optimizer_states")


def search(study: Study, name: str, task: str, run) -> None:
    """Search an arm's learning rate, then run the chosen one on every seed."""
    arm, model = ARMS[name], study.path.stem.removeprefix("qlora_")
    kind = "adapter" if arm.r else "full"

    def measure(learning_rate: float, seed: int = 0) -> dict:
        key = {"task": task, "arm": name, **arm._asdict()}
        return study.measure(
            lambda: run(arm, learning_rate, seed), **key, learning_rate=learning_rate, seed=seed
        )

    ladder = ADAPTER_LADDER if arm.r else FULL_LADDER
    chosen = search_learning_rate(measure, ladder, FIRST[model][kind])
    for seed in SEEDS[1:]:
        measure(chosen["learning_rate"], seed)


def smollm2(study: Study) -> None:
    """Run the real model's part; two arms of rank 64 train in the kitchen alone, for the price."""
    for four_bit in (False, True):
        key = {"task": "pizza", "arm": "base", "four_bit": four_bit}
        study.measure(lambda: pizza_run(Arm(four_bit), 0.0, 0), **key)  # noqa: B023 - called here
    names = list(ARMS)[:-1]
    for name in names:
        key = {"task": "bytes", "arm": name}
        study.measure(lambda: bytes_by_kind("laptop", ARMS[name]), **key)  # noqa: B023
    for name in names[:-1]:
        search(study, name, "pizza", pizza_run)


def kitchen_part(study: Study) -> None:
    """Run the kitchen's part: both tasks, every arm."""
    for task in ("learn", "elicit"):
        for name in ARMS:
            search(study, name, task, lambda *given: kitchen_run(task, *given))  # noqa: B023


def main() -> None:
    """Run what is not in the record yet."""
    torch.set_num_threads(1)
    session.quiet()
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    parts = {"smollm2": smollm2, "kitchen": kitchen_part}
    if part not in parts:
        sys.exit("usage: python -m studies.qlora_study smollm2|kitchen")
    parts[part](Study(data_dir() / "results" / f"qlora_{part}.json"))


if __name__ == "__main__":
    main()
