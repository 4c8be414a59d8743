"""What a step needs at its worst moment: the closed form, in the order in which a step runs."""

from collections import Counter
from typing import Any

from peftmemory.activations import Layer
from peftmemory.compatibility import refuse_together
from peftmemory.configs import ModelConfig, load_config
from peftmemory.constants import TILE_TOKENS, TILE_WIDTH
from peftmemory.counts import LLAMA_LIKE, block_linear, elements
from peftmemory.errors import EstimateError
from peftmemory.methods import Method, describe, read_method
from peftmemory.model_states import base_bytes, optimizer_bytes, trained_bytes_each
from peftmemory.phases import Moments
from peftmemory.saved_tensors import prefix_cache, rotary, saved_by
from peftmemory.settings import StepSetting, read_setting
from peftmemory.temporaries import layer_temporaries
from peftmemory.trained import parameters, trained_tensors


class Estimate(Moments):
    """What the closed form gives: six moments that can be the worst."""


def estimate(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> Estimate:
    """Estimate the peak memory of one training step of a Llama-like decoder on one device.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        batch: sequences per step.
        seq: tokens per sequence.
        options: fields of ``StepSetting``: precision, autocast, optimizer, checkpointing, attention,
            loss, padding, accumulation, autocast_adapter_dtype, double_quant, prepare_kbit.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    config, described = load_config(model), read_method(method)
    setting = read_setting(batch=batch, seq=seq, **options)
    return closed_form(config, described, setting)


def closed_form(config: ModelConfig, method: Method, setting: StepSetting) -> Estimate:
    """Return what ``estimate`` returns, once model, method and setting are read."""
    if config.model_type not in LLAMA_LIKE:
        raise EstimateError(
            f"The closed form covers {' and '.join(LLAMA_LIKE)} models: trace {config.name} with"
            " peftmemory.tracing.trace_step, or --trace on the command line."
        )
    refuse_together(method, setting)
    return Estimate(
        model=config.name,
        method=describe(method),
        setting=setting,
        trainable=parameters(config, method).trainable,
        moments=moments(Layer(config, method, setting)),
    )


def moments(layer: Layer) -> dict[str, dict[str, int]]:
    """Return the bytes by kind at the six moments that can be the worst, in a step's order."""
    step = StepBytes(layer)
    found = {
        "forward, loss": step.forward_loss(),
        "backward, loss": step.backward_loss(),
        "backward, last layer": step.backward_last_layer(),
        "backward, first layer": step.backward_first_layer(),
        "backward, embedding": step.backward_embedding(),
        "optimizer": step.optimizer(),
    }
    return {moment: {k: v for k, v in kinds.items() if v} for moment, kinds in found.items()}


class StepBytes:
    """One training step in bytes: what stays, what the forward pass leaves, then the six phases.

    Symbols: n rows (tokens, virtual ones too), h hidden size, v vocabulary; bytes per element: e of
    the residual stream, c of what a matrix product reads and writes.
    """

    def __init__(self, layer: Layer):
        """Compute every size once."""
        config, method, setting = layer.config, layer.method, layer.setting
        self.layer, self.config, self.setting, self.full = layer, config, setting, layer.full
        n, h, v, c = layer.rows, layer.h, config.vocab_size, layer.c
        # Model states: weights, gradients, the optimiser's.
        each, tensors = trained_bytes_each(method, setting), trained_tensors(config, method)
        self.weights = base_bytes(config, setting)
        self.gradients = elements(tensors) * each
        self.states = optimizer_bytes(tensors, each, setting.optimizer)
        self.head_gradient = v * h * each if self.full else 0
        # Loss: logits in a product's format and log-probabilities in fp32, or one tile of logits.
        plain = setting.loss == "plain"
        self.logits, self.log_probabilities = (c * n * v, 4 * n * v) if plain else (0, 0)
        self.tile = c * min(n, TILE_TOKENS) * min(v, TILE_WIDTH)
        # Activations: all that autograd keeps but the log-probabilities; of them under
        # checkpointing the layers' inputs; the last hidden states, where nothing else keeps them.
        saved = saved_by(layer)
        self.saved = sum(saved.values()) - self.log_probabilities
        ckpt = setting.checkpointing
        self.inputs = saved["layer inputs"] + saved.get("adapters", 0) if ckpt else 0
        kept_anyway = self.full and c == layer.e or not plain
        self.hidden = 0 if kept_anyway else layer.e * h * n
        self.cache = prefix_cache(layer)

    def always(self, *, accumulated: bool = True) -> Counter[str]:
        """Weights, optimiser states, the batch, a prefix's cache, gradients of earlier batches."""
        batch = 8 * self.setting.tokens * (2 if self.setting.padding else 1)
        return Counter(
            frozen_weights=0 if self.full else self.weights,
            trainable_weights=self.weights if self.full else self.gradients,
            optimizer_states=self.states,
            activations=batch + self.cache,
            gradients=self.gradients if self.setting.accumulation and accumulated else 0,
        )

    def forward_loss(self) -> Counter[str]:
        """End of the forward pass: logits, their fp32 copy, the log-probabilities.

        Autocast's bf16 copies of trained fp32 weights are cached until its block ends; without
        checkpointing autograd keeps them anyway.
        """
        kinds, layer = self.always(), self.layer
        kinds["activations"] += self.saved + self.hidden
        if self.full and self.setting.precision == "fp32" and self.setting.autocast:
            kinds["activations"] += 2 * block_linear(self.config) * self.setting.checkpointing
        if self.setting.loss == "chunked":
            kinds["logits"] = self.tile
        else:
            copy = 4 * layer.rows * self.config.vocab_size if layer.c == 2 else 0
            kinds["logits"] = self.log_probabilities + self.logits + copy
        return kinds

    def backward_loss(self) -> Counter[str]:
        """The loss's backward pass: two more fp32 tensors of the logits' shape.

        The chunked loss sums its gradients in fp32, and then copies them to the stream's format.
        """
        kinds = self.always()
        kinds["activations"] += self.saved
        if self.setting.loss == "chunked":
            hidden = self.layer.h * self.layer.rows
            sums = 4 * hidden + 2 * self.head_gradient
            copies = self.layer.c * hidden + self.head_gradient
            kinds["logits"] = sums + max(self.tile, copies)
        else:
            kinds["logits"] = 3 * self.log_probabilities + self.logits
        return kinds

    def backward_last_layer(self) -> Counter[str]:
        """The last layer's backward pass comes first: every other layer's activations are there.

        What the last norm, the head and the loss kept is gone. Under checkpointing the layer's
        activations are computed again beside all layers' inputs.
        """
        layer = self.layer
        end = (4 * layer.h + 4 + (layer.c * layer.h if self.full else 0)) * layer.rows
        again = layer.other.total(layer.rows) + self.inputs
        kinds = self.backward_layer(again if self.setting.checkpointing else self.saved - end)
        if not self.setting.accumulation:
            kinds["gradients"] = self.head_gradient
        return kinds

    def backward_first_layer(self) -> Counter[str]:
        """The first layer's backward pass comes last: all gradients but an embedding's are there."""
        layer = self.layer
        kinds = self.backward_layer(
            layer.first.total(layer.rows) + self.inputs // self.config.layers
        )
        if not self.setting.accumulation:
            embedding = 0 if self.config.tied else self.head_gradient
            kinds["gradients"] = self.gradients - embedding
        return kinds

    def backward_layer(self, activations: int) -> Counter[str]:
        """A layer's backward pass, whose temporaries are its gradients of activations."""
        kinds = self.always()
        kinds["activations"] += activations + rotary(self.layer)
        kinds["logits"] = self.logits
        kinds["temporaries"] = layer_temporaries(self.layer)
        return kinds

    def backward_embedding(self) -> Counter[str]:
        """End of the backward pass: all gradients, and the embedding's that is new.

        A tied embedding gets a second gradient from the output head; accumulated gradients stand
        beside new ones until these are added.
        """
        kinds = self.always()
        kinds["activations"] += self.layer.e * self.layer.h * self.layer.rows
        kinds["gradients"] = self.gradients
        kinds["logits"] = self.logits
        kinds["temporaries"] = self.head_gradient * (self.config.tied + self.setting.accumulation)
        return kinds

    def optimizer(self) -> Counter[str]:
        """The optimiser's step: the foreach variant holds one temporary per parameter."""
        kinds = self.always(accumulated=False)
        kinds["activations"] -= self.cache  # gone with the outputs
        kinds["gradients"] = self.gradients
        if self.setting.optimizer == "adamw_torch":
            kinds["temporaries"] = self.gradients
        return kinds
