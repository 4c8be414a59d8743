"""Which methods and settings do not go together, and why."""

from peftmemory.errors import EstimateError
from peftmemory.methods import IA3, Full, Lora, Method, Prefix
from peftmemory.settings import StepSetting


def refuse_together(method: Method, setting: StepSetting) -> None:
    """Refuse a method in a setting where PEFT or bitsandbytes would fail.

    Raises:
        EstimateError: one sentence that says what to change.
    """
    if isinstance(method, Prefix) and setting.checkpointing:
        raise EstimateError(
            "Prefix tuning does not go with gradient checkpointing: recomputing a layer would add"
            " the prefix to its keys again; turn one of the two off."
        )
    if setting.precision != "nf4":
        return
    if isinstance(method, Full):
        raise EstimateError(
            "4-bit weights cannot be trained: choose a PEFT method or another precision."
        )
    if isinstance(method, IA3) and not setting.prepare_kbit:
        raise EstimateError(
            "(IA)3 in fp32 breaks a 16-bit stream over 4-bit layers in PEFT 0.21:"
            " set prepare_kbit=True."
        )
    if isinstance(method, Lora) and method.use_dora:
        raise EstimateError(
            "DoRA on a 4-bit base is neither traced nor covered by a formula: take LoRA or bf16."
        )
