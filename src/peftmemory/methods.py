"""Which method: the few fields of a PEFT configuration that decide memory.

The fields carry PEFT's own names, and a real ``peft`` configuration is read as it is: these small
classes exist only so that a formula can be evaluated without importing peft, which takes seconds.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

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
    config_class: ClassVar[str] = "LoraConfig"
    unsupported: ClassVar[tuple[str, ...]] = (
        "modules_to_save",
        "layers_to_transform",
        "rank_pattern",
        "trainable_token_indices",
    )


@dataclass(frozen=True)
class Prefix:
    """Prefix tuning (Li and Liang, 2021): learned keys and values in front of every layer's own."""

    num_virtual_tokens: int = 30
    prefix_projection: bool = False
    encoder_hidden_size: int | None = None
    label: ClassVar[str] = "prefix tuning"
    config_class: ClassVar[str] = "PrefixTuningConfig"


@dataclass(frozen=True)
class Prompt:
    """Prompt tuning (Lester et al., 2021): learned embeddings in front of the input."""

    num_virtual_tokens: int = 100
    label: ClassVar[str] = "prompt tuning"
    config_class: ClassVar[str] = "PromptTuningConfig"


@dataclass(frozen=True)
class IA3:
    """(IA)3 (Liu et al., 2022): a learned factor on keys, values and the inner feed-forward."""

    label: ClassVar[str] = "(IA)3"
    config_class: ClassVar[str] = "IA3Config"
    unsupported: ClassVar[tuple[str, ...]] = ("modules_to_save",)


@dataclass(frozen=True)
class LayerNorm:
    """LN tuning (Zhao et al., 2023): a trained copy of every norm."""

    label: ClassVar[str] = "LN tuning"
    config_class: ClassVar[str] = "LNTuningConfig"
    unsupported: ClassVar[tuple[str, ...]] = ("modules_to_save",)


@dataclass(frozen=True)
class Bottleneck:
    """Bottleneck adapters: Houlsby et al. (2019), two a layer; Pfeiffer et al. (2020), one."""

    placement: str = "houlsby"
    reduction_factor: float = 16
    label: ClassVar[str] = "bottleneck adapters"
    config_class: ClassVar[str] = "BottleneckConfig"
    unsupported: ClassVar[tuple[str, ...]] = ("modules_to_save",)


Method = Full | Lora | Prefix | Prompt | IA3 | LayerNorm | Bottleneck

BY_NAME = {
    "full": Full,
    "lora": Lora,
    "dora": Lora,
    "prefix": Prefix,
    "prompt": Prompt,
    "ia3": IA3,
    "ln": LayerNorm,
    "houlsby": Bottleneck,
    "pfeiffer": Bottleneck,
}
# PEFT's `peft_type` of each of the classes above.
BY_PEFT_TYPE = {
    "LORA": Lora,
    "PREFIX_TUNING": Prefix,
    "PROMPT_TUNING": Prompt,
    "IA3": IA3,
    "LN_TUNING": LayerNorm,
    "BOTTLENECK": Bottleneck,
}


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
    if name not in BY_NAME:
        raise EstimateError(f"There is no method {name!r}: take one of {', '.join(BY_NAME)}.")
    kind = BY_NAME[name]
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise EstimateError(f"{name} has no option {option!r}: {takes}.")
    preset = {"dora": {"use_dora": True}, "houlsby": {"placement": "houlsby"}}
    preset["pfeiffer"] = {"placement": "pfeiffer"}
    return read_method(kind(**{**preset.get(name, {}), **options}))


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
    check(checked)
    return checked


def from_peft(config: Any) -> Method:
    """Read the fields that decide memory out of a PEFT configuration.

    Raises:
        EstimateError: a method, or a feature of one, that the formulas do not cover.
    """
    name = getattr(config.peft_type, "name", str(config.peft_type)).upper()
    if name not in BY_PEFT_TYPE:
        raise EstimateError(
            f"There is no formula for {name}: trace it with peftmemory.tracing.trace_step."
        )
    kind = BY_PEFT_TYPE[name]
    for feature in getattr(kind, "unsupported", ()):
        if getattr(config, feature, None):
            raise EstimateError(
                f"The formulas do not cover {feature}: trace it with peftmemory.tracing.trace_step."
            )
    values = {field.name: getattr(config, field.name) for field in fields(kind)}
    targets = values.get("target_modules")
    if targets is not None and not isinstance(targets, str):
        values["target_modules"] = tuple(sorted(targets))
    return kind(**values)


def check(described: Method) -> None:
    """Refuse sizes that no method can have.

    Raises:
        EstimateError: a negative or zero rank, number of virtual tokens or reduction factor.
    """
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
