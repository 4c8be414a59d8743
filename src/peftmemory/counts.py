"""How many parameters a published model has, tensor by tensor."""

from collections import Counter
from dataclasses import dataclass

from peftmemory.configs import ModelConfig
from peftmemory.errors import EstimateError

LLAMA_LIKE = ("llama", "qwen3")


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
    q, kv = config.q_dim, config.kv_dim
    if config.model_type in LLAMA_LIKE:
        widths = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h)}
        attention = [Linear(f"self_attn.{name}", *width, n) for name, width in widths.items()]
        mlp = [Linear(f"mlp.{name}_proj", h, i, n) for name in ("gate", "up")]
        return [*attention, *mlp, Linear("mlp.down_proj", i, h, n)]
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
        ff = [Linear("ff.wi", h, i, 2 * n), Linear("ff.wo", i, h, 2 * n)]
        return [*attention, Linear("attention.o", q, h, 3 * n), *ff]
    raise EstimateError(
        f"There is no formula for the family {config.model_type!r}: it covers"
        f" {', '.join(LLAMA_LIKE)}, gpt2, t5, roberta."
    )


def block_linear(config: ModelConfig) -> int:
    """Return the parameters of the layers' linear weights: what 4-bit loading quantises."""
    return sum(each.d_in * each.d_out * each.count for each in linears(config))


def outside_linears(config: ModelConfig) -> Counter[int]:
    """Return norms, embeddings and output head (RoBERTa: pooler; T5: relative positions)."""
    h, n, raw = config.hidden_size, config.layers, config.raw
    tensors = Counter({config.vocab_size * h: 1 if config.tied else 2})
    if config.model_type == "t5":
        tensors[h] += 5 * n + 2
        tensors[raw.get("relative_attention_num_buckets", 32) * config.heads] += 2
        return tensors
    norms = 2 * n + 1  # two a layer and one beside the layers, with a bias but in Llama's family
    tensors[h] += norms if config.model_type in LLAMA_LIKE else 2 * norms
    if config.model_type == "qwen3":
        tensors[config.head_dim] += 2 * n
    if config.model_type == "gpt2":
        tensors[raw["n_positions"] * h] += 1
    if config.model_type == "roberta":
        pooler = [h * h, h]
        tensors.update([raw["max_position_embeddings"] * h, raw["type_vocab_size"] * h, *pooler])
    return tensors


def model_tensors(config: ModelConfig) -> Counter[int]:
    """Return the tensors of the published model as a count by number of elements."""
    tensors = outside_linears(config)
    for each in linears(config):
        tensors[each.d_in * each.d_out] += each.count
        if each.bias:
            tensors[each.d_out] += each.count
    return tensors


def elements(tensors: Counter[int]) -> int:
    """Return how many elements counted tensors hold together."""
    return sum(size * count for size, count in tensors.items())


def base_parameters(config: ModelConfig) -> int:
    """Return the exact number of parameters of the published model."""
    return elements(model_tensors(config))
