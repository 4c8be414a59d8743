"""The rules that say which sentences of ``sentences.yaml`` hold for a decision, with their figures."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import peftmemory
from peftguide import evidence
from peftguide import memory_need as need
from peftguide.evidence import KINDS, MARGIN, Arm, Records, Standing, base_row, half_width
from peftguide.requirements import Requirements
from pefthelpers.methods import LABELS, METHODS, SERIES

STANDINGS = {
    "best": "highest mean",
    "tied": "not told apart",
    "close": f"at most {MARGIN:g} lower",
    "unresolved": "unresolved",
    "worse": "worse",
}
QUESTIONS = 1319  # test questions behind each of Hugging Face's accuracies
Reason = tuple[str, dict[str, Any]]  # the key of a sentence, and its figures


class Case(NamedTuple):
    """What a decision rests on.

    Attributes:
        asked: the requirements.
        found: the rows of every recorded method.
        met: of those that meet the requirements.
        standings: how each of ``met`` stands to the best of them.
        left: the methods left, the chosen one first.
        records: rows that were given instead of those on disk.
    """

    asked: Requirements
    found: Mapping[str, Arm]
    met: Mapping[str, Arm]
    standings: Mapping[str, Standing]
    left: list[str]
    records: Records | None


def say(asked: Requirements, sentence: str, **figures: Any) -> str:
    """Return a sentence of the table with its figures and those of the requirements."""
    kind, known = KINDS[asked.task], {"margin": MARGIN, "overhead": need.CARD_OVERHEAD_GIB}
    known |= {"kind": kind, "records": " or ".join(f"{name}.json" for name in kind.records)}
    return sentences()[sentence].format(**{**known, **vars(asked), **figures})


@cache
def sentences() -> dict[str, str]:
    """Return the guide's sentences by rule, with places for figures."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text(encoding="utf-8"))


def size(count: float) -> str:
    """Return bytes in words: ``441 kB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            value = count / factor
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"


def score(arm: Arm) -> str:
    """Return a mean with its interval."""
    return f"{arm.mean:.3f} ± {arm.half:.3f}"


def difference(standing: Standing) -> str:
    """Return how far a method lies below the best, with its interval."""
    return f"{standing.difference:.3f} ± {standing.half:.3f}"


def why(case: Case) -> list[str]:
    """Return why the first of ``case.left`` is chosen, as sentences."""
    found = [rule(case) for rule in RULES]
    return [say(case.asked, reason[0], **reason[1]) for reason in found if reason]


def measured(case: Case) -> Reason:
    """Return the chosen method's own row."""
    arm = case.found[case.left[0]]
    measure = "accuracy" if case.asked.task == "classify" else "exact match"
    figures = {"arm": arm, "label": LABELS[arm.method], "measure": measure}
    return "measured", figures | {"score": score(arm), "seeds": len(arm.test)}


def ties(case: Case) -> Reason:
    """Return who cannot be told apart from the best."""
    chosen, words = case.left[0], {name: each.word for name, each in case.standings.items()}
    if words[chosen] == "close":
        best = next(LABELS[name] for name, word in words.items() if word == "best")
        return "first by cost", {"best": best, "gap": difference(case.standings[chosen])}
    equal = [name for name in LABELS if words.get(name) in ("best", "tied") and name != chosen]
    if not equal:
        return "only" if len(words) == 1 else "ahead", {}
    *labels, last = [LABELS[name] for name in (chosen, *equal)]
    return "ties", {"equal": f"{', '.join(labels)} and {last}"}


def price(case: Case) -> Reason | None:
    """Return what the requirements cost, where the best method of all does not meet them."""
    best, chosen = max(case.found.values(), key=lambda arm: arm.mean), case.found[case.left[0]]
    gaps = [
        best.test[seed] - chosen.test[seed] for seed in sorted(set(best.test) & set(chosen.test))
    ]
    gap = Standing("", best.mean - chosen.mean, half_width(gaps))
    if best.method in case.met or gap.difference <= max(gap.half, MARGIN):
        return None
    return "price", {"best": LABELS[best.method], "gap": difference(gap)}


def room(case: Case) -> Reason:
    """Return what the step needs on the model that was asked for."""
    asked, chosen = case.asked, case.left[0]
    gib = need.peak(asked.model, chosen, asked.shape)
    if gib is None:
        return "no formula", {"gib": need.states(asked.model)}
    if chosen == "full" and not need.fits(gib, asked.card_gib):
        return "bf16", {"gib": gib, "low": need.peak(asked.model, "full in bf16", asked.shape)}
    return "peak" if asked.card_gib is None else "held", {"gib": gib}


def serving(case: Case) -> Reason | None:
    """Return what serving costs: files, copies, latency."""
    asked, chosen = case.asked, case.left[0]
    one, merged = need.task_bytes(asked.model, chosen), asked.latency == "merged"
    figures = {"one": size(one or 0), "whole": size(need.task_bytes(asked.model, "full") or 0)}
    if asked.tasks > 1 and merged:
        return "copies" if one else "copies alone", figures
    if asked.tasks > 1:
        return ("files", figures) if one else None
    return ("dequantised", figures) if chosen == "qlora" and merged else None


def elsewhere(case: Case) -> Reason | None:
    """Return the chosen method's best published row beside full fine-tuning's."""
    rows = [row for row in evidence.published() if row["method"] == case.left[0]]
    full = next(row for row in evidence.published() if row["method"] == "full")
    if not rows or full in rows:
        return None
    row = max(rows, key=lambda row: row["accuracy"])
    error = math.sqrt(sum(r["accuracy"] * (1 - r["accuracy"]) for r in (row, full)) / QUESTIONS)
    gap = row["accuracy"] - full["accuracy"]
    apart = f"{gap:+.3f} ± {1.96 * error:.3f}"
    verdict = apart if abs(gap) > 1.96 * error else "not told apart by its test items"
    count = f"the best of its {len(rows)} rows, " if len(rows) > 1 else ""
    return "elsewhere", {"row": row, "full": full, "count": count, "verdict": verdict}


def cue(case: Case) -> Reason | None:
    """Return what asking alone gives on ELICIT: the base's own score on its cue."""
    base = base_row("elicit", case.records) if case.asked.task == "elicit" else None
    return None if base is None else ("cue", {"base": base})


def forgetting(case: Case) -> Reason | None:
    """Return what the loss on old texts becomes, against the base's."""
    losses = case.found[case.left[0]].general_loss
    base = base_row(case.asked.task, case.records)
    if base is None or not losses:
        return None
    mean, half = sum(losses) / len(losses), half_width(losses)
    sentence = "forgets" if mean - half > base["general_loss"] else "keeps"
    return sentence, {"base": base, "mean": mean, "half": half}


def scope(case: Case) -> Reason:
    """Return how far the scores carry."""
    return "scope", {}


RULES = (measured, ties, price, room, serving, elsewhere, cue, forgetting, scope)


def nothing_fits(asked: Requirements, found: Mapping[str, Arm]) -> list[str]:
    """Return what is the least that is needed, and what would fit."""
    needs = {name: need.peak(asked.model, name, asked.shape) for name in found}
    least = min(needs, key=lambda name: needs[name] or 0)
    gib = needs[least]
    if gib is None or need.fits(gib, asked.card_gib):
        return [say(asked, "wishes")]
    first = say(asked, "least", label=LABELS[least], gib=gib)
    return [first, say(asked, "remedy", **remedy(asked.model, least, asked.card_gib, asked.shape))]


@cache
def remedy(model: str, method: str, card_gib: float, shape: need.Shape) -> dict[str, str]:
    """Return which card, model or change would make a method's step fit."""
    what, options = need.described(method), need.step(method, shape)
    card = need.smallest_card(need.peak(model, method, shape))
    small = peftmemory.largest_fitting(what, card_gib=card_gib, **options)
    changes = peftmemory.advise(model, what, card_gib=card_gib, **options).changes
    return {
        "larger": f"a card of {card} GB holds it" if card else "no single card here holds it",
        "smaller": f"the largest model here that fits this way is {small}"
        if small
        else "no model fits",
        "change": f" With {' and '.join(changes)} it would fit, not measured here."
        if changes
        else "",
    }


def no_merge(asked: Requirements, method: str) -> str:
    """Return why a method cannot be had without a layer more."""
    return say(asked, "in series" if METHODS[method].where == SERIES else "in front")


def own_model(asked: Requirements, found: Mapping[str, Arm]) -> str:
    """Return why full fine-tuning cannot share a base."""
    least = min(arm.file_bytes for name, arm in found.items() if name != "full" or len(found) == 1)
    sizes = (need.task_bytes(asked.model, "full") or 0, found["full"].file_bytes, least)
    return say(
        asked, "own model", **dict(zip(("whole", "there", "least"), map(size, sizes), strict=True))
    )


def too_big(asked: Requirements, method: str) -> str:
    """Return why a method's step does not fit the card."""
    gib = need.peak(asked.model, method, asked.shape)
    low = need.peak(asked.model, "full in bf16", asked.shape)
    return say(asked, "too big in bf16" if method == "full" else "too big", gib=gib, low=low)


def below(asked: Requirements, standing: Standing, met: Mapping[str, Arm]) -> str:
    """Return what the records say about a method that is not as good as the best."""
    best = max(met.values(), key=lambda arm: arm.mean)
    return say(asked, standing.word, gap=difference(standing), best=LABELS[best.method])


def beside(asked: Requirements, standing: Standing, sentence: str, **figures: Any) -> str:
    """Return how a method that might have been chosen stands, and by which rule it is not."""
    but = say(asked, sentence, **figures)
    near = "close" if standing.word == "close" else "tied"
    return say(asked, near, gap=difference(standing), but=but)


def not_needed(asked: Requirements, standing: Standing) -> str:
    """Return why QLoRA is not taken although nothing tells it apart."""
    four, sixteen = (need.peak(asked.model, name, asked.shape) for name in ("qlora", "lora"))
    if asked.card_gib is None or four is None:
        return beside(asked, standing, "16 bits")
    return beside(asked, standing, "16 bits fit", four=four, sixteen=sixteen)
