"""Which step: batch, length, precision, the switches that move memory, the methods it goes with."""

from dataclasses import dataclass, fields
from typing import Any

from peftmemory.errors import EstimateError, check_size
from peftmemory.methods import IA3, Full, Lora, Method, Prefix
from peftmemory.optimizers import OPTIMIZERS

# Bytes per element of what a precision stores its weights in; NF4's are in model_states.py.
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "nf4": 2}
CHOICES = {
    "precision": tuple(WEIGHT_BYTES),
    "optimizer": tuple(OPTIMIZERS),
    "attention": ("sdpa", "eager", "flash_attention_2"),
    "loss": ("plain", "chunked", "liger"),
    "recompute": ("layers", "selective", "offloaded"),
    "head": (None, "causal-lm", "seq2seq-lm", "classifier", "token-classifier", "masked-lm")
    + ("image-classifier", "image-text-lm"),
}
# What people also call a choice, or take for one.
HINTS = {
    "flash_attention_3": "it keeps the same bytes as flash_attention_2, so take that",
    "flex_attention": "without a mask it keeps the same bytes as sdpa, so take that",
    "adamw": "take adamw_torch_fused, the Trainer's, or adamw_torch",
    "adamw_bnb_8bit": "it is called adamw_8bit",
    "paged_adamw": "take paged_adamw_32bit or paged_adamw_8bit",
    "lion": "take lion_32bit or lion_8bit",
}


@dataclass(frozen=True)
class StepSetting:
    """One training step's setting.

    Attributes:
        batch: sequences per step on one device.
        seq: tokens per sequence, padding included.
        precision: what the frozen or trained base weights are stored in: ``fp32``, ``bf16``,
            ``fp16`` (same bytes), or ``nf4`` (4-bit linear layers computing in bf16; for PEFT
            methods only).
        autocast: run the forward pass under bf16 autocast (``bf16=True`` in the Trainer). With
            ``fp32`` weights this is mixed precision.
        optimizer: the Trainer's names. ``adamw_torch`` is ``torch.optim.AdamW`` as it runs on a
            GPU (foreach: one temporary as large as the trained weights); ``adamw_torch_fused``,
            the Trainer's default, has none; the others stand in ``peftmemory.optimizers``.
        checkpointing: gradient checkpointing (activation checkpointing), one segment per layer.
        recompute: what checkpointing keeps of a layer: its input (``layers``), attention's output
            too (``selective``, as TRL has it), or all in the host's memory but the last five layers'
            inputs (``offloaded``, TRL's ``activation_offloading``).
        attention: ``sdpa`` (fused), ``eager`` (scores materialised) or ``flash_attention_2``
            (fused, and without a mask: padding is counted as if it were tokens).
        loss: ``plain`` (transformers' own, logits in full), ``chunked`` (TRL's default from
            1.16: logits never exist as a whole) or ``liger`` (Liger's fused linear cross-entropy
            alone: gradients instead of logits are kept, chunk by chunk).
        padding: the batch holds padding, so an attention mask is built. Without it transformers
            uses the kernel's causal flag and repeats no key or value head.
        packing: rows hold several documents, told by position ids: a mask is built, but for flash
            attention, which is told where they begin.
        accumulation: gradients of earlier micro-batches are alive during the step.
        autocast_adapter_dtype: PEFT's own option: adapters are kept in fp32 on a 16-bit base.
        double_quant: quantise NF4's constants too.
        prepare_kbit: ``prepare_model_for_kbit_training`` was called: what is not quantised is fp32.
        free_outputs: the loop keeps the loss alone, as the Trainer does: logits in the product's
            format are gone before the backward pass. A plain loop holds the outputs.
        head: what a trace builds on top: ``causal-lm``, ``seq2seq-lm``, ``classifier``,
            ``token-classifier``, ``masked-lm``, ``image-classifier``, ``image-text-lm``; None: what
            the family is usually tuned with.

    Raises:
        EstimateError: a size below 1 or an unknown choice.
    """

    batch: int
    seq: int
    precision: str = "bf16"
    autocast: bool = False
    optimizer: str = "adamw_torch"
    checkpointing: bool = False
    recompute: str = "layers"
    attention: str = "sdpa"
    loss: str = "plain"
    padding: bool = False
    packing: bool = False
    accumulation: bool = False
    autocast_adapter_dtype: bool = True
    double_quant: bool = True
    prepare_kbit: bool = False
    free_outputs: bool = False
    head: str | None = None

    def __post_init__(self):
        """Check sizes and choices."""
        for name in ("batch", "seq"):
            check_size(name, getattr(self, name))
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                if value in HINTS:
                    raise EstimateError(f"{name} {value!r} is not known here: {HINTS[value]}.")
                words = ", ".join(filter(None, allowed))
                raise EstimateError(f"{name} must be one of {words}, not {value!r}.")
        if self.recompute != "layers" and not self.checkpointing:
            raise EstimateError(
                f"recompute={self.recompute!r} goes with checkpointing: turn that on, or drop it."
            )
        if self.recompute == "selective" and self.attention == "eager":
            raise EstimateError(
                "recompute='selective' keeps a fused kernel's output: take attention='sdpa'."
            )
        if self.prepare_kbit and self.precision != "nf4":
            raise EstimateError(
                "prepare_kbit goes with precision='nf4': drop it or quantise the base."
            )

    @property
    def masked(self) -> bool:
        """Whether attention gets a mask of the batch."""
        return (self.padding or self.packing) and self.attention != "flash_attention_2"

    @property
    def stream_bytes(self) -> int:
        """Bytes per element of the residual stream outside autocast."""
        return 4 if self.prepare_kbit else WEIGHT_BYTES[self.precision]

    @property
    def adapter_bytes(self) -> int:
        """Bytes per element of an adapter: PEFT's fp32, the base's, or on 4 bits TRL's bf16."""
        return 4 if self.autocast_adapter_dtype else WEIGHT_BYTES[self.precision]


def read_setting(*, batch: int, seq: int, **options: Any) -> StepSetting:
    """Return a setting, refusing options that do not exist.

    Raises:
        EstimateError: an unknown option, a size below 1, an unknown choice.
    """
    known = [field.name for field in fields(StepSetting)]
    for option in options:
        if option not in known:
            raise EstimateError(f"There is no option {option!r}: take {', '.join(known[2:])}.")
    return StepSetting(batch=batch, seq=seq, **options)


def refuse_together(method: Method, setting: StepSetting) -> None:
    """Refuse a method in a setting where PEFT or bitsandbytes would fail.

    Raises:
        EstimateError: one sentence that says what to change.
    """
    four_bit = setting.precision == "nf4"
    match method:
        case Prefix() if setting.checkpointing:
            why = "Prefix tuning does not go with gradient checkpointing: recomputing a layer would"
            why += " add the prefix to its keys again; turn one of the two off."
        case Full() if four_bit:
            why = "4-bit weights cannot be trained: choose a PEFT method or another precision."
        case IA3() if four_bit and not setting.prepare_kbit:
            why = "(IA)3 in fp32 breaks a 16-bit stream over 4-bit layers in PEFT 0.21:"
            why += " set prepare_kbit=True."
        case Lora(use_dora=True) if four_bit:
            why = "DoRA on a 4-bit base is neither traced nor covered by a formula:"
            why += " take LoRA or bf16."
        case _:
            return
    raise EstimateError(why)
