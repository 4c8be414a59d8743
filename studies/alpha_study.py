"""What does alpha do over a whole training? LoRA on the kitchen decoder's ELICIT, for notebook 02.

Run: python -m studies.alpha_study     (resumable; about 12 CPU minutes)

Two questions, each run on seeds 0, 1 and 2; 100 steps, every linear layer, float32, one thread:

1. Is a larger alpha the same as a higher learning rate? r = 8 with alpha 16 and alpha 128, at learning rates whose
   product with alpha is the same.
2. Which rule for alpha lets a learning rate stay as the rank changes? Three rules that agree at r = 8: alpha
   constant at 16, alpha = 2 r, and rsLoRA's scale alpha / sqrt(r) with the alpha that gives 2 there. At r = 64 each
   is trained at the rate that validation chose for r = 8, and then at its half and its quarter.

Rows also say how far A moved, as a share of its initial size, and the loss on the old documents.
"""

import itertools
import math

import torch
from peft import LoraConfig

from pefthelpers import kitchen
from pefthelpers.measure import exact_match, mean_loss
from pefthelpers.training import fit
from studies import engine

STEPS, SEEDS = 100, (0, 1, 2)
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)  # with alpha = 16
SHOWN = ("rule", "r", "alpha", "learning_rate", "seed", "test", "general_loss", "a_moved")
CARRIED = (2e-3, 1e-3, 5e-4)  # the rate that validation chose at r = 8, and milder ones
RULES = {
    "constant": {"alpha": 16, "rslora": False},
    "2r": {"alpha": 128, "rslora": False},
    "rslora": {"alpha": round(16 / math.sqrt(8), 4), "rslora": True},
}


def a_weights(model) -> list[torch.Tensor]:
    """Return copies of every A."""
    return [p.detach().clone() for name, p in model.named_parameters() if "lora_A" in name]


def size(tensors: list[torch.Tensor]) -> float:
    """Return the common Frobenius norm."""
    return math.sqrt(sum(t.pow(2).sum().item() for t in tensors))


def measure(rule: str, r: int, alpha: float, rslora: bool, learning_rate: float, seed: int) -> dict:
    """Train one adapter; return its scores, the loss on old texts and how far A moved."""
    data = kitchen.elicit(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        use_rslora=rslora,
        target_modules="all-linear",
    )
    model, tokenizer = engine.tunable(config, seed=seed)
    start = a_weights(model)
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=STEPS, seed=seed)
    moved = [now - then for now, then in zip(a_weights(model), start, strict=True)]
    row = {
        "steps": STEPS,
        "validation": exact_match(model, tokenizer, data.validation),
        "validation_loss": mean_loss(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
        "test_loss": mean_loss(model, tokenizer, data.test),
        "general_loss": mean_loss(model, tokenizer, kitchen.retention()["documents"]),
        "a_moved": size(moved) / size(start),
    }
    return {name: round(value, 5) for name, value in row.items()}


def main() -> None:
    """Run what the record does not hold yet."""
    study = engine.start("alpha_study")
    for alpha, seed, rate in itertools.product((16, 128), SEEDS, RATES):
        key = {"rule": "constant", "r": 8, "alpha": alpha, "rslora": False}
        study.one(measure, key, rate * 16 / alpha, seed)
    for rate, (rule, alpha), seed in itertools.product(CARRIED, RULES.items(), SEEDS):
        study.one(measure, {"rule": rule, "r": 64, **alpha}, rate, seed)
    for row in study.rows:
        print(*(row[name] for name in SHOWN), sep=" | ")


if __name__ == "__main__":
    main()
