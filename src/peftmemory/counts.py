"""How many parameters: of a published model, and of what a method adds and trains."""

import re
from dataclasses import dataclass

from peftmemory.configs import ModelConfig, load_config
from peftmemory.errors import EstimateError
from peftmemory.methods import (
    IA3,
    Bottleneck,
    Full,
    LayerNorm,
    Lora,
    Method,
    Prefix,
    Prompt,
    read_method,
)

LLAMA_LIKE = ("llama", "qwen3")
FAMILIES = (*LLAMA_LIKE, "gpt2", "t5", "roberta")
# PEFT's default targets (peft.utils.constants, 0.21).
LORA_DEFAULT = {
    **dict.fromkeys(LLAMA_LIKE, ("q_proj", "v_proj")),
    "gpt2": ("c_attn",),
    "t5": ("q", "v"),
    "roberta": ("query", "value"),
}


@dataclass(frozen=True)
class Linear:
    """A linear map that occurs once or more in every layer.

    ``count`` is how often it occurs in the whole model; ``path`` its name inside a layer.
    """

    path: str
    d_in: int
    d_out: int
    count: int
    bias: bool = False

    @property
    def name(self) -> str:
        """The last part of the path: what ``target_modules`` names."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Parameters:
    """Counts in parameters (not bytes).

    Attributes:
        base: the model as published.
        added: what the method adds.
        trainable: what the optimiser sees.
        quantisable: the part of ``base`` that bitsandbytes puts in 4 bits: the layers' linear
            weights, not embeddings, output head or norms.
    """

    base: int
    added: int
    trainable: int
    quantisable: int

    @property
    def share(self) -> float:
        """Trainable over base."""
        return self.trainable / self.base


def linears(config: ModelConfig) -> list[Linear]:
    """Return the linear maps inside the layers (no embedding, no head).

    Raises:
        EstimateError: a family whose layers are not described here.
    """
    h, i, n = config.hidden_size, config.intermediate_size, config.layers
    q, kv = config.q_dim, config.kv_dim
    if config.model_type in LLAMA_LIKE:
        attention = [("q_proj", h, q), ("k_proj", h, kv), ("v_proj", h, kv), ("o_proj", q, h)]
        mlp = [("gate_proj", h, i), ("up_proj", h, i), ("down_proj", i, h)]
        named = [(f"self_attn.{a}", b, c) for a, b, c in attention]
        named += [(f"mlp.{a}", b, c) for a, b, c in mlp]
        return [Linear(*shape, n) for shape in named]
    if config.model_type == "gpt2":
        shapes = [("attn.c_attn", h, 3 * h), ("attn.c_proj", h, h)]
        shapes += [("mlp.c_fc", h, i), ("mlp.c_proj", i, h)]
        return [Linear(*shape, n, bias=True) for shape in shapes]
    if config.model_type == "roberta":
        shapes = [(f"attention.self.{name}", h, h) for name in ("query", "key", "value")]
        shapes += [("attention.output.dense", h, h), ("intermediate.dense", h, i)]
        return [Linear(*shape, n, bias=True) for shape in [*shapes, ("output.dense", i, h)]]
    if config.model_type == "t5":
        # Encoder self-attention, decoder self-attention, decoder cross-attention.
        attention = [Linear(f"attention.{name}", h, q, 3 * n) for name in "qkv"]
        ff = [Linear("ff.wi", h, i, 2 * n), Linear("ff.wo", i, h, 2 * n)]
        return [*attention, Linear("attention.o", q, h, 3 * n), *ff]
    raise EstimateError(
        f"There is no formula for the family {config.model_type!r}: it covers"
        f" {', '.join(FAMILIES)}."
    )


def block_linear(config: ModelConfig) -> int:
    """Return the parameters of the layers' linear weights: what 4-bit loading quantises."""
    return sum(each.d_in * each.d_out * each.count for each in linears(config))


def norm_parameters(config: ModelConfig) -> int:
    """Return the parameters of all norms (and T5's relative position biases)."""
    h, n = config.hidden_size, config.layers
    if config.model_type in LLAMA_LIKE:
        per_head = 2 * config.head_dim if config.model_type == "qwen3" else 0
        return (2 * n + 1) * h + n * per_head
    if config.model_type == "gpt2":
        return (2 * n + 1) * 2 * h
    if config.model_type == "roberta":
        return (2 * n + 1) * 2 * h
    buckets = config.raw.get("relative_attention_num_buckets", 32)
    return (5 * n + 2) * h + 2 * buckets * config.heads


def embedding_parameters(config: ModelConfig) -> int:
    """Return the parameters of embeddings, output head and RoBERTa's pooler."""
    h = config.hidden_size
    tokens = config.vocab_size * h * (1 if config.tied else 2)
    if config.model_type == "gpt2":
        return tokens + config.raw["n_positions"] * h
    if config.model_type == "roberta":
        rows = config.raw["max_position_embeddings"] + config.raw["type_vocab_size"]
        return config.vocab_size * h + rows * h + h * h + h
    return tokens


def base_parameters(config: ModelConfig) -> int:
    """Return the exact number of parameters of the published model."""
    biases = sum(each.d_out * each.count for each in linears(config) if each.bias)
    return block_linear(config) + biases + norm_parameters(config) + embedding_parameters(config)


def targets(config: ModelConfig, method: Lora) -> list[Linear]:
    """Return the linear maps a LoRA configuration adapts, by PEFT's rules.

    A list holds names (or ends of paths), a string is ``"all-linear"`` or a pattern that has to
    match a whole path such as ``model.layers.0.self_attn.q_proj``.

    Raises:
        EstimateError: a target that the model does not have.
    """
    available = linears(config)
    wanted = method.target_modules or LORA_DEFAULT.get(config.model_type)
    if wanted == "all-linear":
        return available
    if isinstance(wanted, str):
        whole = lambda each: f"model.layers.0.{each.path}"
        found = [each for each in available if re.fullmatch(wanted, whole(each))]
        missing = [] if found else [wanted]
    else:
        ends = lambda each, name: each.path == name or each.path.endswith("." + name)
        found = [each for each in available if any(ends(each, name) for name in wanted)]
        missing = [name for name in wanted if not any(ends(each, name) for each in available)]
    if missing:
        names = ", ".join(sorted({each.name for each in available}))
        raise EstimateError(f"{config.name} has no module {', '.join(missing)}: it has {names}.")
    return found


def lora_parameters(config: ModelConfig, method: Lora) -> int:
    """Return ``sum r (d_in + d_out)`` (Hu et al., 2021, section 4), plus ``d_out`` for DoRA.

    Raises:
        EstimateError: an unknown target, or a rank above a target's smaller width.
    """
    adapted = targets(config, method)
    for each in adapted:
        if method.r > min(each.d_in, each.d_out):
            raise EstimateError(
                f"r={method.r} is more than {each.name} has room for: choose a rank of at most"
                f" {min(each.d_in, each.d_out)}."
            )
    extra = lambda each: each.d_out if method.use_dora else 0
    return sum(each.count * (method.r * (each.d_in + each.d_out) + extra(each)) for each in adapted)


def prefix_parameters(config: ModelConfig, method: Prefix) -> int:
    """Return a prefix's trained parameters: ``n 2 L kv_dim`` directly, or through an MLP.

    With the projection of Li and Liang (2021, section 4.3), as PEFT builds it on a width D =
    kv_dim and a hidden width E: ``n D + D E + E + E 2 L D + 2 L D``, thrown away at save time.
    """
    width = config.kv_dim
    out = 2 * config.layers * width
    if not method.prefix_projection:
        return method.num_virtual_tokens * out
    inner = method.encoder_hidden_size or width
    return method.num_virtual_tokens * width + (width + 1) * inner + (inner + 1) * out


def bottleneck_width(config: ModelConfig, method: Bottleneck) -> int:
    """Return the bottleneck's width m.

    Raises:
        EstimateError: the reduction factor leaves no width.
    """
    if method.reduction_factor > config.hidden_size:
        raise EstimateError(
            f"reduction_factor={method.reduction_factor} leaves no bottleneck: choose at most the"
            f" hidden size {config.hidden_size}."
        )
    return int(config.hidden_size // method.reduction_factor)


def bottleneck_parameters(config: ModelConfig, method: Bottleneck) -> int:
    """Return ``2 h m + m + h`` per adapter (Houlsby et al., 2019, section 2.1)."""
    h, m = config.hidden_size, bottleneck_width(config, method)
    blocks = config.layers * (2 if config.model_type == "t5" else 1)
    return blocks * (2 if method.placement == "houlsby" else 1) * (2 * h * m + m + h)


def layer_norm_parameters(config: ModelConfig) -> int:
    """Return the parameters LN tuning copies and trains, by PEFT's default targets.

    Raises:
        EstimateError: PEFT has no default targets for the family.
    """
    if config.model_type == "llama":
        return norm_parameters(config)
    if config.model_type == "qwen3":
        return config.layers * config.hidden_size
    raise EstimateError(f"PEFT names no norms to tune for {config.model_type}: take a Llama model.")


def ia3_modules(config: ModelConfig) -> tuple[str, ...]:
    """Return the modules (IA)3 scales by PEFT's default; feed-forward ones on their input.

    Raises:
        EstimateError: PEFT's defaults for the family are not described here.
    """
    if config.model_type == "llama":
        return ("k_proj", "v_proj", "down_proj")
    if config.model_type == "qwen3":
        return ("q_proj", "v_proj", "down_proj")
    raise EstimateError(
        f"There is no formula for (IA)3 on {config.model_type}: take a Llama model."
    )


def ia3_parameters(config: ModelConfig) -> int:
    """Return one factor per scaled feature: outputs of k and v, inputs of down."""
    width = lambda each: each.d_in if each.name == "down_proj" else each.d_out
    scaled = ia3_modules(config)
    return sum(width(each) * each.count for each in linears(config) if each.name in scaled)


def added_parameters(config: ModelConfig, method: Method) -> int:
    """Return how many parameters the method adds to the model.

    Raises:
        EstimateError: the method cannot be put on this model.
    """
    if isinstance(method, Full):
        return 0
    if isinstance(method, Lora):
        return lora_parameters(config, method)
    if isinstance(method, Prefix):
        return prefix_parameters(config, method)
    if isinstance(method, Prompt):
        return method.num_virtual_tokens * config.hidden_size
    if isinstance(method, IA3):
        return ia3_parameters(config)
    if isinstance(method, LayerNorm):
        return layer_norm_parameters(config)
    return bottleneck_parameters(config, method)


def parameters(model, method="full") -> Parameters:
    """Count a model's parameters under a method.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.

    Raises:
        EstimateError: unknown model, method or target; a rank that does not fit.
    """
    config, described = load_config(model), read_method(method)
    base, added = base_parameters(config), added_parameters(config, described)
    trainable = base if isinstance(described, Full) else added
    return Parameters(base, added, trainable, block_linear(config))
