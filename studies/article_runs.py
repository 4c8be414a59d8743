"""The article's four runs at full size: peak and operations of a step, for every listed model.

    python -m studies.article_runs           (resumable; some CPU minutes, no GPU, no weights)
    python -m studies.article_runs --table   (what each card takes, from the record)
    python -m studies.article_runs --folder llama-3.2-3b FOLDER
                                             (random weights of that shape, to try MODEL=FOLDER)

One row a run, model and way in ``data/results/article_runs.json``: the peak by the closed form, or by a
trace where it has none; operations traced at two depths, in which they are linear. The largest model of
each run is traced at full depth too (``data/results/article_traces.json``). The methods are those that the
sections of notebooks 02, 04, 05 and 06 build.
"""

import sys

import torch
from peft import LoraConfig, PeftConfig, PrefixTuningConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

import peftruns
from peftbottleneck import BottleneckConfig
from pefthelpers.paths import data_dir
from peftmemory.configs import load_config
from peftmemory.predict import predict
from peftmemory.tracing import trace_step
from peftmemory.tracing.heads import hf_config
from peftmemory.tracing.step import Trace
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


def one_row(name: str, model: str, batch: int, accumulation: int, checkpointing: bool) -> dict:
    """Return a step's peak, by the closed form or a trace, and its operations."""
    way = {"batch": batch, "accumulation": accumulation, "checkpointing": checkpointing}
    options, shape = way_options(name, way), shape_of(model)
    found = predict(shape, METHODS[name], **options)
    return {
        "peak_bytes": found.peak,
        "traced": isinstance(found, Trace),
        "moment": found.peak_moment,
        "flops": operations(shape, METHODS[name], options),
    }


def operations(shape: str, method: PeftConfig, options: dict) -> int:
    """Return the operations of a step: traced at two depths, which gives the line exactly."""
    raw = load_config(shape).raw
    depths = [
        key for key in ("num_hidden_layers", "num_layers", "num_decoder_layers") if key in raw
    ]
    two, four = (
        trace_flops(raw | dict.fromkeys(depths, layers), method, **options).total
        for layers in (2, 4)
    )
    return two + (four - two) // 2 * (raw[depths[0]] - 2)


def traced_row(name: str, model: str) -> dict:
    """Trace the first way of a run's largest model at full depth: what the formula is held against."""
    options, shape = way_options(name, RUNS[name]["ways"][0]), shape_of(model)
    return {"whole_trace_bytes": trace_step(shape, METHODS[name], **options).peak}


def random_folder(shape: str, folder: str) -> None:
    """Write a model of a shape with random bf16 weights, made on the GPU if there is one; kitchen words."""
    config = hf_config(load_config(shape), torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(data_dir() / "kitchen" / "decoder").save_pretrained(folder)


def main() -> None:
    """Trace what is not in the record yet, print what it says of each card, or write a random model."""
    if "--folder" in sys.argv[1:]:
        return random_folder(*sys.argv[2:4])
    if "--table" in sys.argv[1:]:
        for name in RUNS:
            print(name, peftruns.by_card(name).to_string(), sep="\n")
        return None
    keys = [
        {"name": name, "model": model, **way}
        for name, sheet in RUNS.items()
        for model in sheet["models"]
        for way in sheet["ways"]
    ]
    engine.start("article_runs").measure_each(keys, one_row)
    largest = [{"name": name, "model": sheet["models"][0]} for name, sheet in RUNS.items()]
    engine.start("article_traces").measure_each(largest, traced_row)


if __name__ == "__main__":
    main()
