"""What a training step holds in memory: the real step of the real configuration, no values."""

import logging
import warnings
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from peftmemory.configs import LLAMA_LIKE, ModelConfig, load_config
from peftmemory.constants import OFFLOAD_STASH
from peftmemory.errors import NoFormulaError
from peftmemory.methods import describe, read_method
from peftmemory.phases import Estimate
from peftmemory.settings import StepSetting, read_setting, refuse_together
from peftmemory.tracing.build import adapt, build_base, materialise
from peftmemory.tracing.gpu_only import ChunkedLoss, LigerLoss, build_optimizer
from peftmemory.tracing.heads import batch_of
from peftmemory.tracing.kernels import gpu_kernels
from peftmemory.tracing.live import LiveStorages
from peftmemory.tracing.refusals import in_one_sentence
from peftmemory.trained import trained_tensors


@dataclass(frozen=True)
class Trace(Estimate):
    """What a trace gives: the peaks of forward, backward and optimizer.

    Beside the formula's kinds of bytes there is ``inputs``, the batch.

    Attributes:
        at_rest: bytes alive between two steps: weights, optimiser states and the batch.
        base: parameters of the model as transformers builds it, without the method.
    """

    at_rest: int
    base: int
    traced: ClassVar[bool] = True


def packed(setting: StepSetting):
    """Tell transformers whether rows hold several documents.

    It looks for packed documents in the position ids; fake ones have no values, so it would build
    a mask to be safe, and a mask costs memory. Flash attention builds none.
    """
    from transformers import masking_utils

    found = (lambda ids: ids) if setting.packing and setting.masked else lambda ids: None
    return patch.object(masking_utils, "find_packed_sequence_indices", found)


@contextmanager
def offloading(setting: StepSetting):
    """Take what checkpointing keeps off the card, but for the last few tensors, as TRL does."""
    stash: dict[int, torch.Tensor] = {}
    numbers = count()

    def leave(tensor: torch.Tensor) -> Any:
        if isinstance(tensor, nn.Parameter) or tensor.nbytes < 1024:
            return tensor
        number = next(numbers)
        stash.pop(number - OFFLOAD_STASH, None)
        stash[number] = tensor
        return number, tensor.shape, tensor.dtype

    def come_back(kept: Any) -> torch.Tensor:
        if torch.is_tensor(kept):
            return kept
        number, shape, dtype = kept
        there = stash.pop(number, None)
        return torch.empty(shape, dtype=dtype) if there is None else there

    on = setting.recompute == "offloaded"
    hooks = torch.autograd.graph.saved_tensors_hooks(leave, come_back) if on else nullcontext()
    with hooks:
        yield


@contextmanager
def quiet():
    """Silence the libraries' advice, which is about models that will really be trained."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch logs whatever a fake tensor cannot do
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)


def trace_step(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> Trace:
    """Trace one training step on fake tensors: real code, real shapes, no values, no GPU.

    The model is built with its PEFT configuration on the meta device and filled with fake
    tensors; the optimiser's states are created; one forward, backward and optimiser step runs
    while every storage is counted.

    Args:
        model: what ``peftmemory.load_config`` takes.
        method: a PEFT configuration, ``"full"``, or a light description.
        batch: sequences per step.
        seq: tokens per sequence.
        options: fields of ``peftmemory.StepSetting``.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    config, setting = load_config(model), read_setting(batch=batch, seq=seq, **options)
    words = check(config, method, setting)
    with quiet(), packed(setting):
        base = build_base(config, setting, device="meta")
        size = sum(each.numel() for each in base.parameters())
        built = adapt(base, config, method, setting)
        notes = notes_on(base, built, config, size)
        if getattr(method, "peft_type", None) == "OSF":
            notes += ("OSF decomposes every weight in fp32 when it is put on: not in this step.",)
        live = LiveStorages(vocab_size=config.vocab_size, tokens=setting.batch * (setting.seq - 1))
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode, live, gpu_kernels(), in_one_sentence("The step", config):
            materialise(built)
            trained, at_rest = run(built, config, setting, live)
    return Trace(
        model=config.name,
        method=words,
        setting=setting,
        moments={each: live.peaks[each] for each in ("forward", "backward", "optimizer")},
        trainable=trained,
        at_rest=at_rest,
        base=size,
        notes=notes,
    )


def notes_on(base: nn.Module, built: nn.Module, config: ModelConfig, count: int) -> tuple[str, ...]:
    """Return what a reader should know of what was traced, a sentence each."""
    notes = [f"Traced as {type(base).__name__}: {count:,} parameters.", *config.notes]
    if getattr(base, "is_loaded_in_4bit", False):
        from peftmemory.tracing.four_bit import share_left_alone

        experts = any(each.dim() == 3 for each in base.parameters())
        if (left := share_left_alone(built)) > 0.5:
            why = "experts stand in 3-D tensors" if experts else "most is no plain linear map"
            notes.append(
                f"4 bits leave {left:.0%} of the frozen bytes as they are: {why}, and bitsandbytes"
                " packs plain linear maps alone."
            )
    return tuple(notes)


def check(config: ModelConfig, method: Any, setting: StepSetting) -> str:
    """Refuse what the formulas refuse, in the same sentences; return the method in words.

    A method, or a feature such as ``modules_to_save``, that they do not cover is left to PEFT.
    """
    try:
        described = read_method(method)
    except NoFormulaError:
        return type(method).__name__.removesuffix("Config")
    refuse_together(described, setting)
    if config.model_type in LLAMA_LIKE:
        with suppress(NoFormulaError):
            trained_tensors(config, described)
    return describe(described)


def run(
    model: nn.Module, config: ModelConfig, setting: StepSetting, live: LiveStorages
) -> tuple[int, int]:
    """Run one steady-state step under ``live``; return trained parameters and bytes at rest."""
    trained = [p for p in model.parameters() if p.requires_grad]
    name_model(model, live)
    optimizer = build_optimizer(setting.optimizer, trained, config.vocab_size)
    create_states(optimizer, trained, live)
    inputs = batch_of(config, setting)
    for _ in range(2 if setting.accumulation else 1):
        live.enter("forward")
        outputs, loss = forward(model, inputs, setting)
        live.enter("backward")
        loss.backward()
        del outputs, loss
    live.enter("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sum(p.numel() for p in trained), sum(live.live.values())


def name_model(model: nn.Module, live: LiveStorages) -> None:
    """Tell the counter what the model's tensors are, and its gradients when they come."""
    for parameter in model.parameters():
        kind = "trainable_weights" if parameter.requires_grad else "frozen_weights"
        live.name([parameter], kind)
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: live.name([p.grad], "gradients"))
    live.name([b for b in model.buffers() if b is not None], "frozen_weights")


def create_states(optimizer, trained: list[nn.Parameter], live: LiveStorages) -> None:
    """Bring the optimiser into its steady state by one step on gradients of its own."""
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for states in optimizer.state.values():
        live.name([s for s in states.values() if torch.is_tensor(s)], "optimizer_states")


def forward(model: nn.Module, inputs: dict[str, torch.Tensor], setting: StepSetting):
    """Return outputs and loss; a plain loop keeps the outputs until after the backward pass."""
    with autocast_as_on_gpu() if setting.autocast else nullcontext(), offloading(setting):
        if setting.loss == "plain":
            outputs = model(**inputs)
            return None if setting.free_outputs else outputs, outputs.loss
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"})
        hidden = outputs.logits  # the output head returns its input
        if setting.loss == "liger":
            return None, LigerLoss.apply(hidden.flatten(0, 1), model.lm_head.weight)
        loss = ChunkedLoss.apply(hidden[:, :-1].flatten(0, 1), model.lm_head.weight)
        return None if setting.free_outputs else outputs, loss


@contextmanager
def autocast_as_on_gpu():
    """Autocast to bf16, with the flag up that PEFT's 4-bit layers look at: the GPU's.

    On a real GPU it is the Trainer's autocast: CUDA's own default, float16, would copy bf16 weights.
    """
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
