"""The rules that say which sentences of ``sentences.yaml`` hold for a decision, with their figures."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import peftmemory
from peftguide import memory_need
from peftguide.evidence import MARGIN, Arm, Standing, half_width, paired, published
from peftguide.memory_need import CARDS, described, room, step, task_bytes
from peftguide.recipes import TASKS, rates
from peftguide.requirements import Requirements
from pefthelpers.methods import LABELS, METHODS
from peftmemory.cards import SLACK, reported, verdict

STANDINGS = {
    "best": "highest mean",
    "tied": "not told apart",
    "close": f"at most {MARGIN:g} lower",
    "unresolved": "unresolved",
    "worse": "worse",
}
# By rule, with places for figures.
SENTENCES = yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text(encoding="utf-8"))
# Examples from which on an adapter's capacity, and below which the noise of a test, is worth a word.
MANY, HUNDRED = 50_000, 100
USUAL_SEQ = (
    Requirements.seq
)  # tokens where nobody asked for others: the recipe takes its task's own
OLDER = 16  # GB of the T4 and the V100, which have no bf16


class Case(NamedTuple):
    """What a decision rests on."""

    asked: Requirements
    arm: Arm  # the rows of the chosen method
    found: Mapping[str, Arm]  # those of every recorded method
    standings: Mapping[str, Standing]  # of each method that meets the requirements
    base: Mapping[str, Any] | None  # the record's row of the untrained base


def say(asked: Requirements, sentence: str, **figures: Any) -> str:
    """Return a sentence of the table with its figures and those of the requirements."""
    kind, known = asked.kind, {"margin": MARGIN}
    known |= {"room": asked.card_gib and room(asked.card_gib)}
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


def first(asked: Requirements) -> str:
    """Say what to try before any training, by what is known of the task."""
    return say(asked, f"first {asked.task}")


def before(case: Case) -> str:
    """Say what to try before training; on ELICIT with what asking alone gave in the toy world."""
    cued = case.asked.task == "elicit" and case.base is not None
    return first(case.asked) + (" " + say(case.asked, "cue", base=case.base) if cued else "")


def default(case: Case) -> str:
    """Say why this method: it is the default, or what rules the default out."""
    return say(
        case.asked,
        f"default {case.arm.method}" if case.arm.method in ("lora", "qlora") else "no default",
    )


def rate(case: Case) -> str:
    """Say at which learning rates to look."""
    return say(case.asked, "rate", **rates(case.arm.method))


def amount(case: Case) -> str | None:
    """Say what the number of examples asks for."""
    if case.asked.examples >= MANY:
        return say(case.asked, "many")
    return say(case.asked, "hundred") if case.asked.examples < HUNDRED else None


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
        return say(case.asked, "little behind", best=best, gap=gap)
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


def memory(case: Case) -> str:
    """Say what the step needs on the model that was asked for."""
    asked, gib = case.asked, case.asked.peak(case.arm.method)
    if gib is None:
        figures = {"label": LABELS[case.arm.method], "billion": asked.parameters / 1e9}
        figures |= {"gib": asked.need(case.arm.method), "full": asked.need("full")}
        none = asked.card_gib is None
        figures["of_room"] = " " + say(asked, "on a cpu" if none else "of room")
        return say(asked, "no formula", command=traced(asked, case.arm.method), **figures)
    if case.arm.method == "full" and not asked.fits(gib):
        return say(asked, "bf16", gib=gib, low=asked.peak("full in bf16"))
    if asked.card_gib is None:
        return say(asked, "no gpu", gib=gib)
    word = verdict(gib * peftmemory.GIB, reported(asked.card_gib))
    two = memory_need.sharded(asked.model, case.arm.method, 2, asked.batch, asked.seq)
    more = [say(asked, "tight", low=SLACK[0] - 1, high=SLACK[1] - 1, two=two)] * (word != "fits")
    more += [say(asked, "older")] * (asked.card_gib == OLDER)
    return " ".join([say(asked, "held", gib=gib), *more])


def traced(asked: Requirements, method: str) -> str:
    """Return the command that traces a method's step on the model that was asked for."""
    return memory_need.trace_command(asked.model, method, asked.batch, asked.seq)


def serving(case: Case) -> str | None:
    """Say what serving several tasks costs: files, copies, engines."""
    asked, merged = case.asked, case.asked.latency == "merged"
    one, whole = (task_bytes(asked.model, name) or 0 for name in (case.arm.method, "full"))
    if asked.tasks == 1:
        return (
            say(asked, "dequantised", whole=size(whole))
            if case.arm.method == "qlora" and merged
            else None
        )
    figures = {"whole": size(whole), "copies": size(asked.tasks * whole), "one": size(one)}
    figures |= {"files": size(asked.tasks * one)}
    if merged:
        return say(asked, "copies" if one else "some copies", **figures)
    engine = say(asked, "engine") if asked.role == "decoder" else ""
    return say(asked, "files" if one else "some files", engine=engine, **figures).rstrip()


def elsewhere(case: Case) -> str | None:
    """Say what a comparison on a real model found of the chosen method, first of all evidence."""
    found = published(case.arm.method)
    if found is None:
        return None
    apart = f"{found.gap:+.3f} ± {found.half:.3f}"
    verdict = apart if abs(found.gap) > found.half else "not told apart by its test items"
    count = f"the best of its {found.rows} rows, " if found.rows > 1 else ""
    own = "" if case.asked.role == "decoder" else " Another kind of model than yours."
    figures = {"row": found.row, "full": found.full, "count": count, "own": own}
    return say(case.asked, "elsewhere", verdict=verdict, **figures)


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


def script(case: Case) -> str:
    """Say which command prints the whole script."""
    asked = case.asked
    task = asked.task if asked.task in TASKS else "chat"
    facts = asked.role == "seq2seq" and task == "chat"
    figures = {"recipe_task": "summarise" if facts else task, "method": case.arm.method}
    figures["card"] = "none" if asked.card_gib is None else f"{asked.card_gib:g}"
    figures["source"] = memory_need.hub_name(asked.model)
    if figures["source"].endswith(".json"):  # a shape without weights
        figures["source"] = "YOUR/MODEL"
    figures["length"] = "" if asked.seq == USUAL_SEQ else f" --seq {asked.seq}"
    more = [say(asked, "text to text")] * facts
    if task == "chat" and not facts and not re.search("instruct|chat|-it$", asked.model.lower()):
        more += [say(asked, "instruct")]
    return " ".join([say(asked, "script", **figures), *more])


RULES = (before, default, rate, amount, elsewhere, measured, ties, price, memory, serving)
RULES += (forgetting, script, scope)


def without_gpu(asked: Requirements) -> list[str]:
    """Return what to say to who wants to train a large model without a GPU."""
    gib, four = asked.need("lora"), asked.peak("qlora")
    card = next((card for card in CARDS if (four or 0) <= room(card)), None)
    said = say(asked, "not without", billion=asked.parameters / 1e9, gib=gib)
    rent = say(asked, "rent", card=card, four=four) if card and four else say(asked, "rent any")
    return [said, rent, first(asked)]


def nothing_fits(asked: Requirements, found: Mapping[str, Arm]) -> tuple[str, list[str]]:
    """Return that there is no answer, and the least that is needed and what would fit."""
    if not found:
        return "Nothing recorded", [say(asked, "no record")]
    needs = {n: asked.need(n) for n in found if n != "qlora" or asked.role == "decoder"}
    least = min(needs, key=lambda name: needs[name])
    gib = needs[least]
    if asked.fits(gib):
        return "Nothing fits", [say(asked, "wishes")]
    if asked.peak(least) is None:
        card = next((f"a card of {n} GB or more" for n in CARDS if gib <= room(n)), "several cards")
        total, packed, _ = memory_need.weights(asked.model)
        figures = {"label": LABELS[least], "gib": gib, "larger": card, "share": packed / total}
        said = say(asked, "weights alone", command=traced(asked, least), **figures)
        return "Nothing fits", [said, first(asked)]
    said = [say(asked, "least", label=LABELS[least], gib=gib)]
    return "Nothing fits", [*said, say(asked, "remedy", **remedy(asked, least, gib)), first(asked)]


def remedy(asked: Requirements, method: str, gib: float) -> dict[str, str]:
    """Return which card, cards, model or change would make a method's step of ``gib`` GiB fit."""
    what, options = described(method), step(method, asked.batch, asked.seq)
    card = next((card for card in CARDS if gib <= room(card)), None)
    options["card_gib"] = reported(asked.card_gib)
    small = peftmemory.largest_fitting(what, **options)
    changes = peftmemory.advise(memory_need.known(asked.model), what, **options).changes
    would = f" With {' and '.join(changes)} it would fit, not measured here."
    largest = f"of the models here {small} is the largest that fits this way"
    return {
        "larger": f"a card of {card} GB holds it" if card else "no single card here holds it",
        "cards": several(asked, method),
        "smaller": largest if small else "no model here fits",
        "change": (would if changes else "") + shorter(asked, method),
    }


def shorter(asked: Requirements, method: str) -> str:
    """Say which half or quarter of the length would fit, if one does."""
    parts = [asked.seq // part for part in (2, 4) if asked.seq // part >= 128]
    peaks = {seq: memory_need.peak(asked.model, method, asked.batch, seq) for seq in parts}
    fitting = next((seq for seq, gib in peaks.items() if asked.fits(gib)), None)
    return f" With {fitting:,} tokens a sequence it fits." if fitting else ""


def several(asked: Requirements, method: str) -> str:
    """Say how many cards of the size asked for hold a step under FSDP."""
    options = (asked.card_gib, asked.batch, asked.seq)
    cards = memory_need.cards_needed(asked.model, method, *options)
    two = memory_need.sharded(asked.model, method, 2, *options[1:])
    if cards is None:
        return ""
    label = METHODS[method].label
    each = memory_need.sharded(asked.model, method, cards, *options[1:])
    said = f"; so do {cards} cards of {asked.card_gib:g} GB with FSDP and {label}, about {each:.1f} GiB each"
    if cards > 2:
        said += f" (two need {two:.1f}, or a part of the weights in RAM: Answer.AI 2024)"
    return f"{said}; notebook 10b starts such a run and checks it"
