"""Is training a prefix without its MLP unstable? Rates by seeds, with and without clipping and warm-up.

Run: python -m studies.prefix_stability     (resumable; about 15 CPU minutes)

Li and Liang (2021, section 4.3): training the prefix directly "leads to unstable optimization and a slight drop
in performance". ``prefix_study`` asked with clipped gradients and warm-up, as everything here is trained. This
study leaves each out. Nothing is chosen, so there is no test split: every run is scored on validation.
"""

import itertools
import math

import torch

from pefthelpers import measure
from pefthelpers.training import batches, collate, encode, learning_rate_factor
from studies import engine
from studies.prefix_study import TASKS, TOPPINGS, adapt

SEEDS = (0, 1, 2)
BOTH, NEITHER, ALONE = [(True, True)], [(False, False)], [(True, False), (False, True)]
HIGH = {"random": (0.1, 0.3, 1.0, 3.0, 10.0), "projection": (0.003, 0.01, 0.03, 0.1, 0.3)}
# Task, virtual tokens, steps, (clip, warm-up), rates: what matters most comes first. On LEARN the best rates
# of prefix_study and the next ones, where its scores fell; ALONE at the first rate that fails without both.
TABLE = [
    ("elicit", 8, 100, NEITHER + BOTH, HIGH),
    ("learn", 64, 300, BOTH, {"random": (0.3, 1.0)}),
    ("learn", 64, 300, NEITHER, {"random": (0.3,)}),
    ("learn", 64, 300, BOTH, {"projection": (0.01,)}),
    ("elicit", 8, 100, ALONE, {"random": (3.0,)}),
    ("learn", 64, 300, BOTH, {"projection": (0.03,)}),
    ("learn", 8, 300, BOTH, {"random": (0.3,), "projection": (0.01,)}),  # lengths at equal steps
]


def train(model, inputs, *, learning_rate: float, steps: int, clip: bool, warmup: bool):
    """Do as ``training.optimise`` does, clipping and warm-up at will.

    Returns:
        The loss of each step, and the share of steps whose gradient's norm was over 1.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    model.train()
    losses, large = [], 0
    for step, batch in enumerate(inputs):
        factor = learning_rate_factor(step, steps) if warmup else 1 - step / steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor
        loss = model(**batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0 if clip else math.inf)
        optimizer.step()
        losses.append(loss.item())
        large += norm.item() > 1
    model.eval()
    return losses, large / steps


def highest_rise(losses: list[float]) -> float:
    """Return how far the loss, a mean of five steps, rose above its lowest so far, in nats."""
    means = [sum(losses[i : i + 5]) / 5 for i in range(0, len(losses) - 4, 5)]
    lowest = itertools.accumulate(means, min)
    return max(mean - low for mean, low in zip(means, lowest, strict=True))


def one_run(*, task, kind, tokens, steps, clip, warmup, learning_rate, seed) -> dict:
    """Train one prefix of the kitchen decoder; return what it reaches and how its loss went."""
    data = TASKS["decoder", task](seed)
    model, tokenizer = adapt("decoder", kind, tokens, seed)
    drawn = batches(encode(tokenizer, data.train), size=16, steps=steps, seed=seed)
    inputs = (collate(tokenizer, pairs) for pairs in drawn)
    options = {"learning_rate": learning_rate, "steps": steps, "clip": clip, "warmup": warmup}
    losses, large = train(model, inputs, **options)
    row = {
        "validation": measure.exact_match(model, tokenizer, data.validation),
        "validation_loss": measure.mean_loss(model, tokenizer, data.validation),
        "large_gradients": large,
        "highest_rise": highest_rise(losses),
    }
    if task == "learn":
        row["facts"], row["format"] = measure.token_match(
            model, tokenizer, data.validation, TOPPINGS
        )
    row = {name: round(value, 4) for name, value in row.items()}
    return row | {"losses": [round(loss, 3) for loss in losses[:: steps // 50]]}


def main() -> None:
    """Run what is not in the record yet."""
    study = engine.start("prefix_stability")
    for task, tokens, steps, arrangements, rates in TABLE:
        for (clip, warmup), kind in itertools.product(arrangements, rates):
            key = {"task": task, "kind": kind, "tokens": tokens, "steps": steps}
            key |= {"clip": clip, "warmup": warmup}
            for rate in rates[kind]:
                scores = [study.one(one_run, key, rate, seed)["validation"] for seed in SEEDS]
                print(*key.values(), f"rate {rate:g}", *scores, sep=" | ")


if __name__ == "__main__":
    main()
