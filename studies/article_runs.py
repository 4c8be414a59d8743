"""The article's four runs at full size: traced peak and operations of a step, for every listed model.

    python -m studies.article_runs           (resumable; some CPU minutes, no GPU, no weights)
    python -m studies.article_runs --table   (what each card takes, from the record)

One row a run, model and way in ``data/results/article_runs.json``. The methods are those that the
sections of notebooks 02, 04, 05 and 06 build.
"""

import sys

from peft import LoraConfig, PrefixTuningConfig

import peftruns
from peftbottleneck import BottleneckConfig
from peftmemory.errors import NoFormulaError
from peftmemory.estimate import estimate
from peftmemory.tracing import trace_step
from peftruns.sheet import RUNS, shape_of, way_options
from studies import engine
from studies.memory_flops import trace_flops

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
METHODS = {
    "lora": LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05, target_modules=ATTENTION
    ),
    "prefix": PrefixTuningConfig(
        task_type="SEQ_2_SEQ_LM",
        num_virtual_tokens=30,
        encoder_hidden_size=768,
        prefix_projection=True,
    ),
    "adapters": BottleneckConfig(task_type="SEQ_CLS", placement="houlsby", reduction_factor=16),
    "qlora": LoraConfig(
        task_type="CAUSAL_LM",
        r=64,
        lora_alpha=16,
        lora_dropout=0.05,
        target_modules=[*ATTENTION, "gate_proj", "up_proj", "down_proj"],
    ),
}


def one_row(run: str, model: str, batch: int, accumulation: int, checkpointing: bool) -> dict:
    """Trace a step of a run; return its peak, its operations and the closed form's peak."""
    way = {"batch": batch, "accumulation": accumulation, "checkpointing": checkpointing}
    options = way_options(run, way)
    trace = trace_step(shape_of(model), METHODS[run], **options)
    try:
        closed = estimate(shape_of(model), METHODS[run], **options).peak
    except NoFormulaError:
        closed = None
    return {
        "peak_bytes": trace.peak,
        "closed_form_bytes": closed,
        "moment": trace.peak_moment,
        "trainable": trace.trainable,
        "flops": trace_flops(shape_of(model), METHODS[run], **options).total,
    }


def main() -> None:
    """Trace what is not in the record yet, or print what the record says of each card."""
    if "--table" in sys.argv[1:]:
        for run in RUNS:
            print(run, peftruns.by_card(run).to_string(index=False), sep="\n")
        return
    keys = [
        {"run": run, "model": model, **way}
        for run, sheet in RUNS.items()
        for model in sheet["models"]
        for way in sheet["ways"]
    ]
    engine.start("article_runs").measure_each(keys, one_row)


if __name__ == "__main__":
    main()
