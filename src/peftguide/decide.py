"""The decision: constraints first, then the records, then a default, in that order.

1. A method without three recorded seeds on the kind of task is no candidate.
2. Whatever does not meet the requirements is ruled out: layers that cannot be merged, tooling, a
   model of its own for every task, a step that the card does not hold.
3. The rest is compared with its best, paired by seed (``evidence.judge``): who lies more than two
   points below goes, be it shown to be worse or too uncertain to say.
4. 4 bits go where LoRA in 16 bits fits.
5. Of those left the first of ``ORDER``: LoRA on all linear layers unless the records say otherwise.
   A tie, at a ceiling or not, ranks nothing; the size of a file decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftguide import reasons
from peftguide.evidence import KINDS, Arm, Records, Standing, arms, base_row, judge
from peftguide.memory_need import SPECIAL, task_bytes
from peftguide.reasons import STANDINGS, interval, say, size
from peftguide.recipes import configuration
from peftguide.requirements import Requirements
from peftguide.template import render
from pefthelpers.methods import LABELS, METHODS, SERIES

# The default, what replaces it where it does not fit, its kin; then what is more seldom asked for.
ORDER = ("lora", "qlora", "rslora", "dora", "lora_qv", "full", "houlsby", "pfeiffer", "ia3", "ln")
ORDER += ("prefix", "prompt")
BELOW = ("worse", "unresolved")


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
        return "\n".join([f"{self.label}", *why, "not chosen:", *others])

    def _repr_html_(self) -> str:
        return render("choice.html", choice=self, labels=LABELS, size=size)


def choose(task: str, *, records: Records | None = None, **fields) -> Choice:
    """Return the method that the records recommend, with its reasons.

    Args:
        task: ``elicit``, ``learn``, ``classify`` or ``summarise``.
        records: rows to use instead of those on disk: name of the record to DataFrame.
        **fields: model, card_gib, tasks, latency, tooling, batch, seq: see ``Requirements``.

    Raises:
        UserError: a field cannot be; the sentence lists what can.
    """
    asked = Requirements(task, **fields)
    found = {name: arm for name, arm in arms(task, records).items() if name in METHODS}
    ruled = {name: refuse(asked, name, found) for name in METHODS}
    standings = judge({name: arm for name, arm in found.items() if not ruled[name]})
    if standings:
        chosen, below = prefer(asked, found, standings)
        ruled |= below
        case = reasons.Case(asked, found[chosen], found, standings, base_row(task, records))
        label, why = LABELS[chosen], [said for rule in reasons.RULES if (said := rule(case))]
        # A decoder writes summaries as a decoder.
        own = task == "classify" or asked.model in SPECIAL
        cell = configuration(chosen, asked.model, KINDS[task].role if own else "decoder")
    else:
        chosen, cell, (label, why) = None, "", reasons.nothing_fits(asked, found)
    others = {LABELS[name]: reason for name, reason in ruled.items() if reason}
    return Choice(asked, chosen, label, why, others, cell, found, standings)


def refuse(asked: Requirements, method: str, found: Mapping[str, Arm]) -> str:
    """Return why a method does not meet the requirements, nothing if it does."""
    if method not in found:
        return say(asked, "no rows")
    if asked.latency == "merged" and not METHODS[method].mergeable:
        return say(asked, "in series" if METHODS[method].where == SERIES else "in front")
    if asked.tooling == "peft" and not METHODS[method].in_peft:
        return say(asked, "not in peft")
    if method == "full" and asked.tasks > 1:
        whole, there = task_bytes(asked.model, "full") or 0, found["full"].file_bytes
        least = min(arm.file_bytes for arm in found.values())
        figures = {"whole": size(whole), "there": size(there), "least": size(least)}
        return say(asked, "own model", **figures)
    if method == "qlora" and asked.model in SPECIAL:
        return say(asked, "small")
    settings = ("full", "full in bf16") if method == "full" else (method,)
    needs = [asked.peak(setting) for setting in settings]
    if any(map(asked.fits, needs)):
        return ""
    sentence = "too big in bf16" if method == "full" else "too big"
    return say(asked, sentence, gib=needs[0], low=needs[-1])


def prefer(
    asked: Requirements, found: Mapping[str, Arm], standings: Mapping[str, Standing]
) -> tuple[str, dict[str, str]]:
    """Return the chosen of the methods compared, and why each other one is not it."""
    near = [name for name in ORDER if name in standings and standings[name].word not in BELOW]
    sixteen = [name for name in near if name != "qlora"]
    left = sixteen if sixteen and "lora" in standings else near
    chosen = left[0]
    figures = {"best": next(LABELS[n] for n, each in standings.items() if each.word == "best")}
    figures |= {"first": LABELS[chosen]}
    figures |= {"four": asked.peak("qlora"), "sixteen": asked.peak("lora")}
    ruled = {}
    for name, (word, *gap) in standings.items():
        rule, steps = "default", found[name].steps
        if name not in left:
            rule = "16 bits" if None in (asked.card_gib, figures["four"]) else "16 bits fit"
        but = say(asked, rule, **figures) if name in near else ""
        word = "tied" if word == "best" else word
        ruled[name] = say(asked, word, gap=interval(*gap), but=but, steps=steps, **figures)
    return chosen, ruled | {chosen: ""}
