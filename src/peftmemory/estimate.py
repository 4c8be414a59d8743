"""What a step needs at its worst moment: the closed form, in the order in which a step runs."""

from typing import Any

from peftmemory.activations import Layer
from peftmemory.configs import LLAMA_LIKE, ModelConfig, load_config
from peftmemory.constants import GIB, OFFLOAD_STASH, TILE_TOKENS, TILE_WIDTH, liger_rows
from peftmemory.counts import block_linear, elements
from peftmemory.errors import EstimateError, NoFormulaError, no_formula
from peftmemory.methods import Method, describe, read_method
from peftmemory.model_states import base_bytes, trained_bytes_each
from peftmemory.optimizers import paged_bytes, state_bytes, step_bytes
from peftmemory.phases import Estimate
from peftmemory.saved_tensors import prefix_cache, rotary, saved_by, selected
from peftmemory.settings import StepSetting, read_setting, refuse_together
from peftmemory.temporaries import attention_temporaries, layer_temporaries
from peftmemory.trained import parameters, trained_tensors


def estimate(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> Estimate:
    """Estimate the peak memory of one training step of a Llama-like decoder on one device.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        batch: sequences per step.
        seq: tokens per sequence.
        options: fields of ``StepSetting``: precision, autocast, optimizer, checkpointing, attention,
            loss, padding, accumulation, autocast_adapter_dtype, double_quant, prepare_kbit,
            free_outputs.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    config, described = load_config(model), read_method(method)
    setting = read_setting(batch=batch, seq=seq, **options)
    return closed_form(config, described, setting)


def closed_form(config: ModelConfig, method: Method, setting: StepSetting) -> Estimate:
    """Return what ``estimate`` returns, once model, method and setting are read."""
    refuse_uncovered(config, setting)
    refuse_together(method, setting)
    step = StepBytes(Layer(config, method, setting))
    return Estimate(
        model=config.name,
        method=describe(method),
        setting=setting,
        trainable=parameters(config, method).trainable,
        moments=step.moments(),
        notes=(*config.notes, *paged_note(step.paged)),
    )


def by_formula_alone(config: ModelConfig, method: Method, setting: StepSetting) -> Estimate:
    """Return what ``closed_form`` returns, for a question that a trace does not answer.

    Raises:
        EstimateError: what the closed form refuses, without the advice to trace it.
    """
    try:
        return closed_form(config, method, setting)
    except NoFormulaError as error:
        what = str(error).split(": trace it")[0]
        raise EstimateError(f"{what}, and this question cannot be traced.") from error


def paged_note(paged: int) -> list[str]:
    """Return the sentence about optimiser states that need not be on the card."""
    where = "in paged memory, which leaves the card when it is full: not counted."
    return [f"Of the optimiser's states {paged / GIB:.2f} GiB lie {where}"] if paged else []


# Fields of a published configuration that change a step's bytes, and the values the formula knows.
KNOWN = {
    "hidden_act": ("silu", "swish"),
    "attention_dropout": (0, 0.0),
    "partial_rotary_factor": (1, 1.0),
}


def refuse_uncovered(config: ModelConfig, setting: StepSetting) -> None:
    """Refuse a model, or a use of it, whose activations the closed form does not know.

    Raises:
        NoFormulaError: the sentence names what it is.
    """
    if config.model_type not in LLAMA_LIKE:
        known = ", ".join(LLAMA_LIKE)
        raise no_formula(f"The closed form covers {known}, not {config.model_type}")
    for name, values in KNOWN.items():
        if config.raw.get(name, values[0]) not in (*values, None):
            raise no_formula(f"The closed form does not cover {name}={config.raw[name]!r}")
    if setting.head not in (None, "causal-lm"):
        raise no_formula(f"The closed form does not cover a {setting.head}")
    window = config.raw.get("sliding_window")
    slides = config.model_type == "mistral" or config.raw.get("use_sliding_window")
    if slides and window and setting.seq > window:
        raise no_formula(f"The closed form does not cover lengths above the window of {window}")


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
        name = setting.optimizer
        self.paged = paged_bytes(tensors, each, name)[0]
        self.states = state_bytes(tensors, each, name, vocab_size=v) - self.paged
        self.step = step_bytes(tensors, each, name, vocab_size=v)
        self.head_gradient = v * h * each if self.full else 0
        # Loss: logits in a product's format and log-probabilities in fp32, or one tile of logits.
        plain = setting.loss == "plain"
        self.logits, self.log_probabilities = (c * n * v, 4 * n * v) if plain else (0, 0)
        self.tile = c * min(n, TILE_TOKENS) * min(v, TILE_WIDTH)
        # What a plain loop's outputs hold during the backward pass, and the Trainer's do not.
        self.cache = prefix_cache(layer)
        kept = not setting.free_outputs
        self.kept_logits, self.kept_cache = self.logits * kept, self.cache * kept
        self.batch = 8 * setting.batch * setting.seq * (1 + setting.padding + setting.packing)
        self.keep(saved_by(layer))

    def keep(self, saved: dict[str, int]) -> None:
        """Compute the activations: all that autograd keeps but the log-probabilities.

        Of them under checkpointing the layers' inputs; the last hidden states, where nothing else
        keeps them.
        """
        layer, config, setting = self.layer, self.config, self.setting
        self.saved = sum(saved.values()) - self.log_probabilities
        ckpt = setting.checkpointing
        # Eager attention's mask of numbers, which the layers to be computed again hold on to.
        eager = ckpt and setting.attention == "eager"
        self.mask = layer.e * layer.rows * layer.keys * eager
        self.saved += self.mask
        self.inputs = saved["layer inputs"] + saved.get("adapters", 0) if ckpt else 0
        # A layer that is computed again uses the attention's output that was kept of it.
        self.used_again = layer.rows * selected(layer) if ckpt else 0
        self.one_input = self.inputs // config.layers - self.used_again
        if setting.recompute == "offloaded":  # all but the last ones are in the host's memory
            left = self.inputs * min(OFFLOAD_STASH, config.layers) // config.layers
            self.saved -= self.inputs - left
            self.inputs = left
        plain = setting.loss == "plain"
        kept_anyway = self.full and layer.c == layer.e and plain or setting.loss == "chunked"
        self.hidden = 0 if kept_anyway else layer.e * layer.h * layer.rows

    def moments(self) -> dict[str, dict[str, int]]:
        """Return the bytes by kind at the six moments that can be the worst, in a step's order."""
        return {
            "forward, loss": self.forward_loss(),
            "backward, loss": self.backward_loss(),
            "backward, last layer": self.backward_last_layer(),
            "backward, first layer": self.backward_first_layer(),
            "backward, embedding": self.backward_embedding(),
            "optimizer": self.optimizer(),
        }

    def phase(self, *, activations, gradients=0, logits=0, temporaries=0) -> dict[str, int]:
        """Return what a phase holds beside weights, optimiser states and batch.

        ``gradients`` are this batch's: those of earlier ones have all parameters' size.
        """
        kinds = {
            "frozen_weights": 0 if self.full else self.weights,
            "trainable_weights": self.weights if self.full else self.gradients,
            "optimizer_states": self.states,
            "activations": self.batch + activations,
            "gradients": self.gradients if self.setting.accumulation else gradients,
            "logits": logits,
            "temporaries": temporaries,
        }
        return {kind: size for kind, size in kinds.items() if size}

    def forward_loss(self) -> dict[str, int]:
        """End of the forward pass: logits, their fp32 copy, the log-probabilities.

        Autocast's bf16 copies of trained fp32 weights are cached until its block ends; without
        checkpointing autograd keeps them anyway.
        """
        layer, setting = self.layer, self.setting
        activations = self.saved + self.hidden + self.cache
        if self.full and setting.precision == "fp32" and setting.autocast:
            activations += 2 * block_linear(self.config) * setting.checkpointing
        if setting.loss == "chunked":
            return self.phase(activations=activations, logits=self.tile)
        if setting.loss == "liger":
            return self.phase(activations=activations, logits=self.liger())
        copy = 4 * layer.rows * self.config.vocab_size if layer.c == 2 else 0
        logits = self.log_probabilities + self.logits + copy
        return self.phase(activations=activations, logits=logits)

    def liger(self) -> int:
        """Liger's loss: the chunk of logits before is there until the next one is computed.

        A trained head's gradient of a chunk is copied to fp32 before it is added.
        """
        layer, v = self.layer, self.config.vocab_size
        rows = liger_rows(layer.rows, layer.h, v)
        head = (layer.c + 4) * v * layer.h if self.full else layer.c * rows * layer.h
        before = layer.c * rows * v if rows < layer.rows else 0
        return layer.c * rows * v + max(before, head)

    def backward_loss(self) -> dict[str, int]:
        """The loss's backward pass: two more fp32 tensors of the logits' shape.

        The chunked loss sums its gradients in fp32, and then copies them to the stream's format.
        """
        logits = 3 * self.log_probabilities + self.kept_logits
        if self.setting.loss == "chunked":
            hidden = self.layer.h * self.layer.rows
            sums = 4 * hidden + 2 * self.head_gradient
            logits = sums + max(self.tile, self.layer.c * hidden + self.head_gradient)
        return self.phase(activations=self.saved + self.kept_cache, logits=logits)

    def backward_last_layer(self) -> dict[str, int]:
        """The last layer's backward pass comes first: every other layer's activations are there.

        What the last norm, the head and the loss kept is gone. Under checkpointing the layer's
        activations are computed again beside all layers' inputs.
        """
        layer = self.layer
        end = (4 * layer.h + 4 + (layer.c * layer.h if self.full else 0)) * layer.rows
        if self.setting.loss == "liger":  # what it kept are gradients by now
            end = (4 * layer.h + 4 + layer.e * layer.h) * layer.rows + self.head_gradient
        again = layer.other.total(layer.rows) + self.inputs - self.used_again
        activations = again if self.setting.checkpointing else self.saved - end
        return self.backward_layer(activations, self.head_gradient)

    def backward_first_layer(self) -> dict[str, int]:
        """The first layer's backward pass comes last: all gradients but an embedding's are there."""
        layer = self.layer
        activations = layer.first.total(layer.rows) + self.one_input
        embedding = 0 if self.config.tied else self.head_gradient
        return self.backward_layer(activations, self.gradients - embedding)

    def backward_layer(self, activations: int, gradients: int) -> dict[str, int]:
        """A layer's backward pass: its feed-forward part first, then its attention.

        The temporaries are its gradients of activations. Only eager attention, whose scores grow
        with the length squared, can need more than the feed-forward part.
        """
        layer = self.layer
        fed, attended = layer_temporaries(layer), attention_temporaries(layer)
        gone = layer.other.total(layer.rows) - layer.attention_alone.total(layer.rows)
        if attended - gone > fed:
            activations, fed = activations - gone, attended
        return self.phase(
            activations=activations + self.mask + rotary(layer) + self.kept_cache,
            gradients=gradients,
            logits=self.kept_logits,
            temporaries=fed,
        )

    def backward_embedding(self) -> dict[str, int]:
        """End of the backward pass: all gradients, and the embedding's that is new.

        A tied embedding gets a second gradient from the output head; accumulated gradients stand
        beside new ones until these are added. The head's is a transposed view, to which autograd adds
        nothing in place: their sum is a third tensor, when the stream's gradient is gone. The chunked
        loss and autocast's copy give no view.
        """
        tied, setting = self.config.tied, self.setting
        copied = setting.autocast and setting.precision == "fp32"
        summed = self.head_gradient * (tied and setting.loss == "plain" and not copied)
        stream = self.layer.e * self.layer.h * self.layer.rows
        return self.phase(
            activations=stream + self.kept_cache,
            gradients=self.gradients,
            logits=self.kept_logits,
            temporaries=self.head_gradient * (tied + setting.accumulation)
            + max(0, summed - stream),
        )

    def optimizer(self) -> dict[str, int]:
        """The optimiser's step, after the activations."""
        return self.phase(activations=0, gradients=self.gradients, temporaries=self.step)
