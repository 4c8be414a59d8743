"""Checks of the exercises in notebook 01."""

from transformers import LlamaConfig

from pefthelpers.checks.verdict import Verdict, judge, same, tried
from pefthelpers.checks.verdict import check as __getattr__
from peftmemory import StepSetting, load_config, method
from peftmemory.saved_tensors import saved_activations


def lora_kept(function) -> Verdict:
    """Check ``function(c, batch, seq, r)``: bytes kept with fp32 LoRA on q and v, bf16 base."""

    def kept(c, batch, seq, **lora):
        adapter = method("lora", target_modules=["q_proj", "v_proj"], **lora) if lora else None
        setting = StepSetting(batch=batch, seq=seq)
        return saved_activations(load_config(c), adapter or method("full"), setting)

    return tried("lora_kept", function, kept_by=kept, llama=LlamaConfig)


def what_helps(answer, *, peaks_gib: dict[str, float], card_gib: float) -> Verdict:
    """Check which change, a key of ``peaks_gib``, is the only one whose peak the card holds."""
    gib = next((gib for change, gib in peaks_gib.items() if same(answer, change)), 0.0)
    given = {"peaks": peaks_gib, "card": card_gib, "gib": gib, "options": ", ".join(peaks_gib)}
    return judge("what_helps", answer, **given)
