"""Which method: the few fields of a PEFT configuration that decide memory.

The fields carry PEFT's own names, and a real ``peft`` configuration is read as it is: these small
classes exist only so that a formula can be evaluated without importing peft, which takes seconds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from peftmemory.errors import EstimateError

Targets = tuple[str, ...] | str | None


@dataclass(frozen=True)
class Full:
    """Full fine-tuning: every parameter is trained."""

    label: ClassVar[str] = "full fine-tuning"


@dataclass(frozen=True)
class Lora:
    """LoRA (Hu et al., 2021): ``W + (alpha / r) B A``; with ``use_dora`` DoRA (Liu et al., 2024)."""

    r: int = 8
    target_modules: Targets = None
    use_dora: bool = False
    lora_dropout: float = 0.0
    label: ClassVar[str] = "LoRA"


@dataclass(frozen=True)
class Prefix:
    """Prefix tuning (Li and Liang, 2021): learned keys and values in front of every layer's own."""

    num_virtual_tokens: int = 30
    prefix_projection: bool = False
    encoder_hidden_size: int | None = None
    label: ClassVar[str] = "prefix tuning"


@dataclass(frozen=True)
class Prompt:
    """Prompt tuning (Lester et al., 2021): learned embeddings in front of the input."""

    num_virtual_tokens: int = 100
    label: ClassVar[str] = "prompt tuning"


@dataclass(frozen=True)
class IA3:
    """(IA)3 (Liu et al., 2022): a learned factor on keys, values and the inner feed-forward."""

    label: ClassVar[str] = "(IA)3"


@dataclass(frozen=True)
class LayerNorm:
    """LN tuning (Zhao et al., 2023): a trained copy of every norm."""

    label: ClassVar[str] = "LN tuning"


@dataclass(frozen=True)
class Bottleneck:
    """Bottleneck adapters: Houlsby et al. (2019), two a layer; Pfeiffer et al. (2020), one."""

    placement: str = "houlsby"
    reduction_factor: float = 16
    label: ClassVar[str] = "bottleneck adapters"


Method = Full | Lora | Prefix | Prompt | IA3 | LayerNorm | Bottleneck


class MethodRow(NamedTuple):
    """A row of the table of methods: its class, PEFT's ``peft_type``, the fields its name sets."""

    fields: type
    peft_type: str | None
    preset: Mapping[str, Any] = MappingProxyType({})


METHODS = {
    "full": MethodRow(Full, None),
    "lora": MethodRow(Lora, "LORA"),
    "dora": MethodRow(Lora, "LORA", {"use_dora": True}),
    "prefix": MethodRow(Prefix, "PREFIX_TUNING"),
    "prompt": MethodRow(Prompt, "PROMPT_TUNING"),
    "ia3": MethodRow(IA3, "IA3"),
    "ln": MethodRow(LayerNorm, "LN_TUNING"),
    "houlsby": MethodRow(Bottleneck, "BOTTLENECK", {"placement": "houlsby"}),
    "pfeiffer": MethodRow(Bottleneck, "BOTTLENECK", {"placement": "pfeiffer"}),
}
# What a PEFT configuration may ask for beyond the fields above: no formula covers it.
UNSUPPORTED = ("modules_to_save", "layers_to_transform", "rank_pattern", "trainable_token_indices")
# LoRA on every linear layer, the setting that advice, page and command fall back to.
EVERYWHERE = Lora(r=16, target_modules="all-linear")


def method(name: str, **options: Any) -> Method:
    """Return a method by its short name, with options under PEFT's own names.

    ``method("lora", r=16, target_modules="all-linear")`` counts what
    ``LoraConfig(r=16, target_modules="all-linear")`` trains.

    Args:
        name: full, lora, dora, prefix, prompt, ia3, ln, houlsby or pfeiffer.
        options: the fields of the method's class.

    Raises:
        EstimateError: an unknown name or option.
    """
    if name not in METHODS:
        raise EstimateError(f"There is no method {name!r}: take one of {', '.join(METHODS)}.")
    kind = METHODS[name]
    known = [field.name for field in fields(kind.fields)]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise EstimateError(f"{name} has no option {option!r}: {takes}.")
    return read_method(kind.fields(**{**kind.preset, **options}))


def read_method(described: Any) -> Method:
    """Return the method that a name, a light description or a real PEFT configuration names.

    Raises:
        EstimateError: unknown, out of range, or with a feature that the closed form does not cover.
    """
    if isinstance(described, str):
        return method(described)
    if isinstance(described, Method):
        checked = described
    elif hasattr(described, "peft_type"):
        checked = from_peft(described)
    else:
        raise EstimateError(
            f"{described!r} is no method: give a PEFT configuration or a name such as 'lora'."
        )
    if isinstance(getattr(checked, "target_modules", None), list | set):
        checked = replace(checked, target_modules=tuple(checked.target_modules))
    check(checked)
    return checked


def peft_type(described: Method) -> str | None:
    """Return the ``peft_type`` that PEFT gives a method, or None for full fine-tuning."""
    return next(kind.peft_type for kind in METHODS.values() if kind.fields is type(described))


def from_peft(config: Any) -> Method:
    """Read the fields that decide memory out of a PEFT configuration."""
    name = getattr(config.peft_type, "name", str(config.peft_type)).upper()
    kind = next((kind.fields for kind in METHODS.values() if kind.peft_type == name), None)
    trace_it = "trace it with peftmemory.tracing.trace_step."
    if kind is None:
        raise EstimateError(f"There is no formula for {name}: {trace_it}")
    for feature in UNSUPPORTED:
        if getattr(config, feature, None):
            raise EstimateError(f"The formulas do not cover {feature}: {trace_it}")
    values = {field.name: getattr(config, field.name) for field in fields(kind)}
    targets = values.get("target_modules")
    if targets is not None and not isinstance(targets, str):
        values["target_modules"] = tuple(sorted(targets))
    return kind(**values)


def check(described: Method) -> None:
    """Refuse sizes that no method can have."""
    for name in ("r", "num_virtual_tokens", "reduction_factor"):
        value = getattr(described, name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
            raise EstimateError(f"{name} must be at least 1, not {value!r}.")
        if name != "reduction_factor" and int(value) != value:
            raise EstimateError(f"{name} must be a whole number, not {value!r}.")
    if not 0 <= getattr(described, "lora_dropout", 0.0) < 1:
        raise EstimateError(
            f"lora_dropout must be between 0 and 1, not {described.lora_dropout!r}."
        )
    if getattr(described, "placement", "houlsby") not in ("houlsby", "pfeiffer"):
        raise EstimateError(f"placement must be houlsby or pfeiffer, not {described.placement!r}.")


def describe(described: Method) -> str:
    """Return a method in words: ``LoRA r=16 all-linear``."""
    label = "DoRA" if getattr(described, "use_dora", False) else described.label
    words = [label]
    for name, value in asdict(described).items():
        if name == "target_modules" and value:
            words.append(value if isinstance(value, str) else ",".join(value))
        elif name != "use_dora" and value:
            words.append(str(value) if isinstance(value, str) else f"{name}={value}")
    return " ".join(words)
