"""Prefix tuning and Houlsby adapters on SmolLM2-135M, for notebook 07.

    pefthelpers fetch laptop
    python -m studies.sweep_smollm2     (resumable; about 25 CPU minutes)

Data, steps, batches, measures and seeds are those of ``qlora_study.py``, which recorded LoRA, QLoRA
and full fine-tuning. The prefix starts as the keys and values of a system message that asks for the
style (``laptop_prefix_study.py``). One row a run in ``data/results/sweep_smollm2.json``.
"""

from peftbottleneck import BottleneckConfig
from studies import engine
from studies.engine import Cell
from studies.laptop_prefix_study import with_text_prefix
from studies.qlora_study import SEEDS, pizza_scores

LADDER = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 1.3e-1)
CELLS = [
    Cell({"method": "houlsby"}, LADDER, first=(1, 2)),
    Cell({"method": "prefix"}, LADDER, first=(3, 4)),
]


def measure(method: str, learning_rate: float, seed: int) -> dict:
    """Teach SmolLM2 the pizza card by a method."""
    if method == "prefix":
        return pizza_scores(*with_text_prefix(), learning_rate, seed)
    config = BottleneckConfig(task_type="CAUSAL_LM", placement="houlsby", reduction_factor=16)
    made = engine.tunable(config, profile="laptop", seed=seed, dtype="float32")
    return pizza_scores(*made, learning_rate, seed)


if __name__ == "__main__":
    engine.run_study("sweep_smollm2", CELLS, measure, SEEDS)
