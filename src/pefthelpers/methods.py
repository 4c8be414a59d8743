"""One table of the methods: names, where each acts, and its configuration for every model it meets.

Studies, notebooks, guide, recipes and memory figures read it. Rank, alpha and places are the same
everywhere; what depends on a model's width has one value a model.
"""

from dataclasses import dataclass, field
from typing import Any

TASK_TYPES = {"decoder": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "encoder": "SEQ_CLS"}
# Where a method acts: what ends in the weights can be merged into them.
WEIGHTS, SERIES, FRONT = "the weights", "in series with the layers", "in front of the tokens"
# Fields that change no count; ``family`` says the first two.
UNCOUNTED = ("use_dora", "placement", "lora_alpha", "use_rslora", "prompt_tuning_init")


def _each(*values: Any) -> dict[str, Any]:
    """Return a value a model: kitchen decoder (192 wide), its T5 (128), MiniLM (384), real ones."""
    return dict(zip(("decoder", "seq2seq", "encoder", "real"), values, strict=False))


# Without a value for real ones the module names of their architecture count.
LINEAR = _each("all-linear", "all-linear", ["query", "key", "value", "dense"], "all-linear")
QUERY_VALUE = _each(["q_proj", "v_proj"], ["q", "v"], ["query", "value"])
NORMS = _each(None, None, ["LayerNorm"])  # peft knows the others' names
LORA = {"r": 8, "lora_alpha": 16, "target_modules": LINEAR}
LORA_QV = LORA | {"target_modules": QUERY_VALUE}
HOULSBY = {"placement": "houlsby", "reduction_factor": _each(6, 4, 16, 64)}  # trains about what
PFEIFFER = {"placement": "pfeiffer", "reduction_factor": _each(3, 2, 16, 32)}  # LoRA does
TOKENS = {"num_virtual_tokens": _each(8, 30, 20, 30)}
PROJECTED, WIDTH = _each(True, True, None, True), _each(192, 128, None, 512)  # notebook 04
PREFIX = TOKENS | {"prefix_projection": PROJECTED, "encoder_hidden_size": WIDTH}
PROMPT = TOKENS | {"prompt_tuning_init": "SAMPLE_VOCAB"}


@dataclass(frozen=True)
class Method:
    """One row of the table; ``qlora`` is LoRA on a base that was loaded in 4 bits.

    Attributes:
        label: what a reader sees.
        family: the name under which ``peftmemory.method`` counts it.
        where: where it acts.
        config_class: PEFT's class, or this collection's ``BottleneckConfig``.
        fields: those of its configuration; a dict has one value a model.
    """

    label: str
    family: str
    where: str
    config_class: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def mergeable(self) -> bool:
        """Tell whether it can be merged into the base."""
        return self.where == WEIGHTS

    @property
    def in_peft(self) -> bool:
        """Tell whether peft has it."""
        return self.config_class != "BottleneckConfig"


METHODS = {
    "full": Method("full", "full", WEIGHTS),
    "lora": Method("LoRA all-linear", "lora", WEIGHTS, "LoraConfig", LORA),
    "lora_qv": Method("LoRA q, v", "lora", WEIGHTS, "LoraConfig", LORA_QV),
    "rslora": Method("rsLoRA", "lora", WEIGHTS, "LoraConfig", LORA | {"use_rslora": True}),
    "dora": Method("DoRA", "dora", WEIGHTS, "LoraConfig", LORA | {"use_dora": True}),
    "qlora": Method("QLoRA", "lora", WEIGHTS, "LoraConfig", LORA),
    "houlsby": Method("Houlsby", "houlsby", SERIES, "BottleneckConfig", HOULSBY),
    "pfeiffer": Method("Pfeiffer", "pfeiffer", SERIES, "BottleneckConfig", PFEIFFER),
    "ia3": Method("(IA)³", "ia3", WEIGHTS, "IA3Config"),
    "ln": Method("LN tuning", "ln", WEIGHTS, "LNTuningConfig", {"target_modules": NORMS}),
    "prefix": Method("prefix", "prefix", FRONT, "PrefixTuningConfig", PREFIX),
    "prompt": Method("prompt", "prompt", FRONT, "PromptTuningConfig", PROMPT),
}
LABELS = {key: row.label for key, row in METHODS.items()}  # in the order of every table


def fields(method: str, model: str = "real", names: str = "decoder") -> dict[str, Any]:
    """Return the fields of a method's configuration under PEFT's names, without importing peft.

    Args:
        method: a key of ``METHODS``.
        model: ``real``, or the role of a small model, ``decoder``, ``seq2seq`` or ``encoder``.
        names: the role whose modules are named, where the model is a real one.
    """
    pick = lambda value: value.get(model, value.get(names)) if isinstance(value, dict) else value
    found = {name: pick(value) for name, value in METHODS[method].fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def counted(method: str, model: str = "real") -> dict[str, Any]:
    """Return the fields that decide how much is trained: what ``peftmemory.method`` takes."""
    kept = {name: v for name, v in fields(method, model).items() if name not in UNCOUNTED}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in kept.items()}


def config(method: str, role: str):
    """Return a method's PEFT configuration for a role's small model, None for full fine-tuning.

    Args:
        method: a key of ``METHODS``.
        role: ``decoder``, ``seq2seq`` or ``encoder``.
    """
    import peft  # here, as it brings torch: who reads the table alone does not wait for it

    from peftbottleneck import BottleneckConfig
    from pefthelpers.models import folder_of
    from pefthelpers.profiles import settings

    row, given = METHODS[method], fields(method, role)
    if row.config_class is None:
        return None
    if "prompt_tuning_init" in given:
        given["tokenizer_name_or_path"] = str(folder_of(role, settings(role)))
    kind = getattr(peft, row.config_class) if row.in_peft else BottleneckConfig
    return kind(task_type=TASK_TYPES[role], **given)
