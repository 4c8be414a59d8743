"""The rules that say which sentences of ``sentences.yaml`` hold for a decision, with their figures."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import peftmemory
from peftguide.evidence import KINDS, MARGIN, Arm, Standing, half_width, paired
from peftguide.memory_need import CARDS, described, step, task_bytes
from peftguide.requirements import Requirements
from pefthelpers import results
from pefthelpers.methods import LABELS
from peftmemory.advice import CARD_OVERHEAD_GIB

STANDINGS = {
    "best": "highest mean",
    "tied": "not told apart",
    "close": f"at most {MARGIN:g} lower",
    "unresolved": "unresolved",
    "worse": "worse",
}
# By rule, with places for figures.
SENTENCES = yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text(encoding="utf-8"))
QUESTIONS = 1319  # test questions behind each of Hugging Face's accuracies
PUBLISHED = "peft_metamathqa_scores/rows/method="  # Llama-3.2-3B, one seed each: its caveats


class Case(NamedTuple):
    """What a decision rests on."""

    asked: Requirements
    arm: Arm  # the rows of the chosen method
    found: Mapping[str, Arm]  # those of every recorded method
    standings: Mapping[str, Standing]  # of each method that meets the requirements
    base: Mapping[str, Any] | None  # the record's row of the untrained base


def say(asked: Requirements, sentence: str, **figures: Any) -> str:
    """Return a sentence of the table with its figures and those of the requirements."""
    kind, known = KINDS[asked.task], {"margin": MARGIN, "overhead": CARD_OVERHEAD_GIB}
    known |= {"kind": kind, "records": " or ".join(f"{name}.json" for name in kind.records)}
    return SENTENCES[sentence].format(**known | vars(asked) | figures)


def size(count: float) -> str:
    """Return bytes in words: ``441 kB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            value = count / factor
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"


def interval(mean: float, half: float) -> str:
    """Return how far one mean lies below another, with its interval."""
    return f"{mean:.3f} ± {half:.3f}"


def measured(case: Case) -> str:
    """Say the chosen method's own row."""
    arm = case.arm
    measure = "accuracy" if case.asked.task == "classify" else "exact match"
    figures = {"label": LABELS[arm.method], "measure": measure, "seeds": len(arm.test)}
    return say(case.asked, "measured", arm=arm, **figures)


def ties(case: Case) -> str:
    """Say who cannot be told apart from the best."""
    chosen, words = case.arm.method, {name: each.word for name, each in case.standings.items()}
    if words[chosen] == "close":
        best = next(LABELS[name] for name, word in words.items() if word == "best")
        gap = interval(*case.standings[chosen][1:])
        return say(case.asked, "close to the best", best=best, gap=gap)
    equal = [name for name in LABELS if words.get(name) in ("best", "tied") and name != chosen]
    if not equal:
        return say(case.asked, "only" if len(words) == 1 else "ahead")
    *labels, last = [LABELS[name] for name in (chosen, *equal)]
    top = max(case.found[name].mean for name in words)
    sentence = "ties at the ceiling" if top > 1 - MARGIN else "ties"
    return say(case.asked, sentence, equal=f"{', '.join(labels)} and {last}", top=top)


def price(case: Case) -> str | None:
    """Say what the requirements cost, where the best method of all does not meet them."""
    best = max(case.found.values(), key=lambda arm: arm.mean)
    lower, half = paired(best, case.arm)
    if best.method in case.standings or lower <= max(half, MARGIN):
        return None
    return say(case.asked, "price", best=LABELS[best.method], gap=interval(lower, half))


def room(case: Case) -> str:
    """Say what the step needs on the model that was asked for."""
    asked, gib = case.asked, case.asked.peak(case.arm.method)
    if gib is None:  # weights, gradients and AdamW moments of full fine-tuning in float32
        states = 16 * peftmemory.parameters(asked.model, "full").base / peftmemory.GIB
        return say(asked, "no formula", gib=states)
    if case.arm.method == "full" and not asked.fits(gib):
        return say(asked, "bf16", gib=gib, low=asked.peak("full in bf16"))
    return say(asked, "peak" if asked.card_gib is None else "held", gib=gib)


def serving(case: Case) -> str | None:
    """Say what serving costs: files, copies, latency."""
    asked, merged = case.asked, case.asked.latency == "merged"
    one, whole = (task_bytes(asked.model, name) or 0 for name in (case.arm.method, "full"))
    sentence = "dequantised" if case.arm.method == "qlora" and merged else None
    if asked.tasks > 1 and merged:
        sentence = "copies" if one else "copies alone"
    elif asked.tasks > 1:
        sentence = "files" if one else None
    figures = {"files": size(asked.tasks * one), "copies": size(asked.tasks * whole)}
    return sentence and say(asked, sentence, one=size(one), whole=size(whole), **figures)


def elsewhere(case: Case) -> str | None:
    """Say the chosen method's best published row beside full fine-tuning's."""
    rows, (full,) = (results.look_up(PUBLISHED + name) for name in (case.arm.method, "full"))
    if not rows or full in rows:
        return None
    row = max(rows, key=lambda row: row["accuracy"])
    error = math.sqrt(sum(r["accuracy"] * (1 - r["accuracy"]) for r in (row, full)) / QUESTIONS)
    gap = row["accuracy"] - full["accuracy"]
    apart = f"{gap:+.3f} ± {1.96 * error:.3f}"
    verdict = apart if abs(gap) > 1.96 * error else "not told apart by its test items"
    count = f"the best of its {len(rows)} rows, " if len(rows) > 1 else ""
    return say(case.asked, "elsewhere", row=row, full=full, count=count, verdict=verdict)


def cue(case: Case) -> str | None:
    """Say what asking alone gives on ELICIT: the base's own score on its cue."""
    asked_alone = case.asked.task == "elicit" and case.base is not None
    return say(case.asked, "cue", base=case.base) if asked_alone else None


def forgetting(case: Case) -> str | None:
    """Say what becomes of the loss on old texts and of the old tasks, against the base."""
    if case.base is None or "tasks" not in (old := case.arm.old):
        return None
    mean, tasks = (sum(old[name]) / len(old[name]) for name in ("general_loss", "tasks"))
    half = half_width(old["general_loss"])
    lost = max(case.base["tasks"] - tasks, mean - case.base["general_loss"])
    sentence = "forgets" if lost > MARGIN else "keeps"
    return say(case.asked, sentence, base=case.base, mean=mean, half=half, tasks=tasks)


def scope(case: Case) -> str:
    """Say how far the scores carry."""
    return say(case.asked, "scope")


RULES = (measured, ties, price, room, serving, elsewhere, cue, forgetting, scope)


def nothing_fits(asked: Requirements, found: Mapping[str, Arm]) -> tuple[str, list[str]]:
    """Return that there is no answer, and the least that is needed and what would fit."""
    if not found:
        return "Nothing recorded", [say(asked, "no record")]
    needs = {name: asked.peak(name) for name in found}
    least = min(needs, key=lambda name: needs[name] or 0)
    gib = needs[least]
    if gib is None or asked.fits(gib):
        return "Nothing fits", [say(asked, "wishes")]
    first = say(asked, "least", label=LABELS[least], gib=gib)
    return "Nothing fits", [first, say(asked, "remedy", **remedy(asked, least, gib))]


@cache
def remedy(asked: Requirements, method: str, gib: float) -> dict[str, str]:
    """Return which card, model or change would make a method's step of ``gib`` GiB fit."""
    what, options = described(method), step(method, asked.batch, asked.seq)
    card = next((card for card in CARDS if gib + CARD_OVERHEAD_GIB <= card), None)
    small = peftmemory.largest_fitting(what, card_gib=asked.card_gib, **options)
    changes = peftmemory.advise(asked.model, what, card_gib=asked.card_gib, **options).changes
    would = f" With {' and '.join(changes)} it would fit, not measured here."
    largest = f"the largest model here that fits this way is {small}"
    return {
        "larger": f"a card of {card} GB holds it" if card else "no single card here holds it",
        "smaller": largest if small else "no model fits",
        "change": would if changes else "",
    }
