"""Why a method was ruled out, in a sentence made from a record or a memory estimate."""

from collections.abc import Mapping

from peftguide.evidence import KINDS, MARGIN, Arm, Verdict
from peftguide.memory_need import CARD_OVERHEAD_GIB, peak, task_bytes
from peftguide.question import Question
from peftguide.words import size
from pefthelpers.methods import LABELS

# Hu et al. (2021), Table 1: GPT-2 medium, batch 1, 128 tokens, adapters against none.
IN_SERIES = "Hu et al. (2021, Table 1) measured +20.7 % and +30.3 % at batch 1, +2 to 3 % at 32"


def no_rows(asked: Question) -> str:
    """Return why a method without rows is no candidate."""
    records = " or ".join(f"{name}.json" for name in KINDS[asked.task].records)
    return f"no three seeds at a chosen rate in {records} yet"


def no_record(asked: Question) -> str:
    """Return the sentence where no method has rows."""
    return f"No method has {no_rows(asked)[3:]}: there is nothing to decide by on {asked.task!r}."


def cannot_merge(method: str) -> str:
    """Return why a method cannot be had without a layer more."""
    if method in ("houlsby", "pfeiffer"):
        return f"stands in series with the layers and cannot be merged: {IN_SERIES}"
    return "its virtual tokens are computed with every request and cannot be merged"


def own_model(asked: Question, found: Mapping[str, Arm]) -> str:
    """Return why full fine-tuning cannot share a base."""
    whole = found["full"].file_bytes
    least = min(arm.file_bytes for name, arm in found.items() if name != "full" or len(found) == 1)
    there = task_bytes(asked.model, "full") or 0
    return (
        f"each of {asked.tasks} tasks would be a whole model: {size(there)} each on {asked.model}; "
        f"in the record {size(whole)} against {size(least)} for the smallest adapter"
    )


def too_big(asked: Question, method: str) -> str:
    """Return why a method's step does not fit the card."""
    gib = peak(asked.model, method, asked.shape)
    other = ""
    if method == "full":
        other = f", {peak(asked.model, 'full in bf16', asked.shape):.1f} GiB in pure bf16"
    return (
        f"needs {gib:.1f} GiB on {asked.model}{other}, beside {CARD_OVERHEAD_GIB:g} GiB for the "
        "context: more than the card has"
    )


def below(verdict: Verdict, met: Mapping[str, Arm]) -> str:
    """Return what the records say about a method that is not as good as the best."""
    best = max(met.values(), key=lambda arm: arm.mean)
    gap = f"{verdict.difference:.3f} ± {verdict.half:.3f} below {LABELS[best.method]}"
    if verdict.word == "worse":
        return f"{gap}, paired by seed"
    return f"{gap}: too few seeds to call it worse, and more than {MARGIN:g} lower"


def near(verdict: Verdict) -> str:
    """Return how a method that might have been chosen stands to the best."""
    if verdict.word == "close":
        gap = f"{verdict.difference:.3f} ± {verdict.half:.3f}"
        return f"{gap} below the highest mean, less than the {MARGIN:g} that matter here"
    return "not told apart"


def not_needed(asked: Question) -> str:
    """Return why QLoRA is not taken although nothing tells it apart."""
    four, sixteen = (peak(asked.model, name, asked.shape) for name in ("qlora", "lora"))
    if asked.card_gib is None or four is None:
        return "and not needed: nothing here asks for 4 bits"
    return (
        f"and not needed: a method of 16 bits fits (QLoRA {four:.1f} GiB, "
        f"LoRA {sixteen:.1f} GiB on {asked.model})"
    )


def not_first(left, name: str, chosen: str, pool, small) -> str:
    """Return by which rule a method that is not told apart comes after the chosen one."""
    own, first = size(left[name].file_bytes), size(left[chosen].file_bytes)
    if name not in pool:
        return f"but it cannot be merged and {LABELS[chosen]} can"
    if name not in small:
        return f"but its file is larger: {own} against {first} in the record"
    return f"and of about the same size ({own} against {first}): either will do"
