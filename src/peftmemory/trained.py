"""Which tensors a method trains, and how many parameters that makes."""

import re
from collections import Counter
from dataclasses import dataclass

from peftmemory import methods
from peftmemory.configs import ModelConfig, load_config
from peftmemory.counts import (
    Linear,
    Shapes,
    base_parameters,
    elements,
    linears,
    model_tensors,
)
from peftmemory.errors import EstimateError, no_formula

# PEFT's default targets (peft.utils.constants, 0.21).
LORA_DEFAULT = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), ("q_proj", "v_proj")),
    "gpt2": ("c_attn",),
    "t5": ("q", "v"),
    "roberta": ("query", "value"),
}
ALL_NORMS, KEYS_VALUES = ("input", "post_attention", "final"), ("k_proj", "v_proj", "down_proj")
NORMS_TUNED = {"llama": ALL_NORMS, "mistral": ALL_NORMS} | dict.fromkeys(
    ("qwen2", "qwen3"), ("post_attention",)
)
# Feed-forward ones are scaled on their input.
IA3_SCALED = {"llama": KEYS_VALUES, "mistral": KEYS_VALUES} | dict.fromkeys(
    ("qwen2", "qwen3"), ("q_proj", "v_proj", "down_proj")
)
# Modules outside the layers that LoRA can adapt too, under the names that families give them.
OUTSIDE_LAYERS = ("lm_head", "embed_tokens", "wte", "shared")


@dataclass(frozen=True)
class Parameters:
    """Counts in parameters (not bytes).

    Attributes:
        base: the model as published.
        added: what the method adds.
        trainable: what the optimiser sees.
    """

    base: int
    added: int
    trainable: int

    @property
    def share(self) -> float:
        """Trainable over base."""
        return self.trainable / self.base


def targets(config: ModelConfig, method: methods.Lora) -> list[Linear]:
    """Return the linear maps a LoRA configuration adapts, by PEFT's rules.

    A list holds names (or ends of paths), a string is ``"all-linear"`` or a pattern that has to
    match a whole path such as ``model.layers.0.self_attn.q_proj``.
    """
    available = linears(config)
    wanted = method.target_modules or LORA_DEFAULT.get(config.model_type)
    if wanted is None:
        raise EstimateError(
            f"PEFT has no default targets for {config.model_type}: name them, or take all-linear."
        )
    if wanted == "all-linear":
        return available
    if isinstance(wanted, str):
        return matching(config, wanted)
    fits = lambda each, name: f".{each.path}".endswith(f".{name}")
    missing = [name for name in wanted if not any(fits(each, name) for each in available)]
    if outside := [name for name in missing if name.rpartition(".")[2] in OUTSIDE_LAYERS]:
        raise no_formula(f"The formulas do not cover {', '.join(outside)} as a target")
    if missing:
        names = ", ".join(sorted({each.name for each in available}))
        raise EstimateError(f"{config.name} has no module {', '.join(missing)}: it has {names}.")
    return [each for each in available if any(fits(each, name) for name in wanted)]


def matching(config: ModelConfig, pattern: str) -> list[Linear]:
    """Return the linear maps whose whole path a pattern matches, in every layer or in none."""
    try:
        fits = re.compile(pattern).fullmatch
    except re.error as error:
        raise EstimateError(f"{pattern!r} is no regular expression: {error}.") from error
    in_layers = [
        {each.name for each in linears(config) if fits(f"model.layers.{layer}.{each.path}")}
        for layer in range(config.layers)
    ]
    if any(names != in_layers[0] for names in in_layers):
        raise no_formula("The formulas do not cover a pattern that differs from layer to layer")
    if not in_layers[0]:
        names = ", ".join(sorted({each.name for each in linears(config)}))
        raise EstimateError(f"{config.name} has no module {pattern}: it has {names}.")
    return [each for each in linears(config) if each.name in in_layers[0]]


def lora_tensors(config: ModelConfig, method: methods.Lora) -> Shapes:
    """Return A, B and DoRA's magnitude of every target: ``r (d_in + d_out)``, plus ``d_out``.

    Hu et al. (2021, section 4); Liu et al. (2024).
    """
    tensors: Shapes = Counter()
    for each in targets(config, method):
        if method.r > (most := min(each.d_in, each.d_out)):
            raise EstimateError(
                f"r={method.r} is more than {each.name} has room for: choose a rank of at most {most}."
            )
        magnitude = [(each.d_out,)] * method.use_dora
        for shape in ((method.r, each.d_in), (each.d_out, method.r), *magnitude):
            tensors[shape] += each.count
    return tensors


def prefix_tensors(config: ModelConfig, method: methods.Prefix) -> Shapes:
    """Return a prefix's trained tensors: ``n 2 L kv_dim`` directly, or through an MLP.

    With the projection of Li and Liang (2021, section 4.3), as PEFT builds it on a width D =
    kv_dim and a hidden width E: ``n D + D E + E + E 2 L D + 2 L D``, thrown away at save time.
    """
    virtual, width = method.num_virtual_tokens, config.kv_dim
    out = 2 * config.layers * width
    if not method.prefix_projection:
        return Counter([(virtual, out)])
    inner = method.encoder_hidden_size or width
    return Counter([(virtual, width), (inner, width), (inner,), (out, inner), (out,)])


def bottleneck_width(config: ModelConfig, method: methods.Bottleneck) -> int:
    """Return the bottleneck's width m."""
    if method.reduction_factor > config.hidden_size:
        raise EstimateError(
            f"reduction_factor={method.reduction_factor} leaves no bottleneck: choose at most the"
            f" hidden size {config.hidden_size}."
        )
    return int(config.hidden_size // method.reduction_factor)


def bottleneck_tensors(config: ModelConfig, method: methods.Bottleneck) -> Shapes:
    """Return ``2 h m + m + h`` per adapter (Houlsby et al., 2019, section 2.1)."""
    h, m = config.hidden_size, bottleneck_width(config, method)
    blocks = config.layers * (2 if config.model_type == "t5" else 1)
    adapters = blocks * (2 if method.placement == "houlsby" else 1)
    return Counter([(m, h), (h, m), (m,), (h,)] * adapters)


def default_of(table: dict[str, tuple[str, ...]], config: ModelConfig) -> tuple[str, ...]:
    """Return what PEFT tunes by default, out of ``NORMS_TUNED`` or ``IA3_SCALED``."""
    if config.model_type not in table:
        what = "LN tuning" if table is NORMS_TUNED else "(IA)3"
        raise no_formula(f"There is no formula for {what} on {config.model_type}")
    return table[config.model_type]


def ia3_tensors(config: ModelConfig) -> Shapes:
    """Return one factor per scaled feature: outputs of k (Qwen3: q) and v, inputs of down."""
    tensors: Shapes = Counter()
    scaled = default_of(IA3_SCALED, config)
    for each in linears(config):
        if each.name in scaled:
            width = each.d_in if each.name == "down_proj" else each.d_out
            tensors[width, 1] += each.count
    return tensors


def trained_tensors(config: ModelConfig, method: methods.Method) -> Shapes:
    """Return what the optimiser sees, counted by shape."""
    match method:
        case methods.Full():
            return model_tensors(config)
        case methods.Lora():
            return lora_tensors(config, method)
        case methods.Prefix():
            return prefix_tensors(config, method)
        case methods.Prompt():
            return Counter([(method.num_virtual_tokens, config.hidden_size)])
        case methods.IA3():
            return ia3_tensors(config)
        case methods.LayerNorm():
            norms = default_of(NORMS_TUNED, config)
            each_layer = len([norm for norm in norms if norm != "final"])
            return Counter({(config.hidden_size,): each_layer * config.layers + ("final" in norms)})
        case methods.Bottleneck():
            return bottleneck_tensors(config, method)


def parameters(model, method="full") -> Parameters:
    """Count a model's parameters under a method.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.

    Raises:
        EstimateError: unknown model, method or target; a rank that does not fit.
    """
    config, described = load_config(model), methods.read_method(method)
    base, trainable = base_parameters(config), elements(trained_tensors(config, described))
    return Parameters(base, 0 if isinstance(described, methods.Full) else trainable, trainable)
