"""Prefix tuning and Houlsby adapters on SmolLM2-135M, for notebook 07.

    pefthelpers fetch laptop
    python -m studies.sweep_smollm2     (resumable; about 25 CPU minutes)

Data, steps, batches, measures and seeds are those of ``qlora_study.py``, which recorded LoRA, QLoRA
and full fine-tuning. The prefix starts as the keys and values of a system message that asks for the
style (``laptop_prefix_study.py``). One row a run in ``data/results/sweep_smollm2.json``.
"""

import torch
from peft import get_peft_model

from peftbottleneck import BottleneckConfig
from pefthelpers import models, session
from pefthelpers.paths import data_dir
from studies.engine import Study, search_learning_rate
from studies.laptop_prefix_study import with_text_prefix
from studies.qlora_study import SEEDS, pizza_scores

LADDER = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 1.3e-1)
FIRST = {"houlsby": (1, 2), "prefix": (3, 4)}


def build(method: str, seed: int):
    """Return (SmolLM2 made trainable by a method, tokenizer)."""
    if method == "prefix":
        return with_text_prefix()
    model, tokenizer = models.load("decoder", "laptop", dtype="float32")
    torch.manual_seed(seed)
    config = BottleneckConfig(task_type="CAUSAL_LM", placement="houlsby", reduction_factor=16)
    return get_peft_model(model, config), tokenizer


def main() -> None:
    """Run what is not in the record yet."""
    torch.set_num_threads(1)
    session.quiet()
    study = Study(data_dir() / "results" / "sweep_smollm2.json")
    for method, first in FIRST.items():

        def measure(learning_rate: float, seed: int = 0, method=method) -> dict:
            run = lambda: pizza_scores(*build(method, seed), learning_rate, seed)
            return study.measure(run, method=method, learning_rate=learning_rate, seed=seed)

        chosen = search_learning_rate(measure, LADDER, first)
        for seed in SEEDS:
            measure(chosen["learning_rate"], seed)


if __name__ == "__main__":
    main()
