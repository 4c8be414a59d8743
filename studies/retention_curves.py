"""What is left of the old skills when the new task is learned equally well, for notebook 07.

    python -m studies.retention_curves             # LEARN on the kitchen decoder; about 40 CPU minutes
    pefthelpers fetch laptop
    python -m studies.retention_curves smollm2     # the pizza card on SmolLM2; about 60 CPU minutes

Methods at their chosen rates reach different targets, and what they forget grows with what they learn:
so each training is a curve. The target and the old skills are measured along the way, and two methods
are compared where their curves pass the same target. The rate stays constant after the warm-up of 12 (3)
steps: with a decay, a point along the way would depend on how far away the end is. A training ends
at ``ENOUGH``, or after the last of its base's marks. Each method's rate is a mild one, with which it passes
0.9 shortly before the last mark, if it does at all: a lower rate over more steps forgets less, so a
comparison at high rates would compare the rates. With replay half of each batch (SmolLM2: a quarter) are
old texts. One row a training in
``data/results/retention_curves.json`` or ``retention_smollm2.json``, its points in ``path``; resumable.
float32, one thread.
"""

import itertools
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch

from pefthelpers import data, kitchen, methods, models
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.training import batches, collate, encode
from studies import engine
from studies.kitchen_world.tasks import replay as old_texts
from studies.laptop_style_study import measure_general, measure_style

SEEDS = (0, 1, 2)
ENOUGH = 0.9  # of the target: the highest at which methods are compared


class Base(NamedTuple):
    """A model, what it learns, and how its curves are drawn."""

    record: str
    profile: str
    examples: Callable  # (tokenizer, seed) -> (new examples, old examples)
    score: Callable  # (model, tokenizer, seed) -> scores, among them ``target``
    batch: tuple[int, int]  # examples a step; how many of them are old ones with replay
    warm_up: int
    marks: tuple[int, ...]  # the steps after which everything is measured
    rates: dict[str, float]  # of each method, a mild one


def kitchen_examples(tokenizer, seed: int) -> tuple[list, list]:
    """Return LEARN's training split and texts of the pre-training mixture."""
    return kitchen.learn(seed).train, old_texts(2000, seed)


def kitchen_score(model, tokenizer, seed: int) -> dict:
    """Return exact match on LEARN's test split, and what is left."""
    old = kitchen.retention() | {"target": kitchen.learn(seed).test}
    scores = {
        n: exact_match(model, tokenizer, old[n]) for n in ("target", "facts", "cued", "tasks")
    }
    return scores | {"general_loss": mean_loss(model, tokenizer, old["documents"])}


def pizza_examples(tokenizer, seed: int) -> tuple[list, list]:
    """Return the pizza card's training questions and general ones, as the chat template has them."""
    old = data.general_questions().replay
    return tuple(data.chat_examples(tokenizer, rows) for rows in (data.pizza().train, old))


def pizza_score(model, tokenizer, seed: int) -> dict:
    """Return the share of test answers in the card's style, and what is left."""
    found = measure_style(model, tokenizer, data.pizza().test[::2])
    found |= measure_general(model, tokenizer) | {"target": found["style_share"]}
    return {name: value for name, value in found.items() if isinstance(value, float)}


BASES = {
    "decoder": Base(
        "retention_curves",
        "tiny",
        kitchen_examples,
        kitchen_score,
        batch=(16, 8),
        warm_up=12,
        marks=(25, 50, 75, 100, 125, 150, 175, 200, 250, 300, 350, 400),
        rates={
            "full": 1.5e-4,
            "lora": 1e-3,
            "rslora": 4e-4,
            "dora": 1e-3,
            "houlsby": 7.5e-3,
            "prefix": 5e-3,
        },
    ),
    "smollm2": Base(
        "retention_smollm2",
        "laptop",
        pizza_examples,
        pizza_score,
        batch=(4, 1),
        warm_up=3,
        marks=(4, 8, 12, 18, 24, 36, 48),
        rates={
            "full": 1e-4,
            "lora": 1e-3,
            "rslora": 4e-4,
            "dora": 1e-3,
        },
    ),
}


def curve(base: Base, method: str, replay: bool, learning_rate: float, seed: int) -> dict:
    """Train once; return the scores at each mark."""
    config = methods.config(method, "decoder")
    model, tokenizer = engine.tunable(config, profile=base.profile, seed=seed, dtype="float32")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    pairs = (encode(tokenizer, rows) for rows in base.examples(tokenizer, seed))
    size, kept_back = base.batch
    counts = (size - kept_back, kept_back) if replay else (size, 0)
    drawn = [
        batches(rows, size=count, steps=base.marks[-1], seed=seed)
        for rows, count in zip(pairs, counts, strict=True)
    ]
    path = []
    for step, parts in enumerate(zip(*drawn, strict=True), 1):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, step / base.warm_up)
        optimizer.zero_grad(set_to_none=True)
        batch = collate(tokenizer, list(itertools.chain(*parts)))
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step in base.marks:
            scores = base.score(model, tokenizer, seed)
            path.append({"steps": step} | {name: round(v, 5) for name, v in scores.items()})
            if scores["target"] >= ENOUGH:
                break
    return {"trainable_parameters": count_parameters(model)[0], "path": path}


def main() -> None:
    """Run what the record does not hold yet."""
    base = BASES[sys.argv[1] if len(sys.argv) > 1 else "decoder"]
    study = engine.start(base.record)
    untouched = lambda: base.score(*models.load("decoder", base.profile, dtype="float32"), 0)
    study.measure(untouched, method="base")
    run = lambda **key: curve(base, **key)
    for replay, seed, (method, rate) in itertools.product((False, True), SEEDS, base.rates.items()):
        study.one(run, {"method": method, "replay": replay}, rate, seed)
    for row in study.rows[1:]:
        method, replay, *numbers = (row[n] for n in ("method", "replay", "learning_rate", "seed"))
        reached = [f"{name} {value:g}" for name, value in row["path"][-1].items()]
        print(method, "replay" if replay else "no replay", *numbers, *reached, sep=" | ")


if __name__ == "__main__":
    main()
