"""Which method: the few fields of a PEFT configuration that decide memory.

The fields carry PEFT's own names, and a real ``peft`` configuration is read as it is: these small
classes exist only so that a formula can be evaluated without importing peft, which takes seconds.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from peftmemory.errors import EstimateError, check_size, no_formula

Targets = tuple[str, ...] | str | None


@dataclass(frozen=True)
class Full:
    """Full fine-tuning: every parameter is trained."""


@dataclass(frozen=True)
class Lora:
    """LoRA (Hu et al., 2021): ``W + (alpha / r) B A``; with ``use_dora`` DoRA (Liu et al., 2024)."""

    r: int = 8
    target_modules: Targets = None
    use_dora: bool = False
    lora_dropout: float = 0.0


@dataclass(frozen=True)
class Prefix:
    """Prefix tuning (Li and Liang, 2021): learned keys and values in front of every layer's own."""

    num_virtual_tokens: int = 30
    prefix_projection: bool = False
    encoder_hidden_size: int | None = None


@dataclass(frozen=True)
class Prompt:
    """Prompt tuning (Lester et al., 2021): learned embeddings in front of the input."""

    num_virtual_tokens: int = 100


@dataclass(frozen=True)
class IA3:
    """(IA)3 (Liu et al., 2022): a learned factor on keys, values and the inner feed-forward."""


@dataclass(frozen=True)
class LayerNorm:
    """LN tuning (Zhao et al., 2023): a trained copy of every norm."""


@dataclass(frozen=True)
class Bottleneck:
    """Bottleneck adapters: Houlsby et al. (2019), two a layer; Pfeiffer et al. (2021), one."""

    placement: str = "houlsby"
    reduction_factor: float = 16


Method = Full | Lora | Prefix | Prompt | IA3 | LayerNorm | Bottleneck


METHODS: dict[str, Method] = {
    "full": Full(),
    "lora": Lora(),
    "dora": Lora(use_dora=True),
    "prefix": Prefix(),
    "prompt": Prompt(),
    "ia3": IA3(),
    "ln": LayerNorm(),
    "houlsby": Bottleneck(placement="houlsby"),
    "pfeiffer": Bottleneck(placement="pfeiffer"),
}
# Each class's name in words, and its ``peft_type``.
KINDS = {
    Full: ("full fine-tuning", None),
    Lora: ("LoRA", "LORA"),
    Prefix: ("prefix tuning", "PREFIX_TUNING"),
    Prompt: ("prompt tuning", "PROMPT_TUNING"),
    IA3: ("(IA)3", "IA3"),
    LayerNorm: ("LN tuning", "LN_TUNING"),
    Bottleneck: ("bottleneck adapters", "BOTTLENECK"),
}
# Fields of a PEFT configuration that move no byte of a step; what is neither here nor a field of the
# classes above has to be at its default, or a formula does not cover it.
NEUTRAL = {"task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path"}
NEUTRAL |= {"revision", "inference_mode", "fan_in_fan_out", "lora_alpha", "use_rslora"}
NEUTRAL |= {"alpha_pattern", "layers_pattern", "init_weights", "init_lora_weights"}
NEUTRAL |= {"init_ia3_weights", "prompt_tuning_init", "prompt_tuning_init_text"}
NEUTRAL |= {"tokenizer_name_or_path", "tokenizer_kwargs"}
# PEFT writes all of these into a configuration that has wrapped a model.
FILLED_IN = ("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
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
    name = name.lower()
    if name in ("qlora", "qdora"):
        raise EstimateError(
            f"{name} is {name[1:]} on a 4-bit base: take {name[1:]} and precision nf4."
        )
    if name not in METHODS:
        raise EstimateError(f"There is no method {name!r}: take one of {', '.join(METHODS)}.")
    known = [field.name for field in fields(METHODS[name])]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise EstimateError(f"{name} has no option {option!r}: {takes}.")
    return read_method(replace(METHODS[name], **options))


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
    names = getattr(checked, "target_modules", None)
    if isinstance(names, list | set):  # PEFT makes a set, in no order, of a list
        names = tuple(sorted(names) if isinstance(names, set) else names)
        checked = replace(checked, target_modules=names)
    check(checked)
    return checked


def from_peft(config: Any) -> Method:
    """Read the fields that decide memory out of a PEFT configuration.

    Raises:
        NoFormulaError: a method, or a field that is not at its default, that no formula counts.
    """
    name = getattr(config.peft_type, "name", str(config.peft_type)).upper()
    kind = next((kind for kind, known in KINDS.items() if known[1] == name), None)
    if kind is None:
        raise no_formula(f"There is no formula for {name}")
    if str(getattr(config, "init_lora_weights", "")).lower() in ("mica", "eva"):
        raise no_formula(
            f"The formulas do not cover init_lora_weights={config.init_lora_weights!r}"
        )
    counted = {field.name for field in fields(kind)}
    values = {name: getattr(config, name) for name in counted}
    default = type(config)(**values)  # what a field is by default may hang on these
    filled_in = all(getattr(config, name, None) is not None for name in FILLED_IN)
    passed = counted | NEUTRAL | set(FILLED_IN if filled_in else ())
    for feature in (field.name for field in fields(config)):
        asked = getattr(config, feature)
        if feature not in passed and asked != getattr(default, feature) and asked not in ([], {}):
            raise no_formula(f"The formulas do not cover {feature}")
    return kind(**values)


def check(described: Method) -> None:
    """Refuse sizes that no method can have."""
    for name in ("r", "num_virtual_tokens"):
        check_size(name, getattr(described, name, 1))
    factor = getattr(described, "reduction_factor", 1)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor >= 1:
        raise EstimateError(f"reduction_factor must be at least 1, not {factor!r}.")
    if not 0 <= getattr(described, "lora_dropout", 0.0) < 1:
        raise EstimateError(
            f"lora_dropout must be between 0 and 1, not {described.lora_dropout!r}."
        )
    if getattr(described, "placement", "houlsby") not in ("houlsby", "pfeiffer"):
        raise EstimateError(f"placement must be houlsby or pfeiffer, not {described.placement!r}.")


def describe(described: Method) -> str:
    """Return a method in words: ``LoRA r=16 all-linear``."""
    words = ["DoRA" if getattr(described, "use_dora", False) else KINDS[type(described)][0]]
    for name, value in asdict(described).items():
        if name == "target_modules" and value:
            words.append(value if isinstance(value, str) else ",".join(value))
        elif name != "use_dora" and value:
            words.append(str(value) if isinstance(value, str) else f"{name}={value}")
    return " ".join(words)
