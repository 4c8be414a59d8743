"""Which model: its shape, read from the ``config.json`` its authors publish."""

from dataclasses import dataclass, field
from typing import Any

from peftmemory.errors import EstimateError, check_size
from peftmemory.sources import find, model_names, read_sheet

__all__ = ["ModelConfig", "load_config", "model_names", "read_sheet"]

# The families with a formula: of memory for Llama's, of parameters for the others too.
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite")
COUNTED = (*LLAMA_LIKE, "gpt2", "t5", "roberta")
# The same quantity under the names the model families give it in ``config.json``.
ALIASES = {
    "hidden_size": ("hidden_size", "d_model", "n_embd", "n_embed", "dim"),
    "layers": ("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    "heads": ("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim", "d_kv"),
    "intermediate_size": ("intermediate_size", "d_ff", "n_inner"),
    "vocab_size": ("vocab_size",),
}
# What a family's class takes for a size that its file leaves out, where that is not the rule.
LEFT_OUT = {
    "mistral": {"kv_heads": 8},
    "qwen2": {"kv_heads": 32},
    "qwen3": {"kv_heads": 32, "head_dim": 128},
    "smollm3": {"kv_heads": 4},
    "t5": {"head_dim": 64, "intermediate_size": 2048},
    "roberta": {"intermediate_size": 3072},
}
TIED = ("gpt2", "t5", "roberta", "smollm3")
# Where a multimodal file keeps its language model.
TEXT_PARTS = ("text_config", "llm_config", "language_config")


@dataclass(frozen=True)
class ModelConfig:
    """A transformer's shape; every size in elements.

    A family without a formula may leave sizes out: they are 0 here, and a trace does not need them.
    ``raw`` is the whole published configuration: what ``transformers`` builds the model from.
    ``notes`` say what of the file was left aside.
    """

    name: str
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    raw: dict[str, Any] = field(repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def q_dim(self) -> int:
        """Width of the queries: heads times head_dim (not always hidden_size)."""
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of the keys, and of the values: kv_heads times head_dim."""
        return self.kv_heads * self.head_dim

    def __post_init__(self):
        """Refuse shapes that no model can have."""
        for name in ALIASES:
            if getattr(self, name) != 0 or self.model_type in COUNTED:
                check_size(name, getattr(self, name))
        if self.kv_heads and self.heads % self.kv_heads:
            raise EstimateError(
                f"{self.heads} attention heads cannot share {self.kv_heads} key/value heads evenly:"
                " choose a number of key/value heads that divides the heads."
            )


def load_config(model: Any) -> ModelConfig:
    """Return a model's shape.

    Args:
        model: a name among ``model_names()``, a hub id (from the committed shapes or the hub's
            cache, without a network), a folder that holds a ``config.json``, the path of one, its
            content as a dict, a ``transformers`` configuration, or a ``ModelConfig`` (returned as
            it is).

    Raises:
        EstimateError: no such model, or a shape no model can have.
    """
    if isinstance(model, ModelConfig):
        return model
    if hasattr(model, "to_dict"):
        return from_dict(model.to_dict(), name=getattr(model, "name_or_path", ""))
    if isinstance(model, dict):
        return from_dict(model)
    name, raw = find(str(model))
    return from_dict(raw, name=name)


def from_dict(raw: dict[str, Any], *, name: str = "") -> ModelConfig:
    """Read the shape out of a published configuration; of a multimodal one, its text part's."""
    if "peft_type" in raw:
        base = raw.get("base_model_name_or_path") or "its base model"
        raise EstimateError(f"This is an adapter's configuration: give the config.json of {base}.")
    raw, notes = text_part(raw)
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise EstimateError("The configuration names no model_type: give a whole config.json.")
    sizes = sizes_of(raw, model_type)
    # transformers 5 ties every T5, whatever its file says (Flan-T5's says no).
    tied = model_type == "t5" or raw.get("tie_word_embeddings", model_type in TIED)
    method = (raw.get("quantization_config") or {}).get("quant_method")
    if method:
        notes += (f"The file's own quantisation ({method}) is left aside.",)
    return ModelConfig(
        name=name or model_type, model_type=model_type, tied=tied, raw=raw, notes=notes, **sizes
    )


def text_part(raw: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a multimodal file's language model, and the sentence that says so."""
    inner = next((raw[key] for key in TEXT_PARTS if isinstance(raw.get(key), dict)), None)
    if inner is None or not inner.get("model_type"):
        return raw, ()
    outer = raw.get("model_type", "file")
    shared = {key: raw[key] for key in ("tie_word_embeddings",) if key in raw}
    note = f"The text part ({inner['model_type']}) of a multimodal {outer}: the rest is left out."
    return {**shared, **inner}, (note,)


def sizes_of(raw: dict[str, Any], model_type: str) -> dict[str, int]:
    """Return the sizes a configuration names, and those that follow from them; else 0."""
    under = lambda names: next((raw[name] for name in names if raw.get(name) is not None), 0)
    sizes = {key: under(names) for key, names in ALIASES.items()}
    for key, size in sizes.items():
        named = any(raw.get(name) is not None for name in ALIASES[key])
        if named and not (key == "kv_heads" and model_type not in COUNTED):
            check_size(key, size)
        needed = key in ("hidden_size", "layers", "heads", "vocab_size")
        if not named and needed and model_type in COUNTED:
            raise EstimateError(f"The configuration names no {key}: give a whole config.json.")
    hidden, heads = sizes["hidden_size"], sizes["heads"]
    if model_type not in COUNTED:
        return {key: size if isinstance(size, int) else 0 for key, size in sizes.items()}
    sizes |= {k: size for k, size in LEFT_OUT.get(model_type, {}).items() if not sizes[k]}
    if not sizes["head_dim"] and hidden % heads:
        raise EstimateError(
            f"A hidden size of {hidden} does not divide into {heads} attention heads:"
            " change one of the two, or name head_dim."
        )
    defaults = {"kv_heads": heads, "head_dim": hidden // heads, "intermediate_size": 4 * hidden}
    if model_type in LLAMA_LIKE and not sizes["intermediate_size"]:
        raise EstimateError(
            "The configuration names no intermediate_size: give a whole config.json."
        )
    return sizes | {key: size for key, size in defaults.items() if not sizes[key]}
