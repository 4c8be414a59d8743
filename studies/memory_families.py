"""Count, closed form and trace of every committed shape, family by family.

Run from the checkout: ``python -m studies.memory_families``. Each row is one LoRA step, written to
``data/results/memory_families.json`` as soon as it is there; a row that is there is not traced again.
The count is of the whole model, the step of at most four layers where a file can be cut so (the same
shapes, traced sooner).
"""

import sys
from typing import Any

from pefthelpers import results
from pefthelpers.paths import data_dir
from peftmemory.configs import LLAMA_LIKE, load_config
from peftmemory.errors import EstimateError
from peftmemory.estimate import estimate
from peftmemory.settings import StepSetting
from peftmemory.sources import model_names, read_sheet
from peftmemory.tracing import trace_step
from peftmemory.tracing.build import build_base
from peftmemory.tracing.step import quiet
from studies.memory_cases import LORA_ALL, method_of

RESULT = data_dir() / "results" / "memory_families.json"
LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer")
STEP = {"batch": 1, "seq": 512, "checkpointing": True, "optimizer": "adamw_torch_fused"}
# Families whose every linear map is not to be adapted: routers return tuples.
ATTENTION = {"qwen3_moe": ["q_proj", "v_proj"], "mixtral": ["q_proj", "v_proj"]}
ATTENTION |= {"deepseek_v2": ["q_proj", "o_proj"], "gpt_oss": ["q_proj", "v_proj"]}
ATTENTION |= {"llama4_text": ["q_proj", "v_proj"]}


def built(name: str) -> tuple[int, str]:
    """Return the parameters of transformers' own class on the meta device, and its attention."""
    config = load_config(name)
    for attention in ("sdpa", "eager"):
        try:
            with quiet():
                model = build_base(
                    config, StepSetting(batch=1, seq=8, attention=attention), device="meta"
                )
            return sum(each.numel() for each in model.parameters()), attention
        except EstimateError as error:
            if "attention='eager'" not in str(error):
                raise
    raise AssertionError(f"{name} has neither fused nor eager attention")


def cut(name: str) -> Any:
    """Return a model's shape with at most four layers, or whole where its file lists its layers."""
    raw = load_config(name).raw
    if any(isinstance(value, list) and len(value) > 4 for value in raw.values()):
        return raw
    return {key: min(4, value) if key in LAYERS else value for key, value in raw.items()}


def row_of(name: str) -> dict[str, Any]:
    """Return a model's row: counts, targets, peaks in bytes, or the sentence that refuses them."""
    count, attention = built(name)
    shape, config = cut(name), load_config(name)
    targets = ATTENTION.get(config.model_type, "all-linear")
    method = method_of({**LORA_ALL, "target_modules": targets})
    step = {**STEP, "attention": attention}
    if config.model_type == "vit":
        step["seq"] = 1
    found: dict[str, Any] = {"family": config.model_type, "sheet": read_sheet(name)["parameters"]}
    found |= {"transformers": count, "targets": targets, "attention": attention}
    found["layers"] = load_config(shape).layers
    for way, ask in (("closed_form", estimate), ("trace", trace_step)):
        if way == "closed_form" and config.model_type not in LLAMA_LIKE:
            continue
        try:
            found[way] = ask(shape, method, **step).peak
        except EstimateError as error:
            found[f"{way}_refused"] = str(error)
    return found


def main() -> None:
    """Compute what is missing."""
    rows = results.read(RESULT)["families"] if RESULT.exists() else {}
    for name in model_names():
        if name not in rows:
            rows[name] = row_of(name)
            print(name, rows[name], file=sys.stderr, flush=True)
            results.write(RESULT, {"what": __doc__.splitlines()[0], "step": STEP, "families": rows})


if __name__ == "__main__":
    main()
