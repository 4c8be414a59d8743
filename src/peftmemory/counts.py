"""How many parameters a published model has, tensor by tensor."""

import math
from collections import Counter
from dataclasses import dataclass

from peftmemory.configs import COUNTED, LLAMA_LIKE, ModelConfig
from peftmemory.errors import no_formula

# How often each shape of a tensor occurs.
Shapes = Counter[tuple[int, ...]]
ATTENTION, FEED_FORWARD = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("gate_proj", "up_proj", "down_proj"),
)
# Fields that change a count in a way no formula below knows, with the value that leaves it as it is.
UNCHANGED = {
    "gpt2": {"add_cross_attention": False},
    "roberta": {"add_cross_attention": False, "tie_word_embeddings": True},
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


def linears(config: ModelConfig) -> list[Linear]:
    """Return the linear maps inside the layers (no embedding, no head)."""
    h, i, n = config.hidden_size, config.intermediate_size, config.layers
    q = config.q_dim
    if config.model_type in LLAMA_LIKE:
        return llama_linears(config)
    if config.model_type == "gpt2":
        shapes = [("attn.c_attn", h, 3 * h), ("attn.c_proj", h, h), ("mlp.c_fc", h, i)]
        return [Linear(*shape, n, bias=True) for shape in [*shapes, ("mlp.c_proj", i, h)]]
    if config.model_type == "roberta":
        shapes = [(f"attention.self.{name}", h, h) for name in ("query", "key", "value")]
        shapes += [("attention.output.dense", h, h), ("intermediate.dense", h, i)]
        return [Linear(*shape, n, bias=True) for shape in [*shapes, ("output.dense", i, h)]]
    if config.model_type == "t5":
        # Encoder self-attention, decoder self-attention, decoder cross-attention.
        attention = [Linear(f"attention.{name}", h, q, 3 * n) for name in "qkv"]
        gated = "gated" in config.raw.get("feed_forward_proj", "relu")  # T5 v1.1 and Flan-T5
        inner = [
            Linear(f"ff.{name}", h, i, 2 * n) for name in (("wi_0", "wi_1") if gated else ("wi",))
        ]
        return [
            *attention,
            Linear("attention.o", q, h, 3 * n),
            *inner,
            Linear("ff.wo", i, h, 2 * n),
        ]
    raise no_formula(
        f"There is no formula for the family {config.model_type!r}, only for {', '.join(COUNTED)}"
    )


def llama_linears(config: ModelConfig) -> list[Linear]:
    """Return the linear maps of a decoder of Llama's kind; which have a bias, its family says."""
    h, i, q, kv = config.hidden_size, config.intermediate_size, config.q_dim, config.kv_dim
    widths = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h)}
    widths |= {"gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)}
    biased: tuple[str, ...] = ()
    if config.model_type == "qwen2":
        biased = ATTENTION[:3]
    elif config.model_type != "mistral" and config.raw.get("attention_bias"):
        biased = ATTENTION
    if config.model_type in ("llama", "smollm3", "granite") and config.raw.get("mlp_bias"):
        biased += FEED_FORWARD
    part = lambda name: "self_attn" if name in ATTENTION else "mlp"
    return [
        Linear(f"{part(name)}.{name}", *width, config.layers, bias=name in biased)
        for name, width in widths.items()
    ]


def block_linear(config: ModelConfig) -> int:
    """Return the parameters of the layers' linear weights: what 4-bit loading quantises."""
    return sum(each.d_in * each.d_out * each.count for each in linears(config))


def outside_linears(config: ModelConfig) -> Shapes:
    """Return norms, embeddings and output head (RoBERTa: pooler; T5: relative positions)."""
    h, n, raw = config.hidden_size, config.layers, config.raw
    refuse_unknown(config)
    tensors: Shapes = Counter({(config.vocab_size, h): 1 if config.tied else 2})
    if config.model_type == "t5":
        tensors[(h,)] += 5 * n + 2
        tensors[raw.get("relative_attention_num_buckets", 32), config.heads] += 2
        return tensors
    norms = 2 * n + 1  # two a layer and one beside the layers, with a bias but in Llama's family
    tensors[(h,)] += norms if config.model_type in LLAMA_LIKE else 2 * norms
    if config.model_type == "qwen3":
        tensors[(config.head_dim,)] += 2 * n
    if config.model_type == "gpt2":
        tensors[raw.get("n_positions", 1024), h] += 1
    if config.model_type == "roberta":
        pooler = [(h, h), (h,)]
        positions = raw.get("max_position_embeddings", 512), raw.get("type_vocab_size", 2)
        tensors.update([*((each, h) for each in positions), *pooler])
    return tensors


def refuse_unknown(config: ModelConfig) -> None:
    """Refuse a published configuration with a part that no formula counts.

    Raises:
        NoFormulaError: the sentence names the field.
    """
    plain = dict(UNCHANGED.get(config.model_type, {}))
    if config.model_type == "t5":
        plain["num_decoder_layers"] = config.layers
    for name, value in plain.items():
        if config.raw.get(name, value) not in (value, None):
            raise no_formula(f"No formula covers {name}={config.raw[name]!r}")


def model_tensors(config: ModelConfig) -> Shapes:
    """Return the tensors of the published model, counted by shape."""
    tensors = outside_linears(config)
    for each in linears(config):
        tensors[each.d_out, each.d_in] += each.count
        if each.bias:
            tensors[(each.d_out,)] += each.count
    return tensors


def elements(tensors: Shapes) -> int:
    """Return how many elements counted tensors hold together."""
    return sum(math.prod(shape) * count for shape, count in tensors.items())


def base_parameters(config: ModelConfig) -> int:
    """Return the exact number of parameters of the published model."""
    return elements(model_tensors(config))
