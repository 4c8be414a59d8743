"""The decision: constraints first, then the records, then the cost, in that order.

1. A method without three recorded seeds on the kind of task is no candidate.
2. Whatever does not meet the question is ruled out: layers that cannot be merged, tooling, a model
   of its own for every task, a step that the card does not hold.
3. The rest is compared with its best, paired by seed (``evidence.judge``): who lies more than two
   points below goes, be it shown to be worse or too uncertain to say.
4. 4 bits go where a method of 16 bits is left.
5. Of those left: for one task a method that merges into the base; then the smallest file,
   where a factor of two counts as the same; then the order of ``methods.LABELS``, adapters first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from peftguide import ruled as ruled_out
from peftguide import words
from peftguide.evidence import KINDS, Arm, Records, Verdict, arms, judge
from peftguide.memory_need import SPECIAL, fits, peak, task_bytes
from peftguide.question import Question
from peftguide.recipes import configuration
from pefthelpers.methods import LABELS

# peft merges these into the base (a test does it); the others are computed beside it for good.
MERGEABLE = ("full", "lora", "lora_qv", "rslora", "dora", "qlora", "ia3", "ln")
NOT_IN_PEFT = ("houlsby", "pfeiffer")
SAME_SIZE = 2


@dataclass(frozen=True)
class Choice:
    """The guide's answer.

    Attributes:
        question: what was asked.
        method: a key of ``methods.LABELS``, or None where nothing fits or nothing is recorded.
        label: the method in words.
        why: sentences, each made from a record or a memory estimate.
        alternatives: label of each other method to the reason that ruled it out.
        configuration: a cell to copy; empty without a method.
        arms: the supporting rows by method.
        verdicts: how each method that was compared stands to the best of them.
    """

    question: Question
    method: str | None
    label: str
    why: list[str]
    alternatives: dict[str, str]
    configuration: str = ""
    arms: Mapping[str, Arm] = field(default_factory=dict, repr=False)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict, repr=False)

    @property
    def rows(self):
        """The supporting rows as a DataFrame, one a recorded method."""
        import pandas as pd

        found = [self._row(method) for method in LABELS if method in self.arms]
        return pd.DataFrame(found).set_index("method") if found else pd.DataFrame()

    def _row(self, method: str) -> dict:
        arm, asked = self.arms[method], self.question
        verdict = self.verdicts.get(method)
        return {
            "method": LABELS[method],
            "mean": arm.mean,
            "±": arm.half,
            "seeds": len(arm.test),
            "learning rate": arm.learning_rate,
            "file bytes": arm.file_bytes,
            f"file bytes, {asked.model}": task_bytes(asked.model, method),
            f"GiB, {asked.model}": peak(asked.model, method, asked.shape),
            "compared": words.VERDICTS[verdict.word] if verdict else "ruled out before",
            "record": f"{arm.record}.json",
        }

    def __str__(self) -> str:
        """Return the answer as text: the method, why, and what was ruled out."""
        why = [f"  - {sentence}" for sentence in self.why]
        others = [f"  - {label}: {reason}" for label, reason in self.alternatives.items()]
        return "\n".join([f"{self.label}", *why, "ruled out:", *others])

    def _repr_html_(self) -> str:
        from peftguide.pages.chooser_answer import as_html

        return as_html(self)


def choose(task: str, *, records: Records | None = None, **fields) -> Choice:
    """Answer a question from the records.

    Args:
        task: ``elicit``, ``learn``, ``classify`` or ``summarise``.
        records: rows to use instead of those on disk: name of the record to DataFrame.
        **fields: model, card_gib, tasks, latency, tooling, batch, seq: see ``Question``.

    Raises:
        UserError: a field cannot be; the sentence lists what can.
    """
    asked = Question(task, **fields)
    found = {name: arm for name, arm in arms(task, records).items() if name in LABELS}
    met, ruled = sift(asked, found)
    if not met:
        return nothing(asked, found, ruled)
    verdicts = judge(met)
    ruled |= {
        name: ruled_out.below(verdict, met)
        for name, verdict in verdicts.items()
        if verdict.word in ("worse", "unresolved")
    }
    left = {name: arm for name, arm in met.items() if name not in ruled}
    order = prefer(asked, left, verdicts, ruled)
    why = words.reasons(asked, order, found, met, verdicts, records)
    return answer(asked, order, why, ruled, found, verdicts)


def sift(asked: Question, found: Mapping[str, Arm]) -> tuple[dict[str, Arm], dict[str, str]]:
    """Return the methods that meet the question, and why each other one does not."""
    ruled = {name: ruled_out.no_rows(asked) for name in LABELS if name not in found}
    met = {}
    for name, arm in found.items():
        if reason := refuse(asked, name, found):
            ruled[name] = reason
        else:
            met[name] = arm
    return met, ruled


def refuse(asked: Question, method: str, found: Mapping[str, Arm]) -> str | None:
    """Return why a method does not meet the question, None if it does."""
    if asked.latency == "merged" and method not in MERGEABLE:
        return ruled_out.cannot_merge(method)
    if asked.tooling == "peft" and method in NOT_IN_PEFT:
        return "peft has no bottleneck adapters: this package or AdapterHub's `adapters` has"
    if method == "full" and asked.tasks > 1:
        return ruled_out.own_model(asked, found)
    if method == "qlora" and asked.model in SPECIAL:
        return f"4 bits are not needed: {asked.model} is small"
    held = [each for each in settings(method) if fits(need(asked, each), asked.card_gib)]
    return None if held else ruled_out.too_big(asked, method)


def settings(method: str) -> tuple[str, ...]:
    """Return the settings that a method may be trained in, the most exact first."""
    return ("full", "full in bf16") if method == "full" else (method,)


def need(asked: Question, method: str) -> float | None:
    """Return the GiB of a method's step on the model that was asked for."""
    return peak(asked.model, method, asked.shape)


def prefer(
    asked: Question,
    left: dict[str, Arm],
    verdicts: Mapping[str, Verdict],
    ruled: dict[str, str],
) -> list[str]:
    """Return the methods left, the chosen first; say in ``ruled`` why each other one is not it."""
    sixteen = [name for name in left if name != "qlora"]
    if "qlora" in left and sixteen:
        ruled["qlora"] = f"{ruled_out.near(verdicts['qlora'])}, {ruled_out.not_needed(asked)}"
        left = {name: left[name] for name in sixteen}
    merging = [name for name in left if name in MERGEABLE]
    pool = merging if asked.tasks == 1 and merging else list(left)
    smallest = min(left[name].file_bytes for name in pool)
    small = [name for name in pool if left[name].file_bytes <= SAME_SIZE * smallest]
    order = list(LABELS)
    chosen = min(small, key=lambda name: (name == "full", order.index(name)))
    for name in left:
        if name != chosen:
            reason = ruled_out.not_first(left, name, chosen, pool, small)
            ruled[name] = f"{ruled_out.near(verdicts[name])}, {reason}"
    return [chosen, *(name for name in left if name != chosen)]


def answer(asked, left, why, ruled, found, verdicts) -> Choice:
    """Return the choice of ``left[0]``."""
    others = {LABELS[name]: ruled[name] for name in LABELS if name in ruled and name != left[0]}
    cell = configuration(left[0], asked.model, role_of(asked))
    return Choice(asked, left[0], LABELS[left[0]], why, others, cell, found, verdicts)


def role_of(asked: Question) -> str:
    """Return what the model is used as: a decoder writes summaries as a decoder."""
    if asked.task == "classify":
        return "encoder"
    return KINDS[asked.task].role if asked.model in SPECIAL else "decoder"


def nothing(asked: Question, found: Mapping[str, Arm], ruled: dict[str, str]) -> Choice:
    """Return the answer where no method is left: what would have to change."""
    others = {LABELS[name]: ruled[name] for name in LABELS if name in ruled}
    why = words.nothing_fits(asked, found) if found else [ruled_out.no_record(asked)]
    label = "Nothing fits" if found else "Nothing recorded"
    return Choice(asked, None, label, why, others, arms=found)
