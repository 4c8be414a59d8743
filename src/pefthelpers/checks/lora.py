"""Checks of the exercises in notebook 02."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from pefthelpers.checks.verdict import Verdict, call, judge, tried
from pefthelpers.checks.verdict import check as __getattr__


def largest_rank(answer, *, shapes: list[tuple[int, int]], budget_bytes: int) -> Verdict:
    """Check the largest r whose float32 adapter stays within a budget."""
    per_rank = sum(d_in + d_out for d_in, d_out in shapes)
    return judge("largest_rank", answer, per_rank=per_rank, budget_bytes=budget_bytes)


def lowest(function, *, score, rates: list[float]) -> Verdict:
    """Check ``function(score, rates, solved, limit)``: the lowest rate that solves and keeps.

    Args:
        function: the learner's.
        score: trains at a rate, returns its scores by name; called once the tables are right.
        rates: to be tried with ``score``.
    """
    verdict = tried("lowest", function)
    live = call(function, score, rates, 0.95, 0.7) if verdict.status == "correct" else verdict
    said = f"{verdict.message} Trained here, it chose {live}."
    return live if isinstance(live, Verdict) else Verdict("correct", said)


def replaced(function, *, layer: type) -> Verdict:
    """Check ``function(model, r, alpha)``: each linear layer but the head is a ``layer``.

    Args:
        function: the learner's.
        layer: notebook 02's ``LoRALinear``.
    """
    llama = lambda **size: LlamaForCausalLM(LlamaConfig(**size, vocab_size=32)).eval()
    places = lambda model: [name for name, m in model.named_modules() if isinstance(m, layer)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given = {"llama": llama, "places": places, "peft_gap": peft_gap, "layer": layer}
        return tried("replaced", function, **given)


@torch.no_grad()
def peft_gap(ours, model, r: int, alpha: float) -> float:
    """Return the largest difference of a logit to peft's all-linear LoRA with ours's A and B."""
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs, ids = get_peft_model(copy.deepcopy(model), config).eval(), torch.arange(6)[None]
    for name, module in theirs.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            mine = ours.get_submodule(name)
            mine.B.normal_()
            module.lora_A["default"].weight.copy_(mine.A)
            module.lora_B["default"].weight.copy_(mine.B)
    return (ours(ids).logits - theirs(ids).logits).abs().max().item()
