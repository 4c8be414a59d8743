"""What one of several devices holds: data parallelism, ZeRO, FSDP, with and without the host's memory.

Rajbhandari et al. (2020, section 3) part optimiser states, then gradients, then weights among the
devices. What they leave out stands here too: DDP's buckets, weights gathered for a layer, gradients
before they are reduced. Batch and length are one device's.
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

from peftmemory.activations import Layer
from peftmemory.configs import ModelConfig, load_config
from peftmemory.counts import base_parameters, block_linear, elements, linears
from peftmemory.errors import EstimateError, check_size
from peftmemory.estimate import by_formula_alone
from peftmemory.methods import read_method
from peftmemory.model_states import nf4_bytes, trained_bytes_each
from peftmemory.optimizers import state_bytes, step_bytes
from peftmemory.phases import Estimate
from peftmemory.settings import StepSetting, read_setting
from peftmemory.trained import trained_tensors

WEIGHTS = ("frozen_weights", "trainable_weights")
STATES = ("optimizer_states",)


class Strategy(NamedTuple):
    """A way to part a step among devices.

    Attributes:
        parted: the kinds of bytes of which each device holds its share.
        master: DeepSpeed: the optimiser works in fp32, on a copy of 16-bit trained weights.
        offload: what may lie in the host's memory.
    """

    parted: tuple[str, ...]
    master: bool = False
    offload: tuple[str, ...] = ("none",)


STRATEGIES = {
    "ddp": Strategy(()),
    "zero1": Strategy(STATES, True, ("none", "optimizer")),
    "zero2": Strategy((*STATES, "gradients"), True, ("none", "optimizer")),
    "zero3": Strategy((*STATES, "gradients", *WEIGHTS), True, ("none", "optimizer", "all")),
    "fsdp": Strategy((*STATES, "gradients", *WEIGHTS), offload=("none", "all")),
}
# What DeepSpeed 0.18 leaves gathered by default (stage3_max_live_parameters), in parameters.
LIVE_PARAMETERS = 10**9


def per_device(
    model: Any,
    method: Any = "full",
    *,
    devices: int,
    strategy: str = "fsdp",
    offload: str = "none",
    **step: Any,
) -> Estimate:
    """Estimate one device's peak in a step that several share; ``ddp`` on one device is ``estimate``.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        devices: how many share the step.
        strategy: one of ``STRATEGIES``: ``fsdp`` is PyTorch's FSDP2 with a group for each layer
            (FSDP-QLoRA with ``precision="nf4"``: the constants of NF4 are not parted), the others
            DeepSpeed's stages.
        offload: ``optimizer``: gradients and states lie in the host's memory (ZeRO-Offload, Ren et
            al., 2021); ``all``: the weights too.
        step: batch, seq and the other fields of ``StepSetting``; both are one device's.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    check_size("devices", devices)
    if strategy not in STRATEGIES:
        raise EstimateError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}.")
    if offload not in (may := STRATEGIES[strategy].offload):
        raise EstimateError(f"With {strategy} offload is {' or '.join(may)}, not {offload!r}.")
    config, described = load_config(model), read_method(method)
    setting = read_setting(**step)
    alone = by_formula_alone(config, described, setting)
    share = Share(Layer(config, described, setting), devices, STRATEGIES[strategy], offload)
    moments = {name: share.moment(name, kinds) for name, kinds in alone.moments.items()}
    words = f"{alone.method}, {strategy} on {devices}"
    words += f", offload {offload}" * (offload != "none")
    return replace(alone, method=words, moments=moments)


class Share:
    """One device's share of a step, in bytes.

    Attributes:
        gathered: weights that stand whole beside the parted ones.
        constants: NF4's, which are no parameters: every device has them all.
        bucket: gradients that DeepSpeed collects before they are reduced.
        head: the gradient of the output head; ``root``: of the embedding too.
    """

    def __init__(self, layer: Layer, devices: int, strategy: Strategy, offload: str):
        """Compute every size once."""
        config, setting, method = layer.config, layer.setting, layer.method
        self.devices, self.strategy, self.offload = devices, strategy, offload
        self.fsdp, self.accumulation = strategy == STRATEGIES["fsdp"], setting.accumulation
        self.checkpointing, self.kept = setting.checkpointing, layer.other.total(layer.rows)
        tensors, each = trained_tensors(config, method), trained_bytes_each(method, setting)
        trained = elements(tensors)
        self.gradients = each * trained
        self.head = each * config.hidden_size * config.vocab_size * layer.full
        self.root = self.head * (1 if config.tied else 2)
        self.one_gradient = (self.gradients - self.root) // config.layers
        # Two buckets of h * h, the Trainer's reduce_bucket_size, or one larger tensor.
        widest = max(map(math.prod, tensors))
        self.bucket = each * min(trained, max(2 * config.hidden_size**2, widest))
        self.gather(layer)
        self.states = self.step = None
        if strategy.master:
            sized, copy = {"vocab_size": config.vocab_size}, 4 * trained * (each == 2)
            self.states = state_bytes(tensors, 4, setting.optimizer, **sized) + copy
            self.step = step_bytes(tensors, 4, setting.optimizer, **sized) + copy

    def gather(self, layer: Layer) -> None:
        """Compute the weights that stand whole: under FSDP two layers', and what is in no layer."""
        config = layer.config
        self.constants, packed = nf4_parts(config, layer.setting)
        self.one = (packed or block_linear(config) * layer.c) // config.layers
        self.one += 0 if layer.full else self.one_gradient
        self.outside = layer.c * (base_parameters(config) - block_linear(config))
        self.gathered = self.outside + 2 * self.one
        if not self.fsdp:
            whole = self.outside + config.layers * self.one
            self.gathered = min(whole, LIVE_PARAMETERS * layer.c)
        if "frozen_weights" not in self.strategy.parted:
            self.gathered = self.outside = 0

    def part(self, kind: str, size: int) -> int:
        """Return what one device holds of so many bytes of a kind."""
        if kind not in self.strategy.parted:
            return size
        whole = self.constants if kind == "frozen_weights" else 0
        return -(-(size - whole) // self.devices) + whole

    def moment(self, name: str, kinds: dict[str, int]) -> dict[str, int]:
        """Return one moment of the device, from the same moment of a step that is not shared."""
        states = kinds.get("optimizer_states", 0) if self.states is None else self.states
        new = {kind: self.part(kind, size) for kind, size in kinds.items()}
        new["optimizer_states"] = self.part("optimizer_states", states)
        new["gradients"], buckets = self.gradients_at(name, kinds)
        if name == "optimizer":
            step = kinds.get("temporaries", 0) if self.step is None else self.step
            new["temporaries"] = self.part("optimizer_states", step)
        else:
            whole = self.gathered if not self.fsdp or "layer" in name else self.outside
            new["temporaries"] = kinds.get("temporaries", 0) + whole + buckets
        if not self.strategy.parted:  # DDP's buckets are there from the start
            new["temporaries"] = kinds.get("temporaries", 0) + self.gradients * (self.devices > 1)
        return {kind: size for kind, size in self.left_on_card(name, new).items() if size}

    def gradients_at(self, name: str, kinds: dict[str, int]) -> tuple[int, int]:
        """Return a moment's gradients on one device, and what stands beside them until reduced."""
        size = kinds.get("gradients", 0)
        if not name.startswith("backward") or not self.strategy.parted:
            return self.part("gradients", size), 0
        if not self.fsdp:
            return self.part("gradients", size), self.bucket if size else 0
        if name == "backward, loss":
            return self.part("gradients", size), 0
        if name == "backward, embedding":  # the group's gradients and their copy that is reduced
            reduced = size if self.accumulation else size - self.root
            return self.part("gradients", reduced), 2 * self.root
        reduced = size if self.accumulation else max(0, size - self.head - 2 * self.one_gradient)
        return self.part("gradients", reduced), self.head + self.between(name, kinds)

    def between(self, name: str, kinds: dict[str, int]) -> int:
        """Return what FSDP holds at worst where two layers' backward passes meet, beyond a layer's.

        The copy of the layer before that is being reduced; or, when a layer is through, its own
        gradients and their copy; or the next layer's weights twice, while they are copied out.
        """
        through = kinds.get("temporaries", 0) + self.kept
        last = self.kept * (name == "backward, last layer" and not self.checkpointing)
        own = max(2 * self.one_gradient, self.one) - through
        return max(0, self.one_gradient - last, own)

    def left_on_card(self, name: str, kinds: dict[str, int]) -> dict[str, int]:
        """Return a moment without what lies in the host's memory."""
        if self.offload == "none":
            return kinds
        gone = dict.fromkeys(("optimizer_states", "gradients"), 0)
        if name == "optimizer":
            gone["temporaries"] = 0
        if self.offload == "all":
            gone |= {"trainable_weights": 0, "frozen_weights": self.constants}
        return {kind: gone.get(kind, size) for kind, size in kinds.items()}


def nf4_parts(config: ModelConfig, setting: StepSetting) -> tuple[int, int]:
    """Return the bytes of all NF4 constants and of all packed weights; 0 and 0 without NF4."""
    if setting.precision != "nf4":
        return 0, 0
    packed = sum(each.count * -(-each.d_in * each.d_out // 2) for each in linears(config))
    size = lambda each: nf4_bytes(each.d_in * each.d_out, double_quant=setting.double_quant)
    return sum(each.count * size(each) for each in linears(config)) - packed, packed
