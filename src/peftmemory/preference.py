"""DPO and GRPO: what a step on preferences or on rewards holds, in the order in which TRL 1.16 runs it."""

from dataclasses import replace
from typing import Any

from peftmemory.activations import Layer
from peftmemory.configs import load_config
from peftmemory.errors import EstimateError, check_size
from peftmemory.estimate import StepBytes, by_formula_alone
from peftmemory.methods import Full, Method, read_method
from peftmemory.model_states import base_bytes
from peftmemory.phases import Estimate
from peftmemory.serving import cache_of_one
from peftmemory.settings import StepSetting, read_setting

REFERENCES = ("adapter-off", "second-model", "precomputed", "none")
# TRL's: log-probabilities are computed tile by tile, sequences of unequal length are padded.
DEFAULTS = {"loss": "chunked", "padding": True, "free_outputs": True}


def dpo(
    model: Any, method: Any = "full", *, batch: int, seq: int, reference: str = "", **options: Any
) -> Estimate:
    """Estimate a step of DPO (Rafailov et al., 2023): chosen and rejected answers in one batch.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        batch: pairs per step: twice as many sequences.
        seq: tokens per sequence, padding included.
        reference: ``adapter-off`` (the same weights, TRL's choice for an adapter), ``second-model``
            (TRL's choice for full fine-tuning), or ``precomputed``.
        options: fields of ``StepSetting``.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    check_size("batch", batch)
    setting = read_setting(batch=2 * batch, seq=seq, **DEFAULTS | options)
    step, alone = both(model, method, setting)
    reference = check_reference(reference or usual(step.layer.method), step.layer.method)
    moments = {}
    for name, kinds in alone.moments.items():
        moments[name] = kinds
        if name == "forward, loss" and reference in REFERENCES[:2]:
            moments["reference"] = step.phase(
                activations=step.saved, logits=step.tile, temporaries=reading(step.layer)
            )
    return finish(alone, moments, step, f"DPO on {batch} pairs, reference {reference}", reference)


def grpo(
    model: Any,
    method: Any = "full",
    *,
    batch: int,
    seq: int,
    generated: int | None = None,
    reference: str = "none",
    **options: Any,
) -> Estimate:
    """Estimate a step of GRPO (Shao et al., 2024): answers are generated, then trained on.

    Generation is transformers' own. vLLM on the same card takes its share of the card
    (``vllm_gpu_memory_utilization``) beside the step.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        batch: sequences per step (TRL's ``per_device_train_batch_size``).
        seq: tokens per sequence, prompt and completion.
        generated: sequences generated at a time; None: ``batch`` (TRL: ``steps_per_generation``
            times as many).
        reference: ``none`` (TRL's ``beta=0``), ``adapter-off`` or ``second-model``.
        options: fields of ``StepSetting``.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    rows = batch if generated is None else generated
    check_size("generated", rows)
    setting = read_setting(batch=batch, seq=seq, **DEFAULTS | options)
    step, alone = both(model, method, setting)
    reference = check_reference(reference, step.layer.method)
    config, width = step.config, step.layer.c
    cache = rows * cache_of_one(config, seq, width)
    # A step's keys and values of one layer are put together anew; logits of the last token in fp32.
    made = cache // config.layers + rows * config.vocab_size * (4 + width)
    moments = {"generation": step.phase(activations=cache, temporaries=made)}
    if reference in REFERENCES[:2]:
        moments["reference"] = step.phase(
            activations=0, logits=step.tile, temporaries=reading(step.layer)
        )
    return finish(alone, moments | alone.moments, step, f"GRPO, reference {reference}", reference)


def both(model: Any, method: Any, setting: StepSetting) -> tuple[StepBytes, Estimate]:
    """Return the sizes and the estimate of the training step itself."""
    if setting.loss != "chunked":
        raise EstimateError(
            "TRL computes DPO's and GRPO's log-probabilities tile by tile: take loss='chunked'."
        )
    config, described = load_config(model), read_method(method)
    alone = by_formula_alone(config, described, setting)
    return StepBytes(Layer(config, described, setting)), alone


def usual(method: Method) -> str:
    """Return the reference that TRL takes: the adapter switched off, or a second model."""
    return "second-model" if isinstance(method, Full) else "adapter-off"


def check_reference(reference: str, method: Method) -> str:
    """Refuse a reference that there is not.

    Raises:
        EstimateError: an unknown one, or one without an adapter to switch off.
    """
    if reference not in REFERENCES:
        raise EstimateError(f"reference must be one of {', '.join(REFERENCES)}, not {reference!r}.")
    if reference == "adapter-off" and isinstance(method, Full):
        raise EstimateError(
            "Full fine-tuning has no adapter to switch off: take reference second-model or precomputed."
        )
    return reference


def reading(layer: Layer) -> int:
    """Return the bytes of a layer's temporaries in a forward pass that keeps nothing.

    The residual stream and the norm's output, and the feed-forward part's three wide tensors; eager
    attention's scores, if they need more; the batch's mask.
    """
    config = layer.config
    wide = 3 * layer.y * layer.i
    if layer.setting.attention == "eager":
        wide = max(wide, (4 + 2 * layer.c) * config.heads * layer.keys)
    mask = (1 + layer.c) * layer.keys * layer.masked
    return (wide + 2 * layer.e * layer.h + mask) * layer.rows


def finish(
    alone: Estimate, moments: dict[str, dict[str, int]], step: StepBytes, words: str, reference: str
) -> Estimate:
    """Return an estimate of these moments, a second model's weights in each."""
    second = base_bytes(step.config, step.setting) if reference == "second-model" else 0
    full = {
        name: kinds | {"frozen_weights": kinds.get("frozen_weights", 0) + second}
        for name, kinds in moments.items()
    }
    kept = {name: {k: v for k, v in kinds.items() if v} for name, kinds in full.items()}
    return replace(alone, method=f"{alone.method}, {words}", moments=kept)
