"""What a step needs at its worst moment: the closed form."""

from collections import Counter
from typing import Any

from peftmemory.activations import Layer
from peftmemory.compatibility import refuse_together
from peftmemory.configs import ModelConfig, load_config
from peftmemory.counts import LLAMA_LIKE, block_linear, parameters
from peftmemory.errors import EstimateError
from peftmemory.methods import Full, Method, Prefix, describe, read_method
from peftmemory.model_states import (
    base_bytes,
    optimizer_bytes,
    trained_bytes_each,
    trained_tensors,
)
from peftmemory.phases import Moments
from peftmemory.saved_tensors import layers_kept, rotary, rows, saved_activations
from peftmemory.settings import Setting, read_setting

TILE_TOKENS, TILE_WIDTH = 4096, 32768  # TRL 1.16's chunked loss


class Estimate(Moments):
    """What the closed form gives: six moments that can be the worst."""


def estimate(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> Estimate:
    """Estimate the peak memory of one training step of a Llama-like decoder on one device.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        batch: sequences per step.
        seq: tokens per sequence.
        options: fields of ``Setting``: precision, autocast, optimizer, checkpointing, attention,
            loss, padding, accumulation, autocast_adapter_dtype, double_quant, prepare_kbit.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    config, described = load_config(model), read_method(method)
    setting = read_setting(batch, seq, options)
    refuse(config)
    refuse_together(described, setting)
    return Estimate(
        model=config.name,
        method=describe(described),
        setting=setting,
        trainable=parameters(config, described).trainable,
        moments=moments(config, described, setting),
    )


def refuse(config: ModelConfig) -> None:
    """Refuse a model whose activations are not described.

    Raises:
        EstimateError: one sentence that says what to do instead.
    """
    if config.model_type not in LLAMA_LIKE:
        raise EstimateError(
            f"The closed form covers {' and '.join(LLAMA_LIKE)} models: trace {config.name} with"
            " peftmemory.tracing.trace_step, or --trace on the command line."
        )


def moments(config: ModelConfig, method: Method, setting: Setting) -> dict[str, dict[str, int]]:
    """Return the bytes by kind at the six moments that can be the worst."""
    parts = Parts(config, method, setting)
    found = {
        "forward, loss": parts.forward_loss(),
        "backward, loss": parts.backward_loss(),
        "backward, last layer": parts.backward_layer(first=False),
        "backward, first layer": parts.backward_layer(first=True),
        "backward, embedding": parts.backward_embedding(),
        "optimizer": parts.optimizer(),
    }
    return {moment: {k: v for k, v in kinds.items() if v} for moment, kinds in found.items()}


class Parts:
    """The pieces that moments are put together from, in bytes."""

    def __init__(self, config: ModelConfig, method: Method, setting: Setting):
        """Compute every piece once."""
        self.config, self.method, self.setting = config, method, setting
        self.n = rows(method, setting)
        self.full = isinstance(method, Full)
        self.layer = Layer(config, method, setting)
        each, tensors = trained_bytes_each(method, setting), trained_tensors(config, method)
        self.gradients = sum(size * count for size, count in tensors.items()) * each
        self.states = optimizer_bytes(tensors, each, setting.optimizer)
        self.kept = saved_activations(config, method, setting)
        self.head_gradient = config.vocab_size * config.hidden_size * each if self.full else 0
        # bf16 or fp32 logits: what the output head's product gives.
        self.logits = self.layer.c * self.n * config.vocab_size
        if setting.loss == "chunked":
            self.logits = 0

    def resting(self, *, accumulated: bool = True) -> Counter[str]:
        """Return what is alive during the whole step."""
        base = base_bytes(self.config, self.setting)
        kinds: Counter[str] = Counter()
        kinds["frozen_weights"] = 0 if self.full else base
        kinds["trainable_weights"] = base if self.full else self.gradients
        kinds["optimizer_states"] = self.states
        inputs = 8 * self.setting.tokens * (2 if self.setting.padding else 1)
        kinds["activations"] = inputs + self.held_cache()
        if self.setting.accumulation and accumulated:
            kinds["gradients"] = self.gradients
        return kinds

    def held_cache(self) -> int:
        """Return the keys and values a prefix's cache holds beside the repeated ones autograd keeps.

        The cache is part of the outputs, which a plain loop holds until after the backward pass.
        """
        repeated = self.config.heads != self.config.kv_heads
        if not (isinstance(self.method, Prefix) and repeated):
            return 0
        keys = self.setting.batch * self.layer.keys * self.config.layers
        return 2 * self.layer.e * self.config.kv_dim * keys

    def forward_loss(self) -> Counter[str]:
        """Return the end of the forward pass: logits, their fp32 copy, the log-probabilities."""
        kinds = self.resting()
        kinds["activations"] += self.activations() + self.hidden() + self.cast_cache()
        kinds["logits"] = self.log_probabilities() + self.logits
        if self.setting.loss == "chunked":
            kinds["logits"] = self.tile()
        elif self.layer.c == 2:
            kinds["logits"] += 4 * self.n * self.config.vocab_size
        return kinds

    def backward_loss(self) -> Counter[str]:
        """Return the loss's backward pass: two more fp32 tensors of the logits' shape."""
        kinds = self.resting()
        kinds["activations"] += self.activations()
        if self.setting.loss == "chunked":
            sums = 4 * self.config.hidden_size * self.n + 2 * self.head_gradient
            copies = self.layer.c * self.config.hidden_size * self.n + self.head_gradient
            kinds["logits"] = sums + max(self.tile(), copies)
        else:
            two = 8 * self.n * self.config.vocab_size
            kinds["logits"] = self.log_probabilities() + self.logits + two
        return kinds

    def backward_layer(self, *, first: bool) -> Counter[str]:
        """Return a layer's backward pass: the last layer's comes first, the first layer's last."""
        kinds = self.resting()
        layers = self.config.layers
        kept_first, kept_other = layers_kept(self.config, self.method, self.setting)
        layer = kept_first if first else kept_other
        one = sum(layer.per_token.values()) * self.n + layer.fixed
        if self.setting.checkpointing:
            inputs = self.kept["layer inputs"] + self.kept.get("adapters", 0)
            kinds["activations"] += round(one) + (inputs // layers if first else inputs)
        else:
            kinds["activations"] += round(one) if first else self.activations() - self.end()
        kinds["activations"] += rotary(self.config, self.method, self.setting)
        kinds["logits"] = self.logits
        kinds["temporaries"] = self.layer_temporaries()
        if not self.setting.accumulation:
            kinds["gradients"] = self.gradients if first else self.head_gradient
            if first and self.full and not self.config.tied:
                kinds["gradients"] -= self.head_gradient
        return kinds

    def backward_embedding(self) -> Counter[str]:
        """Return the end of the backward pass: all gradients, and the embedding's that is new.

        A tied embedding gets a second gradient from the output head; accumulated gradients stand
        beside new ones until these are added.
        """
        kinds = self.resting()
        kinds["gradients"] = self.gradients
        kinds["logits"] = self.logits
        new = self.config.tied + self.setting.accumulation
        kinds["temporaries"] = self.head_gradient * new
        kinds["activations"] += self.layer.e * self.config.hidden_size * self.n
        return kinds

    def optimizer(self) -> Counter[str]:
        """Return the optimiser's step: the foreach variant holds one temporary per parameter."""
        kinds = self.resting(accumulated=False)
        kinds["activations"] -= self.held_cache()  # gone with the outputs
        kinds["gradients"] = self.gradients
        if self.setting.optimizer == "adamw_torch":
            kinds["temporaries"] = self.gradients
        return kinds

    def log_probabilities(self) -> int:
        """Return the fp32 log-probabilities the loss keeps."""
        plain = self.setting.loss == "plain"
        return 4 * self.n * self.config.vocab_size if plain else 0

    def activations(self) -> int:
        """Return all that is kept, without the log-probabilities."""
        return sum(self.kept.values()) - self.log_probabilities()

    def end(self) -> int:
        """Return what the last norm, head and loss keep, gone before the layers' backward."""
        h = self.config.hidden_size
        return (4 * h + 4 + (self.layer.c * h if self.full else 0)) * self.n

    def hidden(self) -> int:
        """Return the last hidden states where nothing else keeps them."""
        kept = self.full and self.layer.c == self.layer.e or self.setting.loss == "chunked"
        return 0 if kept else self.layer.e * self.config.hidden_size * self.n

    def cast_cache(self) -> int:
        """Return autocast's bf16 copies of trained fp32 weights, cached until its block ends.

        Without checkpointing autograd keeps them anyway.
        """
        mixed = self.setting.autocast and self.setting.precision == "fp32"
        return 2 * block_linear(self.config) * (self.full and mixed and self.setting.checkpointing)

    def tile(self) -> int:
        """Return the chunked loss's one tile of logits."""
        width = min(self.config.vocab_size, TILE_WIDTH)
        return self.layer.c * min(self.n, TILE_TOKENS) * width

    def layer_temporaries(self) -> int:
        """Return a layer's gradients of activations at their worst, in its feed-forward part.

        Read off traced steps of small models with the widths h and I and the batch varied one at
        a time: the only part of the closed form that is not derived. It decides the peak only
        where checkpointing and a chunked loss leave nothing larger.
        """
        h, i, y = self.config.hidden_size, self.config.intermediate_size, self.layer.y
        four_bit, own_copy = self.setting.precision == "nf4", self.layer.w != self.layer.e
        if self.full:
            return (2 * y * i + 4 * h) * self.n + self.layer.e * h * i  # and down's gradient
        if "down_proj" in self.layer.scaled:
            size = (3 * y + self.layer.w + 2) * i + 2 * self.layer.e * h
        elif "down_proj" not in self.layer.adapted:
            size = 3 * y * i + 2 * self.layer.e * h
        elif self.setting.autocast:
            size = 3 * y * i + (20 if four_bit else 12) * h
        elif own_copy:
            size = 2 * y * i + (12 if four_bit else 14) * h
        else:
            size = 2 * y * i + 4 * h
        return size * self.n
