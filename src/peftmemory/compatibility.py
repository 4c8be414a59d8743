"""Which methods and settings do not go together, and why."""

from peftmemory.errors import EstimateError
from peftmemory.methods import IA3, Full, Lora, Method, Prefix
from peftmemory.settings import StepSetting


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
