"""What LoRA's descendants cost beside LoRA, for notebook 08: memory traced at 3B, time measured in the kitchen.

    python -m studies.variants_cost     (resumable; about 4 CPU minutes, no GPU, no weights)

Memory: the step of ``sweep_cost.py`` (Llama-3.2-3B, bf16, four sequences of 768 tokens with padding, AdamW, no
checkpointing), all linear layers, rank 8, VeRA with peft's rank of 256. LoRA+ has LoRA's tensors and is not
traced; PiSSA has LoRA's shapes. Time: CPU seconds of a training step of the kitchen decoder, sixteen examples,
one thread. The methods take turns in each round, so that another load on the machine meets all of them
alike; a row holds the median over rounds of a step's time divided by LoRA's in the same round, with quartiles.
One row a method in ``data/results/variants_cost.json``.
"""

import statistics
import time

import torch
from peft import LoraConfig, VeraConfig
from peft.optimizers import create_loraplus_optimizer

from pefthelpers import kitchen, models, training
from peftmemory.tracing import trace_step
from studies import engine
from studies.sweep_cost import MODEL, STEP
from studies.variants_study import RATIO, configuration

ROUNDS = 40
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
TRACED = {
    "lora": LoraConfig(**LORA),
    "dora": LoraConfig(**LORA, use_dora=True),
    "rslora": LoraConfig(**LORA, use_rslora=True),
    "pissa": LoraConfig(**LORA, init_lora_weights="pissa"),
    "vera": VeraConfig(r=256, target_modules="all-linear", task_type="CAUSAL_LM"),
}
TIMED = ("lora", "rslora", "loraplus", "dora", "pissa", "vera")


def traced(method: str, **step) -> dict:
    """Trace a method's step on the 3B model; return its peak and sizes."""
    trace = trace_step(MODEL, TRACED[method], **step)
    return {
        "trainable_parameters": trace.trainable,
        "traced_peak_bytes": trace.peak,
        "peak_moment": trace.peak_moment,
    }


def stepper(method: str):
    """Return a function that takes one training step of the kitchen decoder and returns its CPU seconds."""
    model, tokenizer = engine.tunable(configuration(method), seed=0)
    batch = training.collate(tokenizer, training.encode(tokenizer, kitchen.elicit(0).train[:16]))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    if method == "loraplus":
        optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=RATIO
        )
    model.train()

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        return time.process_time() - start

    return step


def started(method: str) -> float:
    """Return the CPU seconds of putting a method on the kitchen decoder."""
    model, _ = models.load("decoder")
    start = time.process_time()
    engine.get_peft_model(model, configuration(method))
    return time.process_time() - start


def timed() -> dict[str, dict]:
    """Time all methods in turns; return for each its step over LoRA's: the median and the quartiles."""
    steppers = {method: stepper(method) for method in TIMED}
    rounds = [{name: step() for name, step in steppers.items()} for _ in range(ROUNDS + 3)][3:]
    found = {}
    for name in TIMED:
        ratios = [each[name] / each["lora"] for each in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        seconds = statistics.median(each[name] for each in rounds)
        found[name] = {"step_cpu_s": seconds, "ratio": middle, "ratio_low": low, "ratio_high": high}
    return found


def main() -> None:
    """Trace and time what is not in the record yet."""
    study = engine.start("variants_cost")
    for method in TRACED:
        key = {"part": "memory", "model": MODEL, "method": method, **STEP}
        study.measure(lambda method=method: traced(method, **STEP), **key)
    if not study.find(part="time"):
        for method, row in timed().items():
            row |= {"start_cpu_s": started(method), "rounds": ROUNDS}
            study.measure(
                lambda row=row: {n: round(v, 4) for n, v in row.items()}, part="time", method=method
            )


if __name__ == "__main__":
    main()
