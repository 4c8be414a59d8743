"""What becomes of an adapter trained on a 4-bit base, by the route of its merge and its size, for notebook 03.

    python -m studies.merge_study           # the kitchen decoder; about 8 CPU minutes
    pefthelpers fetch laptop
    python -m studies.merge_study laptop    # SmolLM2-135M, in data/results/merge_smollm2.json

The task is notebook 03's: four pizzas of LEARN, a LoRA of rank 8 on every linear layer of an NF4 base. A
lower learning rate leaves a smaller correction. Each run is merged by every route; its row of
``data/results/merge_study.json`` holds, for each route, held-out loss and exact match, and how far the
logits at the answers are from the trained ones (root mean square). ``ratio`` is the median over layers of
``||dW|| / ||W||``. ``nf4_noise`` and ``nf4_kept`` are means over layers of what notebook 03 calls rounding
noise and the part kept, read off the weights of the re-quantised model; ``bfloat16_*`` the same for a merge
into the original weights in bfloat16. Resumable, one thread.
"""

import copy
import statistics
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel

from pefthelpers import kitchen, models
from pefthelpers.measure import exact_match, mean_loss
from pefthelpers.profiles import settings
from pefthelpers.training import collate, encode, fit
from studies import engine

RATES = {100: (0.000625, 0.00125, 0.0025, 0.005), 400: (0.000625, 0.00125, 0.0025)}
SEEDS = (0, 1, 2)
R = 8


def menu(seed: int):
    """Return the training and the test questions about four pizzas."""
    task, pizza = kitchen.learn(seed), lambda example: example.answer.split(" : ")[0]
    four = sorted({pizza(example) for example in task.train})[:4]
    return [[e for e in split if pizza(e) in four] for split in (task.train, task.test)]


def layers(model) -> dict[str, torch.nn.Module]:
    """Return the layers that carry a LoRA, by their names in the base."""
    named = model.named_modules()
    return {n.removeprefix("base_model.model."): m for n, m in named if hasattr(m, "lora_A")}


def noise_and_kept(before, after, corrections: dict[str, torch.Tensor]) -> list[float]:
    """Compare what a merge stored with the corrections; means over layers."""
    found = []
    for name, wanted in corrections.items():
        start, end = (m.get_submodule(name).weight.double() for m in (before, after))
        stored = end - start
        size = wanted.norm()
        kept = (stored * wanted).sum() / size**2
        found.append((((stored - wanted).norm() / size).item(), kept.item()))
    return [statistics.mean(column) for column in zip(*found, strict=True)]


@torch.no_grad()
def run(profile: str, steps: int, learning_rate: float, seed: int) -> dict:
    """Train once on the 4-bit base, and merge by every route."""
    config = LoraConfig(task_type="CAUSAL_LM", r=R, lora_alpha=2 * R, target_modules="all-linear")
    card, tokenizer = engine.tunable(config, profile=profile, seed=seed, four_bit=True)
    (train, test), batch_size = menu(seed), min(8, settings("decoder", profile).batch_size)
    with torch.enable_grad():
        fit(
            card,
            tokenizer,
            train,
            learning_rate=learning_rate,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
        )
    card.eval()
    folder = tempfile.mkdtemp()
    card.save_pretrained(folder)
    attach = lambda base: PeftModel.from_pretrained(base, folder).eval()
    four_bit = lambda: models.load("decoder", profile, four_bit=True)[0]
    original = models.load("decoder", profile)[0]
    on_original = attach(copy.deepcopy(original))
    corrections = {
        name: layer.get_delta_weight("default").double()
        for name, layer in layers(on_original).items()
    }
    sizes = sorted(
        (c.norm() / original.get_submodule(name).weight.norm()).item()
        for name, c in corrections.items()
    )
    merged = lambda base: attach(base).merge_and_unload()
    coarse = copy.deepcopy(original).bfloat16()
    routes = {
        "unmerged": card,
        "dequantised": merged(four_bit().dequantize()),
        "dequantised_bfloat16": merged(four_bit().dequantize().bfloat16()),
        "original": on_original.merge_and_unload(),
        "original_bfloat16": merged(copy.deepcopy(coarse)),
        "requantised": merged(four_bit()),
    }
    batch = collate(tokenizer, encode(tokenizer, test))
    is_answer = batch.pop("labels")[:, 1:] != -100
    logits = lambda model: model(**batch).logits[:, :-1][is_answer].float()
    kept, row = logits(card), {"ratio": statistics.median(sizes)}
    row |= {"ratio_least": sizes[0], "ratio_most": sizes[-1]}
    for name, model in routes.items():
        row[f"{name}_distance"] = (logits(model) - kept).pow(2).mean().sqrt().item()
        row[f"{name}_loss"] = mean_loss(model, tokenizer, test)
        row[f"{name}_match"] = exact_match(model, tokenizer, test)
    pairs = {
        "nf4": (four_bit().dequantize(), routes["requantised"].dequantize()),
        "bfloat16": (coarse, routes["original_bfloat16"]),
    }
    for name, (before, after) in pairs.items():
        row[f"{name}_noise"], row[f"{name}_kept"] = noise_and_kept(before, after, corrections)
    return row | {"base_loss": mean_loss(original, tokenizer, test), "test_questions": len(test)}


def main() -> None:
    """Run what is not in the record yet."""
    profile = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    chosen = settings("decoder", profile)
    # A real model's run is notebook 03's in the laptop profile: twice half of the profile's steps.
    table = (
        [(steps, rate) for steps, rates in RATES.items() for rate in rates]
        if profile == "tiny"
        else [(chosen.steps, chosen.learning_rates["lora"])]
    )
    keys = [
        {"profile": profile, "steps": steps, "learning_rate": rate, "seed": seed}
        for steps, rate in table
        for seed in SEEDS
    ]
    engine.start("merge_study" if profile == "tiny" else "merge_smollm2").measure_each(keys, run)


if __name__ == "__main__":
    main()
