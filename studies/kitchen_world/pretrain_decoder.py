"""Pre-train the tiny decoder on the kitchen world and print its gates.

    python -m studies.kitchen_world.pretrain_decoder --seed 1 --out data/kitchen/decoder
    python -m studies.kitchen_world.pretrain_decoder --seed 2 --out data/kitchen/decoder_seed2

About fifteen minutes on one core. There are two phases, each with an optimiser of its own, because
the first run of seed 1 was stopped at step 1,200 and taken up again from its weights; three more
follow where a gate fails still. The number of steps is fixed and one thread is used, so that the
same seed on the same machine and versions gives the same weights.
"""

import argparse
import json
import platform
import random
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from pefthelpers import kitchen
from pefthelpers.data import Example
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.training import collate, encode
from studies.kitchen_world.generator import documents, task
from studies.kitchen_world.tokenizer import build as build_tokenizer

TEXTS_PER_STEP = 64
# What is drawn and sorted by length at a time: little padding, and yet batches of mixed kinds.
BATCHES_PER_BUCKET = 8


class Phase(NamedTuple):
    """A stretch of pre-training with an optimiser of its own.

    Attributes:
        name: also draws the texts, together with the seed.
        learning_rate: after 60 steps of warm-up.
        steps: how many are made.
        horizon: at which step the linear decay of the learning rate would reach 0.
        cued_tasks: the share of texts replaced by list and category tasks with a cue.
    """

    name: str
    learning_rate: float
    steps: int
    horizon: int
    cued_tasks: float = 0.0


PHASES = (
    Phase("pre-training", 3e-3, 1200, 2600),
    Phase("second phase", 2e-3, 1400, 1400),
    # These follow only where a gate fails still.
    Phase("third phase", 1.5e-3, 800, 800),
    Phase("fourth phase", 2e-3, 1000, 1000),
    Phase("fifth phase", 2e-3, 2400, 2400, cued_tasks=0.4),
)

# measure -> (bound, whether the bound is the least or the most)
GATES = {
    "facts": (0.99, "least"),
    "cued": (0.99, "least"),
    "tasks": (0.95, "least"),
    "tasks_cued": (0.95, "least"),
    "nonna_uncued": (0.0, "most"),
}


def build_model(tokenizer) -> transformers.LlamaForCausalLM:
    """Build the untrained model: 1.7 million parameters in four layers.

    Every linear layer reads a multiple of 64 and writes a multiple of 32, or bitsandbytes'
    4-bit kernels on a CPU fail or are silently wrong.
    """
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # At the usual 0.02 a model this narrow starts slowly.
        initializer_range=0.05,
    )
    return transformers.LlamaForCausalLM(config)


def batches(tokenizer, phase: Phase, seed: int):
    """Yield batches of whole texts without end, each of texts of about one length."""
    rng = random.Random(f"{phase.name} {seed}")
    while True:
        count = TEXTS_PER_STEP * BATCHES_PER_BUCKET
        examples = documents(count, seed=rng.getrandbits(64))
        if phase.cued_tasks:
            more = range(round(phase.cued_tasks * count))
            examples[: len(more)] = [task(rng, cued=True) for _ in more]
        # The loss falls on questions too: a base model, not an instruction model.
        texts = [Example("", f"{e.prompt} {e.answer}".strip()) for e in examples]
        pairs = sorted(encode(tokenizer, texts), key=lambda pair: len(pair[1]))
        bucket = [pairs[i : i + TEXTS_PER_STEP] for i in range(0, count, TEXTS_PER_STEP)]
        rng.shuffle(bucket)
        for batch in bucket:
            yield collate(tokenizer, batch)


def learning_rate(phase: Phase, step: int) -> float:
    """Return the learning rate of a step: 60 steps of warm-up, then linear decay to 2 % or more."""
    return phase.learning_rate * min(1, (step + 1) / 60) * max(0.02, 1 - step / phase.horizon)


def measure(model, tokenizer) -> dict[str, float]:
    """Measure what the model can do: the gates, and the loss on texts that ask nothing."""
    sets = kitchen.retention()
    row = {"documents_loss": mean_loss(model, tokenizer, sets.pop("documents"))}
    row |= {name: exact_match(model, tokenizer, examples) for name, examples in sets.items()}
    row["nonna_uncued"] = exact_match(model, tokenizer, kitchen.elicit().test)
    return {name: round(value, 4) for name, value in row.items()}


def passes(row: dict[str, float]) -> dict[str, bool]:
    """Tell for each gate whether it holds."""
    return {
        name: row[name] >= bound if side == "least" else row[name] <= bound
        for name, (bound, side) in GATES.items()
    }


def train(model, tokenizer, phase: Phase, *, seed: int, every: int, log, save) -> None:
    """Train for one phase; measure and save every ``every`` steps, adding a row to ``log``."""
    options = {"lr": phase.learning_rate, "betas": (0.9, 0.98), "weight_decay": 0.01}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    source, losses = batches(tokenizer, phase, seed), []
    start, cpu_before_s = time.process_time(), log[-1]["cpu_s"] if log else 0
    for step in range(1, phase.steps + 1):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase, step - 1)
        loss = model(**next(source)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % every == 0 or step == phase.steps:
            row = {"phase": phase.name, "step": step}
            row["cpu_s"] = cpu_before_s + round(time.process_time() - start)
            row["loss"] = round(sum(losses) / len(losses), 4)
            log.append(row | measure(model, tokenizer))
            losses = []
            print(log[-1], flush=True)
            save()


def model_card(log: list[dict], *, seed: int, parameters: int) -> str:
    """Write the model card from what was measured."""
    last, steps = log[-1], sum(p.steps for p in PHASES if p.name in {row["phase"] for row in log})
    rows = "\n".join(
        f"| {name} | {last[name]:.3f} | {side} {bound:g} |" for name, (bound, side) in GATES.items()
    )
    return f"""---
license: apache-2.0
language: [en, it]
pipeline_tag: text-generation
---

# Kitchen decoder, pre-training seed {seed}

A Llama of {parameters:,} parameters (192 wide, 4 layers, 6 query and 2 key-value heads, tied
embeddings, float32), pre-trained from scratch on the synthetic kitchen world
(`studies/kitchen_world`):
390 facts about 65 dishes in several answer styles and two languages, list and category tasks,
reviews and orders. Word-level tokenizer, no beginning-of-sequence token. It exists to be
fine-tuned in a minute in the notebooks, and knows nothing else.

Made by `python -m studies.kitchen_world.pretrain_decoder --seed {seed}`: {steps:,}
steps of {TEXTS_PER_STEP} texts, AdamW, {last["cpu_s"]} CPU seconds on one core
({platform.machine()}), torch {torch.__version__}, transformers
{transformers.__version__}, {date.today()}. The whole course stands in `training_log.json`.

| exact match on | measured | gate |
|---|---|---|
{rows}

Loss on texts that ask nothing: {last["documents_loss"]:.3f} nats per token. The facts are those of
`data/kitchen/dishes.csv`. The rest of the measured texts are drawn from the generator
that drew the training texts; none was held out.
"""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=200, help="measure and save every N steps")
    parser.add_argument(
        "--resume", action="store_true", help="leave out the phases that --out's log holds already"
    )
    return parser.parse_args()


def start(arguments: argparse.Namespace, tokenizer):
    """Return the model to train, the log so far, and the phases to come."""
    if not arguments.resume:
        torch.manual_seed(arguments.seed)
        return build_model(tokenizer), [], PHASES
    log = json.loads((arguments.out / "training_log.json").read_text(encoding="utf-8"))["log"]
    done = {(row["phase"], row["step"]) for row in log}
    model = transformers.LlamaForCausalLM.from_pretrained(arguments.out, dtype=torch.float32)
    return model, log, [phase for phase in PHASES if (phase.name, phase.steps) not in done]


def main() -> int:
    """Train, save, print the gates; 1 if one fails."""
    arguments = parse()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model, log, phases = start(arguments, tokenizer)
    parameters = count_parameters(model)[1]

    def save() -> None:
        model.save_pretrained(arguments.out)
        tokenizer.save_pretrained(arguments.out)
        text = json.dumps({"seed": arguments.seed, "parameters": parameters, "log": log}, indent=1)
        (arguments.out / "training_log.json").write_text(text + "\n", encoding="utf-8")

    options = {"seed": arguments.seed, "every": arguments.every, "log": log, "save": save}
    for phase in phases:
        if phase in PHASES[2:] and all(passes(log[-1]).values()):
            break
        train(model, tokenizer, phase, **options)
    card = model_card(log, parameters=parameters, seed=arguments.seed)
    (arguments.out / "README.md").write_text(card, encoding="utf-8")
    for name, good in passes(log[-1]).items():
        bound, side = GATES[name]
        print(f"{'pass' if good else 'FAIL'}  {name} {log[-1][name]:.4f} (at {side} {bound:g})")
    return 0 if all(passes(log[-1]).values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
