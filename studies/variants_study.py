"""LoRA's descendants at searched rates, for notebook 08: DoRA, rsLoRA, LoRA+, PiSSA, VeRA.

    pefthelpers fetch laptop
    python -m studies.variants_study kitchen      # ELICIT, and LEARN over steps; about 25 CPU minutes
    python -m studies.variants_study smollm2      # the pizza card; about 35 CPU minutes
    python -m studies.variants_study kitchen learn 100 vera  # of the table what these words name

Resumable: a run is a row of ``data/results/variants_kitchen.json`` or ``variants_smollm2.json``. What other
studies recorded is not run again: ELICIT and LEARN at 200 steps of LoRA, rsLoRA and DoRA lie in
``sweep_decoder.json``, LEARN at 100 steps of LoRA in ``budget_curves.json``, LoRA on SmolLM2 in
``qlora_smollm2.json``, with the same data, batches, schedule and measures. Rank 8, alpha 16 and all linear
layers everywhere, float32, one thread. A cell's learning rate is searched on validation with seed 0 (of
ties the lowest), and the chosen one runs on seeds 1 and 2 too. LoRA+ has ``RATIO`` times the rate on B.
"""

import sys

import torch
from peft import LoraConfig, VeraConfig
from peft.optimizers import create_loraplus_optimizer
from torch.optim.lr_scheduler import LambdaLR

from pefthelpers import kitchen, methods, training
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from studies import engine
from studies.engine import Cell
from studies.qlora_study import pizza_scores

SEEDS = (0, 1, 2)
RATIO = 16  # Hayou et al. (2024) propose about 2 ** 4
LADDER = tuple(2.0**k * 1e-3 for k in range(-8, 12))  # 3.9e-6 to 2
# Where a search begins: learning rates of the ladder, for each task with its steps.
FIRST = {
    ("elicit", 100): {"loraplus": (2.5e-4, 5e-4), "pissa": (5e-4, 1e-3), "vera": (3.2e-2, 6.4e-2)},
    ("learn", 100): {
        "loraplus": (1e-3,),
        "pissa": (2e-3,),
        "vera": (0.128,),
        "rslora": (4e-3,),
        "dora": (8e-3,),
    },
    ("learn", 200): {"loraplus": (5e-4,), "pissa": (1e-3,), "vera": (0.128,)},
    ("learn", 800): {"vera": (3.2e-2, 6.4e-2)},  # the others are flat near 1 before
    ("pizza", 24): {
        "loraplus": (5e-4,),
        "pissa": (5e-4,),
        "vera": (6.4e-2,),
        "dora": (4e-3,),
        "rslora": (1e-3, 2e-3),
    },
}
NEW = ("loraplus", "pissa", "vera")  # not in the table of methods
TASKS = {"elicit": kitchen.elicit, "learn": kitchen.learn}


def configuration(method: str, small: bool = True) -> object:
    """Return a method's configuration.

    Args:
        method: ``lora``, ``rslora``, ``dora``, ``loraplus``, ``pissa`` or ``vera``.
        small: for the kitchen decoder, 192 wide; else for SmolLM2, 576 wide.
    """
    everywhere = {"task_type": "CAUSAL_LM", "target_modules": "all-linear"}
    if method == "vera":  # peft's default of 256 is wider than the kitchen's layers
        return VeraConfig(r=64 if small else 256, **everywhere)
    if method == "pissa":  # fast on SmolLM2: its 210 whole SVDs take a minute
        start = "pissa" if small else "pissa_niter_16"
        return LoraConfig(r=8, lora_alpha=16, init_lora_weights=start, **everywhere)
    return methods.config("lora" if method == "loraplus" else method, "decoder")


def fit_plus(
    model, tokenizer, examples, *, learning_rate, steps, batch_size=16, seed=0
) -> list[float]:
    """Train as ``training.fit`` does, by LoRA+: ``RATIO`` times the learning rate on B."""
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=learning_rate, loraplus_lr_ratio=RATIO
    )
    schedule = LambdaLR(optimizer, lambda step: training.learning_rate_factor(step, steps))
    pairs, losses = training.encode(tokenizer, examples), []
    trained = [p for p in model.parameters() if p.requires_grad]
    model.train()
    for chosen in training.batches(pairs, size=batch_size, steps=steps, seed=seed):
        loss = model(**training.collate(tokenizer, chosen)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return losses


def measure(method: str, task: str, steps: int, learning_rate: float, seed: int) -> dict:
    """Fine-tune once; return the method's size, the target's scores and what is kept."""
    fit = fit_plus if method == "loraplus" else training.fit
    if task == "pizza":
        made = engine.tunable(
            configuration(method, small=False), profile="laptop", seed=seed, dtype="float32"
        )
        return pizza_scores(*made, learning_rate, seed, fit=fit, answers=False)
    data = TASKS[task](seed)
    model, tokenizer = engine.tunable(configuration(method), seed=seed)
    losses = fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=steps, seed=seed)
    row = {
        "trainable_parameters": count_parameters(model)[0],
        "train_loss": sum(losses[-10:]) / 10,
        "general_loss": mean_loss(model, tokenizer, kitchen.retention()["documents"]),
    }
    for split in ("validation", "test"):
        row[split] = exact_match(model, tokenizer, getattr(data, split))
        row[f"{split}_loss"] = mean_loss(model, tokenizer, getattr(data, split))
    return {name: round(value, 5) for name, value in row.items()}


def cells(part: str, asked: set[str]) -> list[Cell]:
    """Return the table of a part, ``kitchen`` or ``smollm2``: where asked, of tasks, steps, methods."""
    found = []
    for (task, steps), firsts in FIRST.items():
        for method, rates in firsts.items():
            names = {task, str(steps), method}
            kinds = ({"elicit", "learn"}, {"100", "200", "800"}, {*methods.LABELS, *NEW})
            wanted = all(not asked & kind or asked & kind & names for kind in kinds)
            if wanted and (task == "pizza") == (part == "smollm2"):
                begin = [min(range(len(LADDER)), key=lambda k: abs(LADDER[k] - r)) for r in rates]
                key = {"method": method, "task": task, "steps": steps}
                found.append(Cell(key, LADDER, begin))
    return found


def main() -> None:
    """Run what is not in the record yet."""
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    if part not in ("kitchen", "smollm2"):
        sys.exit("usage: python -m studies.variants_study kitchen|smollm2 [TASK STEPS METHOD …]")
    table = cells(part, set(sys.argv[2:]))
    engine.run_study(f"variants_{part}", table, measure, SEEDS)


if __name__ == "__main__":
    main()
