"""Which model: its shape, read from the ``config.json`` its authors publish."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftmemory.errors import EstimateError, check_size

SHEETS = Path(__file__).with_name("model_configs")

# The same quantity under the names the model families give it in ``config.json``.
ALIASES = {
    "hidden_size": ("hidden_size", "d_model", "n_embd"),
    "layers": ("num_hidden_layers", "num_layers", "n_layer"),
    "heads": ("num_attention_heads", "num_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim", "d_kv"),
    "intermediate_size": ("intermediate_size", "d_ff", "n_inner"),
    "vocab_size": ("vocab_size",),
}


@dataclass(frozen=True)
class ModelConfig:
    """A transformer's shape; every size in elements.

    ``raw`` is the whole published configuration: what ``transformers`` builds the model from.
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
            check_size(name, getattr(self, name))
        if self.heads % self.kv_heads:
            raise EstimateError(
                f"{self.heads} attention heads cannot share {self.kv_heads} key/value heads evenly:"
                " choose a number of key/value heads that divides the heads."
            )


def model_names() -> list[str]:
    """Return the names ``load_config`` knows, alphabetically."""
    return sorted(path.stem for path in SHEETS.glob("*.json"))


def read_sheet(name: str) -> dict[str, Any]:
    """Return a model's sheet: ``name``, ``source``, ``parameters`` (exact count), ``config``.

    Raises:
        EstimateError: there is no such sheet.
    """
    path = SHEETS / f"{name.lower()}.json"
    if not path.is_file():
        raise EstimateError(
            f"There is no model {name!r}: take one of {', '.join(model_names())},"
            " or give the path of a config.json."
        )
    return json.loads(path.read_text("utf-8"))


def load_config(model: Any) -> ModelConfig:
    """Return a model's shape.

    Args:
        model: a name among ``model_names()``, the path of a ``config.json``, its content as a
            dict, a ``transformers`` configuration, or a ``ModelConfig`` (returned as it is).

    Raises:
        EstimateError: no such model, or a shape no model can have.
    """
    if isinstance(model, ModelConfig):
        return model
    if hasattr(model, "to_dict"):
        return from_dict(model.to_dict(), name=getattr(model, "name_or_path", ""))
    if isinstance(model, dict):
        return from_dict(model)
    if str(model).endswith(".json"):
        return from_dict(read_json(Path(model)), name=Path(model).parent.name)
    return from_dict(read_sheet(str(model))["config"], name=str(model).lower())


def read_json(path: Path) -> dict[str, Any]:
    """Read a published ``config.json``."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise EstimateError(
            f"Cannot read {path} as JSON: give the path of a model's config.json."
        ) from error


def from_dict(raw: dict[str, Any], *, name: str = "") -> ModelConfig:
    """Read the shape out of a published configuration."""
    under = lambda names: next((raw[name] for name in names if raw.get(name) is not None), None)
    sizes = {key: under(names) for key, names in ALIASES.items()}
    for key in ("hidden_size", "layers", "heads", "vocab_size"):
        if sizes[key] is None:
            raise EstimateError(f"The configuration names no {key}: give a whole config.json.")
        check_size(key, sizes[key])
    hidden, heads = sizes["hidden_size"], sizes["heads"]
    if sizes["head_dim"] is None and hidden % heads:
        raise EstimateError(
            f"A hidden size of {hidden} does not divide into {heads} attention heads:"
            " change one of the two, or name head_dim."
        )
    defaults = {"kv_heads": heads, "head_dim": hidden // heads, "intermediate_size": 4 * hidden}
    sizes |= {key: size for key, size in defaults.items() if sizes[key] is None}
    model_type = raw.get("model_type", "llama")
    tied = raw.get("tie_word_embeddings", model_type in ("gpt2", "t5", "roberta"))
    return ModelConfig(name=name or model_type, model_type=model_type, tied=tied, raw=raw, **sizes)
