"""What answering needs: weights, keys and values of what was read, adapters side by side."""

from dataclasses import asdict, dataclass
from typing import Any

from peftmemory import capacity
from peftmemory.advice import named
from peftmemory.cards import verdict
from peftmemory.configs import COUNTED, LLAMA_LIKE, ModelConfig, load_config
from peftmemory.constants import GIB
from peftmemory.counts import base_parameters, elements
from peftmemory.errors import EstimateError, NoFormulaError, check_size
from peftmemory.methods import Full, read_method
from peftmemory.model_states import base_bytes
from peftmemory.settings import WEIGHT_BYTES, StepSetting
from peftmemory.sources import model_names, read_sheet
from peftmemory.trained import trained_tensors

# Families whose layers each keep keys and values, and nothing else.
CACHED = (*LLAMA_LIKE, "gpt2", "gpt_neox", "opt", "bloom", "falcon", "phi", "phi3", "gemma")
CACHED += ("gemma2", "gemma3_text", "mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmo")
CACHED += ("olmo2", "olmo3", "cohere", "cohere2", "llama4_text", "starcoder2", "ministral")
LATENT = ("deepseek_v2", "deepseek_v3")
# Every so many layers one sees everything, the others a window; and the window that a family's class
# takes where a file names none.
PATTERNS = {"gemma2": 2, "gpt_oss": 2, "gemma3_text": 6, "cohere2": 4, "olmo3": 4, "llama4_text": 4}
WINDOWS = {"gpt_oss": 128, "llama4_text": 8192}
WINDOWS |= dict.fromkeys(
    ("mistral", "ministral", "gemma2", "gemma3_text", "cohere2", "olmo3"), 4096
)
SLIDES = {"sliding_attention", "chunked_attention"}


@dataclass(frozen=True)
class Serving:
    """What a model holds while it answers.

    Attributes:
        model: its name.
        batch: sequences answered at a time.
        seq: tokens of each, prompt and answer.
        kinds: bytes of ``weights``, ``kv_cache``, ``adapters`` and ``prefill`` (a layer's
            temporaries while all prompts are read at once).
        notes: what else there is to say, a sentence each.
    """

    model: str
    batch: int
    seq: int
    kinds: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def peak(self) -> int:
        """Bytes at the worst moment, the reading of the prompts."""
        return sum(self.kinds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "peak": self.peak}

    def __str__(self) -> str:
        """Return the bytes by kind in GiB."""
        sizes = ", ".join(f"{kind} {size / GIB:.2f}" for kind, size in self.kinds.items() if size)
        title = f"{self.model} answering {self.batch:,} x {self.seq:,} tokens"
        return "\n".join([f"{title}: {self.peak / GIB:.2f} GiB ({sizes})", *self.notes])


def serve(
    model: Any,
    *,
    batch: int = 1,
    seq: int = 4096,
    precision: str = "bf16",
    cache_bytes: int = 2,
    adapters: int = 0,
    method: Any = "lora",
    adapter_bytes: int = 2,
    prefill: int | None = None,
) -> Serving:
    """Count what a decoder holds while it answers several requests.

    Args:
        model: what ``load_config`` takes.
        batch: sequences at a time.
        seq: tokens of each, prompt and answer.
        precision: of the weights: bf16, fp16, fp32 or nf4.
        cache_bytes: of each key and value: 2, or 1 for an 8-bit cache.
        adapters: how many adapters are loaded side by side.
        method: of the adapters.
        adapter_bytes: of each of their numbers: 2 as vLLM has them, 4 as PEFT loads them.
        prefill: tokens read at once; None: all prompts, as in transformers.

    Raises:
        EstimateError: no decoder whose cache a formula knows, or a size that cannot be.
    """
    config, described = load_config(model), read_method(method)
    sizes = {"batch": batch, "seq": seq, "adapters": adapters or 1, "prefill": prefill}
    for name, size in sizes.items():
        check_size(name, 1 if size is None else size)
    setting = StepSetting(batch=batch, seq=seq, precision=precision)
    rows = min(batch * seq, prefill or batch * seq)
    inner = config.intermediate_size or 4 * config.hidden_size
    wide = setting.stream_bytes
    one = 0
    if adapters and isinstance(described, Full):
        raise EstimateError("Adapters side by side need a method such as lora, not full.")
    if adapters:
        one = adapter_bytes * elements(trained_tensors(config, described))
    kinds = {
        "weights": weight_bytes(config, setting),
        "kv_cache": batch * cache_of_one(config, seq, cache_bytes),
        "adapters": adapters * one,
        # Three wide tensors of the feed-forward part beside embeddings, layer's input, sum and norm.
        "prefill": rows * wide * (3 * inner + 4 * config.hidden_size),
    }
    return Serving(config.name, batch, seq, kinds, (*config.notes, *latent_note(config)))


def weight_bytes(config: ModelConfig, setting: StepSetting) -> int:
    """Return the bytes of a model's weights; where no formula counts them, of transformers' class."""
    if config.model_type in COUNTED:
        if setting.precision == "nf4" and config.model_type not in LLAMA_LIKE:
            raise EstimateError(f"NF4 weights of {config.model_type} have no formula: take bf16.")
        return base_bytes(config, setting)
    if setting.precision == "nf4":
        raise EstimateError(f"NF4 weights of {config.model_type} have no formula: take bf16.")
    return parameters_of(config) * WEIGHT_BYTES[setting.precision]


def parameters_of(config: ModelConfig) -> int:
    """Return the number of parameters: by formula, from a committed sheet, or by building it on meta."""
    try:
        return base_parameters(config)
    except NoFormulaError:
        pass
    if config.name in model_names() and load_config(config.name).raw == config.raw:
        return read_sheet(config.name)["parameters"]
    from peftmemory.tracing.build import build_base

    step = StepSetting(batch=1, seq=1, attention="eager")
    return sum(each.numel() for each in build_base(config, step, device="meta").parameters())


def windows(config: ModelConfig) -> list[int | None]:
    """Return how many tokens each layer keeps at most; None: all of them.

    Raises:
        EstimateError: no decoder whose cache a formula knows.
    """
    raw, family, count = config.raw, config.model_type, config.layers
    if family not in (*CACHED, *LATENT):
        raise EstimateError(
            f"No formula knows the cache of {family}: take one of a decoder's family."
        )
    chunk = raw.get("attention_chunk_size")
    window = raw.get("sliding_window", WINDOWS.get(family)) if chunk is None else chunk
    if "use_sliding_window" in raw and not raw["use_sliding_window"] or window is None:
        return [None] * count
    if types := raw.get("layer_types"):
        return [window if each in SLIDES else None for each in types]
    if family in ("qwen2", "qwen3", "qwen2_moe"):
        first = raw.get("max_window_layers", 28) if raw.get("use_sliding_window") else count
        return [window if layer >= first else None for layer in range(count)]
    every = raw.get("sliding_window_pattern") or PATTERNS.get(family)
    if every is None:
        return [
            window if family in ("mistral", "ministral", "mixtral", "phi3", "starcoder2") else None
        ] * count
    return [window if (layer + 1) % every else None for layer in range(count)]


def cache_of_one(config: ModelConfig, seq: int, cache_bytes: int = 2) -> int:
    """Return the bytes of one sequence's keys and values.

    ``2 kv_heads head_dim`` numbers per token and layer (Shazeer, 2019; Ainslie et al., 2023, for
    fewer key and value heads than queries); DeepSeek's latent attention keeps one vector for all.
    """
    tokens = sum(min(seq, window or seq) for window in windows(config))
    return cache_bytes * tokens * numbers_per_token(config)


def numbers_per_token(config: ModelConfig) -> int:
    """Return how many numbers a layer keeps of a token."""
    raw = config.raw
    if config.model_type in LATENT:
        return raw["kv_lora_rank"] + raw["qk_rope_head_dim"]
    heads = config.kv_heads or config.heads
    if config.model_type == "falcon":
        new = raw.get("new_decoder_architecture")
        heads = (
            raw.get("num_kv_heads", heads) if new else 1 if raw.get("multi_query", True) else heads
        )
    return 2 * heads * (config.head_dim or config.hidden_size // config.heads)


def latent_note(config: ModelConfig) -> list[str]:
    """Return the sentence about a cache that engines keep in two ways."""
    note = "The cache is the latent one, as vLLM keeps it; transformers keeps every head's keys."
    return [note] if config.model_type in LATENT else []


def most_sequences(
    model: Any, *, card_gib: float | str, seq: int, **options: Any
) -> dict[str, int]:
    """Return how many sequences of a length a card has room for at once: that fit, and may fit.

    Args:
        model: what ``load_config`` takes.
        card_gib: the card's memory as it reports it, or its name.
        seq: tokens of each.
        options: ``serve``'s.

    Raises:
        EstimateError: a card without memory, or what ``serve`` refuses.
    """
    _, gib = named(card_gib)
    config = load_config(model)
    peak = lambda batch: serve(config, batch=batch, seq=seq, **options).peak
    return capacity.largest(lambda batch: verdict(peak(batch), gib), capacity.MOST)
