"""What is left of the old skills when the new task is learned equally well, for notebook 07.

    python -m studies.retention_curves             # LEARN on the kitchen decoder; about 40 CPU minutes
    pefthelpers fetch laptop
    python -m studies.retention_curves smollm2     # the pizza card on SmolLM2; a GPU's if there is one

Methods at their chosen rates reach different targets, and what they forget grows with what they learn:
so each training is a curve. The target and the old skills are measured along the way, and two methods
are compared where their curves pass the same target. The rate stays constant after the warm-up of 12 (3)
steps: with a decay, a point along the way would depend on how far away the end is. A training ends
at ``ENOUGH``, or after the last of its base's marks. Each method's rate is a mild one, the lowest of those
listed with which seed 0 without replay ends at ``ENOUGH``, the highest where none does: a lower rate over
more steps forgets less, so a comparison at high rates would compare the rates. It is chosen by the target
alone, never by what is kept. With replay half of each batch (SmolLM2: a quarter) are old texts. On SmolLM2
the prefix starts as a system message that asks for the style, and the adapters have notebook 07's sizes.
One row a training in ``data/results/retention_curves.json`` or ``retention_smollm2.json``, its points in
``path``; resumable. float32, one thread.
"""

import itertools
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch

from peftbottleneck import BottleneckConfig
from pefthelpers import data, kitchen, methods, models
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.training import batches, collate, device_of, encode
from studies import engine
from studies.kitchen_world.tasks import replay as old_texts
from studies.laptop_prefix_study import with_text_prefix
from studies.laptop_style_study import measure_general, measure_style

SEEDS = (0, 1, 2)
ENOUGH = 0.9  # of the target: the highest at which methods are compared


class Base(NamedTuple):
    """A model, what it learns, and how its curves are drawn."""

    record: str
    tunable: Callable  # (method, seed) -> (model, tokenizer)
    examples: Callable  # (tokenizer, seed) -> (new examples, old examples)
    score: Callable  # (model, tokenizer, seed) -> scores, among them ``target``
    batch: tuple[int, int]  # examples a step; how many of them are old ones with replay
    warm_up: int
    marks: tuple[int, ...]  # the steps after which everything is measured
    rates: dict[str, tuple[float, ...]]  # of each method, in rising order
    replayed: tuple[str, ...]  # methods that are trained with replay too


def kitchen_tunable(method: str, seed: int) -> tuple:
    """Return the kitchen decoder, made trainable by a method, and its tokenizer."""
    return engine.tunable(methods.config(method, "decoder"), seed=seed, dtype="float32")


def pizza_tunable(method: str, seed: int) -> tuple:
    """Return SmolLM2 in float32, made trainable by a method, and its tokenizer."""
    if method == "prefix":
        return with_text_prefix()
    config = methods.config(method, "decoder")
    if method == "houlsby":
        config = BottleneckConfig(task_type="CAUSAL_LM", placement="houlsby", reduction_factor=16)
    return engine.tunable(config, profile="laptop", seed=seed, dtype="float32")


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
    found = measure_style(model, tokenizer, data.pizza().test)
    found |= measure_general(model, tokenizer) | {"target": found["style_share"]}
    return {n: v for n, v in found.items() if isinstance(v, float) and not n.endswith("_cpu_s")}


BASES = {
    "decoder": Base(
        "retention_curves",
        kitchen_tunable,
        kitchen_examples,
        kitchen_score,
        batch=(16, 8),
        warm_up=12,
        marks=(25, 50, 75, 100, 125, 150, 175, 200, 250, 300, 350, 400),
        rates={
            "full": (1.5e-4,),
            "lora": (1e-3,),
            "rslora": (4e-4,),
            "dora": (1e-3,),
            "houlsby": (1.9e-3, 3.75e-3, 7.5e-3),
            "prefix": (5e-3,),
        },
        replayed=("full", "lora", "rslora", "dora", "houlsby", "prefix"),
    ),
    "smollm2": Base(
        "retention_smollm2",
        pizza_tunable,
        pizza_examples,
        pizza_score,
        batch=(4, 1),
        warm_up=3,
        marks=(4, 8, 12, 18, 24, 36, 48),
        rates={
            "full": (1.25e-5, 2.5e-5, 5e-5, 1e-4, 2e-4),
            "lora": (2.5e-4, 5e-4, 1e-3, 2e-3),
            "rslora": (1e-4, 2e-4, 4e-4, 8e-4),
            "dora": (2.5e-4, 5e-4, 1e-3, 2e-3),
            "houlsby": (1.25e-4, 2.5e-4, 5e-4, 1e-3),
            "prefix": (1e-3, 2e-3, 4e-3, 8e-3),
        },
        replayed=("full", "lora", "rslora", "dora", "houlsby", "prefix"),
    ),
}


def curve(base: Base, method: str, replay: bool, learning_rate: float, seed: int) -> dict:
    """Train once; return the scores at each mark."""
    model, tokenizer = base.tunable(method, seed)
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
        batch = collate(tokenizer, list(itertools.chain(*parts)), device=device_of(model))
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step in base.marks:
            scores = base.score(model, tokenizer, seed)
            path.append({"steps": step} | {name: round(v, 5) for name, v in scores.items()})
            if scores["target"] >= ENOUGH:
                break
    return {"trainable_parameters": count_parameters(model)[0], "path": path}


def mildest(base: Base, method: str, train: Callable) -> float:
    """Return the lowest of a method's rates with which seed 0 ends at ``ENOUGH``, else the highest."""
    *lower, highest = base.rates[method]
    for rate in lower:
        if train(method, False, rate, 0)["path"][-1]["target"] >= ENOUGH:
            return rate
    return highest


def main() -> None:
    """Run what the record does not hold yet."""
    base = BASES[sys.argv[1] if len(sys.argv) > 1 else "decoder"]
    study = engine.start(base.record)
    study.measure(lambda: base.score(*base.tunable("full", 0), 0), method="base")
    run = lambda **key: curve(base, **key)
    train = lambda method, replay, rate, seed: study.one(
        run, {"method": method, "replay": replay}, rate, seed
    )
    rates = {method: mildest(base, method, train) for method in base.rates}
    without = itertools.product((False,), SEEDS, base.rates)
    for replay, seed, method in (*without, *itertools.product((True,), SEEDS, base.replayed)):
        row = train(method, replay, rates[method], seed)
        reached = [f"{name} {value:g}" for name, value in row["path"][-1].items()]
        end = "replay" if replay else "no replay"
        print(method, end, rates[method], seed, *reached, sep=" | ")


if __name__ == "__main__":
    main()
