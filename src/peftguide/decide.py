"""The decision: constraints first, then real models, then the toys' rows, then a default.

1. A method without three recorded seeds on the kind of task is no candidate.
2. Whatever does not meet the requirements is ruled out: layers that cannot be merged, tooling, a
   model of its own for every task, a step that the card does not hold.
3. The rest is compared with its best, paired by seed (``evidence.judge``): who lies more than two
   points below goes, be it shown to be worse or too uncertain to say. So does who lies below full
   fine-tuning on a real model, where a published comparison shows it.
4. 4 bits go where LoRA in 16 bits fits.
5. Of those left the first of ``ORDER``: LoRA on all linear layers unless evidence says otherwise. A
   tie, at a ceiling or not, ranks nothing; the size of a file decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftguide import reasons
from peftguide.evidence import (
    MARGIN,
    Arm,
    Records,
    Standing,
    arms,
    base_row,
    judge,
    published,
)
from peftguide.memory_need import task_bytes
from peftguide.reasons import STANDINGS, interval, say, size
from peftguide.recipes import configuration
from peftguide.requirements import Requirements
from peftguide.template import render
from pefthelpers.methods import LABELS, METHODS, SERIES

# The default, what replaces it where it does not fit, its kin; then what more seldom is asked for.
ORDER = ("lora", "qlora", "rslora", "dora", "lora_qv", "full", "houlsby", "pfeiffer", "ia3", "ln")
ORDER += ("prefix", "prompt")
BELOW = ("worse", "unresolved")
FEW = 20  # examples: a prompt holds them
WITHOUT_GPU = 1.5e9  # parameters: more is no work for a CPU
VLLM = ("lora", "lora_qv", "rslora", "qlora", "full")  # served without merging


@dataclass(frozen=True)
class Choice:
    """The guide's answer.

    Attributes:
        asked: the requirements.
        method: a key of ``methods.METHODS``, or None where nothing fits or nothing is recorded.
        label: the method in words.
        why: sentences, each made from a record or a memory estimate.
        alternatives: label of each other method to the reason that ruled it out.
        configuration: a cell to copy; empty without a method.
        arms: the supporting rows by method.
        standings: how each method that was compared stands to the best of them.
    """

    asked: Requirements
    method: str | None
    label: str
    why: list[str]
    alternatives: dict[str, str]
    configuration: str = ""
    arms: Mapping[str, Arm] = field(default_factory=dict, repr=False)
    standings: Mapping[str, Standing] = field(default_factory=dict, repr=False)

    @property
    def rows(self):
        """The supporting rows as a DataFrame, one a recorded method."""
        import pandas as pd

        found = [self._row(method, self.arms[method]) for method in LABELS if method in self.arms]
        return pd.DataFrame(found).set_index("method") if found else pd.DataFrame()

    def _row(self, method: str, arm: Arm) -> dict[str, Any]:
        asked = self.asked
        return {
            "method": LABELS[method],
            "mean": arm.mean,
            "steps": arm.steps,
            "seeds": len(arm.test),
            "learning rate": arm.learning_rate,
            "file bytes": arm.file_bytes,
            f"file bytes, {asked.model}": task_bytes(asked.model, method),
            f"GiB, {asked.model}": asked.peak(method),
            "compared": self.compared(method),
            "record": f"{arm.record}.json",
        }

    def compared(self, method: str) -> str:
        """Return how a method stands to the best of those compared, in words."""
        standing = self.standings.get(method)
        return STANDINGS[standing.word] if standing else "ruled out before"

    def __str__(self) -> str:
        """Return the answer as text: the method, why, and what was ruled out."""
        why = [f"  - {sentence}" for sentence in self.why]
        others = [f"  - {label}: {reason}" for label, reason in self.alternatives.items()]
        return "\n".join([self.label, *why, *(["not chosen:", *others] if others else [])])

    def _repr_html_(self) -> str:
        return render("choice.html", choice=self, labels=LABELS)


def choose(task: str, *, records: Records | None = None, **fields) -> Choice:
    """Return the method that evidence and requirements recommend, with its reasons.

    Args:
        task: ``chat``, ``elicit``, ``learn``, ``classify`` or ``summarise``.
        records: rows to use instead of those on disk: name of the record to DataFrame.
        **fields: model, card_gib, tasks, examples, latency, tooling, batch, seq: see
            ``Requirements``.

    Raises:
        UserError: a field cannot be; the sentence lists what can.
    """
    asked = Requirements(task, **fields)
    recorded = arms(task, records, asked.role)
    found = {name: arm for name, arm in recorded.items() if name in METHODS}
    ruled = {name: refuse(asked, name, found) for name in METHODS}
    standings = judge({name: arm for name, arm in found.items() if not ruled[name]})
    chosen, cell = None, ""
    if none := no_training(asked, found):
        label, why = none
    elif standings:
        chosen, below = prefer(asked, found, standings)
        ruled |= below
        label, cell = LABELS[chosen], configuration(chosen, asked.model, role(asked))
        case = reasons.Case(asked, found[chosen], found, standings, base_row(asked.kind, records))
        why = [said for rule in reasons.RULES if (said := rule(case))]
    else:
        label, why = reasons.nothing_fits(asked, found)
    others = {} if none else {LABELS[name]: reason for name, reason in ruled.items() if reason}
    return Choice(asked, chosen, label, why, others, cell, found, standings)


def role(asked: Requirements) -> str:
    """Return what the model is used as; a decoder writes summaries as a decoder."""
    return "encoder" if asked.task == "classify" else asked.role


def no_training(asked: Requirements, found: Mapping[str, Arm]) -> tuple[str, list[str]] | None:
    """Return an answer that is no training: too few examples, or a large model and no GPU."""
    if found and asked.examples < FEW:
        sentence = "few facts" if asked.task == "learn" else "few"
        label = "Retrieval, no training" if asked.task == "learn" else "A prompt, no training"
        return label, [say(asked, sentence, few=FEW), *filter(None, [reasons.first(asked)])]
    if found and asked.card_gib is None and asked.parameters > WITHOUT_GPU:
        return "Not without a GPU", reasons.without_gpu(asked)
    return None


def refuse(asked: Requirements, method: str, found: Mapping[str, Arm]) -> str:
    """Return why a method does not meet the requirements, nothing if it does."""
    if method not in found:
        return say(asked, "no rows")
    if asked.latency == "merged" and not METHODS[method].mergeable:
        return say(asked, "in series" if METHODS[method].where == SERIES else "in front")
    if asked.tooling == "peft" and not METHODS[method].in_peft:
        return say(asked, "not in peft")
    if asked.tooling == "vllm" and asked.latency != "merged" and method not in VLLM:
        return say(asked, "merge for vllm" if METHODS[method].mergeable else "not in vllm")
    if method == "full" and asked.tasks > 1:
        return say(asked, "own model", whole=size(task_bytes(asked.model, "full") or 0))
    if method == "qlora" and asked.role != "decoder":
        return say(asked, "small" if asked.fits(asked.need("lora")) else "decoders alone")
    settings = ("full", "full in bf16") if method == "full" else (method,)
    needs = [asked.need(setting) for setting in settings]
    if any(map(asked.fits, needs)):
        return ""
    sentence = "too big in bf16" if method == "full" else "too big"
    counted = "" if asked.peak(settings[0]) else "at least "
    return say(asked, sentence, least=counted, gib=needs[0], low=needs[-1])


def prefer(
    asked: Requirements, found: Mapping[str, Arm], standings: Mapping[str, Standing]
) -> tuple[str, dict[str, str]]:
    """Return the chosen of the methods compared, and why each other one is not it."""
    near = [name for name in ORDER if name in standings and standings[name].word not in BELOW]
    behind = {name: gap for name in near if (gap := behind_elsewhere(asked, name))}
    pool = [name for name in near if name not in behind] or near
    if "lora" in standings and pool != ["qlora"]:
        pool = [name for name in pool if name != "qlora"]
    chosen = pool[0]
    figures = {"best": next(LABELS[n] for n, each in standings.items() if each.word == "best")}
    figures |= {
        "first": LABELS[chosen],
        "why": "" if chosen == "lora" else say(asked, "first left"),
    }
    ruled = {}
    for name, (word, *gap) in standings.items():
        rule = "behind elsewhere" if name in behind else "default"
        if name == "qlora" and name in near and name not in behind:
            rule = "16 bits" if asked.peak("qlora") is None else "16 bits fit"
        figures |= {"four": asked.need("qlora"), "sixteen": asked.need("lora")}
        but = say(asked, rule, elsewhere=behind.get(name), **figures) if name in near else ""
        word, steps = "tied" if word == "best" else word, found[name].steps
        base = asked.kind.base
        ruled[name] = say(
            asked, word, gap=interval(*gap), but=but, steps=steps, base=base, **figures
        )
    return chosen, ruled | {chosen: ""}


def behind_elsewhere(asked: Requirements, method: str) -> str:
    """Return how far a method lies below full fine-tuning on a real decoder, if it is shown."""
    found = published(method) if asked.role == "decoder" else None
    if found is None or found.gap >= 0 or -found.gap <= max(found.half, MARGIN):
        return ""
    return interval(-found.gap, found.half)
