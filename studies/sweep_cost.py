"""What each method of notebook 07 costs on Llama-3.2-3B: traced peak, trained numbers, file.

    python -m studies.sweep_cost     (resumable; about 10 CPU minutes, no GPU, no weights)

The step is the one of PEFT's own comparison (MetaMathQA, Llama-3.2-3B): bf16, four sequences of 768
tokens with padding, torch's AdamW, no checkpointing. QLoRA's base is NF4 with double quantisation.
Sizes are such as one would choose at this width; adapters are saved in float32, the whole model in
bf16. One row a method in ``data/results/sweep_cost.json``.
"""

import peftmemory
from pefthelpers import methods
from peftmemory.tracing import trace_step
from studies import engine

MODEL = "llama-3.2-3b"
STEP = {"batch": 4, "seq": 768, "padding": True}
# The recipes' sizes (bottlenecks of 48 and 96: about as many numbers as LoRA r = 8 on all linear
# layers), but the prefix without the projection that is thrown away.
SIZES = {name: (row.family, methods.counted(name)) for name, row in methods.METHODS.items()}
SIZES["prefix"] = ("prefix", {"num_virtual_tokens": 30})


def one_row(model: str, method: str, **step) -> dict:
    """Trace a method's step; return its peak and sizes."""
    short, options = SIZES[method]
    described = peftmemory.method(short, **options)
    step |= {"precision": "nf4"} if method == "qlora" else {}
    trace = trace_step(model, described, **step)
    return {
        "described": peftmemory.describe(described),
        "trainable_parameters": trace.trainable,
        "share": trace.trainable / peftmemory.parameters(model).base,
        "file_bytes": trace.trainable * (2 if method == "full" else 4),
        "traced_peak_bytes": trace.peak,
        "closed_form_peak_bytes": peftmemory.estimate(model, described, **step).peak,
        "peak_moment": trace.peak_moment,
    }


def main() -> None:
    """Trace what is not in the record yet."""
    keys = [{"model": MODEL, "method": name, **STEP} for name in methods.LABELS]
    engine.start("sweep_cost").measure_each(keys, one_row)


if __name__ == "__main__":
    main()
