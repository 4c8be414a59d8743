"""The guide's sentences: each is made from a record or a memory estimate, no number is typed.

The exceptions are figures of papers, which carry author, year and table.
"""

import math
from collections.abc import Mapping
from functools import cache

import peftmemory
from peftguide.evidence import (
    KINDS,
    MARGIN,
    Arm,
    Records,
    Verdict,
    base_row,
    half_width,
    published,
)
from peftguide.memory_need import (
    CARD_OVERHEAD_GIB,
    Shape,
    described,
    fits,
    peak,
    smallest_card,
    states,
    step,
    task_bytes,
)
from peftguide.question import Question
from pefthelpers.methods import LABELS

VERDICTS = {
    "best": "highest mean",
    "tied": "not told apart",
    "close": f"at most {MARGIN:g} lower",
    "unresolved": "unresolved",
    "worse": "worse",
}
QUESTIONS = 1319  # test questions behind each of Hugging Face's accuracies


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


def listed(methods) -> str:
    """Return methods' labels as ``a, b and c``."""
    names = [LABELS[name] for name in methods]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def nothing_fits(asked: Question, found: Mapping[str, Arm]) -> list[str]:
    """Return what is the least that is needed, and what would fit."""
    least = min(found, key=lambda name: peak(asked.model, name, asked.shape) or 0)
    gib = peak(asked.model, least, asked.shape)
    if gib is None or fits(gib, asked.card_gib):
        return ["Nothing recorded meets all of these wishes: drop one of latency and tooling."]
    first = (
        f"No method's step on {asked.model} fits a card of {asked.card_gib:g} GB: the least is "
        f"{LABELS[least]} with {gib:.1f} GiB beside {CARD_OVERHEAD_GIB:g} for the CUDA context."
    )
    return [first, remedy(asked.model, least, asked.card_gib, asked.shape)]


@cache
def remedy(model: str, method: str, card_gib: float, shape: Shape) -> str:
    """Return which card, model or change would make a method's step fit."""
    card = smallest_card(peak(model, method, shape))
    larger = f"a card of {card} GB holds it" if card else "no single card here holds it"
    what, options = described(method), step(method, shape)
    small = peftmemory.largest_fitting(what, card_gib=card_gib, **options)
    smaller = f"the largest model here that fits this way is {small}" if small else "no model fits"
    advice = peftmemory.advise(model, what, card_gib=card_gib, **options)
    change = f" With {' and '.join(advice.changes)} it would fit, not measured here."
    sentence = f"What would: {larger}; on {card_gib:g} GB {smaller}."
    return sentence + (change if advice.changes else "")


def reasons(
    asked: Question,
    left: list[str],
    found: Mapping[str, Arm],
    met: Mapping[str, Arm],
    verdicts: Mapping[str, Verdict],
    records: Records | None,
) -> list[str]:
    """Return why the first of ``left`` is chosen, as sentences."""
    chosen = left[0]
    sentences = [
        evidence(asked, found[chosen]),
        ties(left, verdicts),
        price(found, met, chosen),
        room(asked, chosen),
        serving(asked, chosen),
        hugging_face(chosen),
        just_ask(asked, records),
        forgetting(asked, found[chosen], records),
        limits(asked),
    ]
    return [sentence for sentence in sentences if sentence]


def evidence(asked: Question, arm: Arm) -> str:
    """Return the chosen method's own row."""
    kind = KINDS[asked.task]
    measure = "accuracy" if asked.task == "classify" else "exact match"
    return (
        f"Measured on {asked.task} ({kind.words}; {kind.base}, {arm.record}.json): "
        f"{LABELS[arm.method]} reaches {score(arm)} {measure}, mean and 95 % t interval of "
        f"{len(arm.test)} seeds at the learning rate {arm.learning_rate:g} that validation chose."
    )


def ties(left: list[str], verdicts: Mapping[str, Verdict]) -> str:
    """Return who cannot be told apart from the best."""
    chosen = verdicts[left[0]]
    if chosen.word == "close":
        best = next(name for name, verdict in verdicts.items() if verdict.word == "best")
        return (
            f"{LABELS[best]} scores {chosen.difference:.3f} ± {chosen.half:.3f} more; less than "
            f"{MARGIN:g} does not decide here, cost does."
        )
    equal = [name for name, verdict in verdicts.items() if verdict.word in ("best", "tied")]
    others = [name for name in LABELS if name in equal and name != left[0]]
    if len(verdicts) == 1:
        return "It is the only recorded method that meets the question."
    if not others:
        return "Every other method that meets the question is worse or unresolved."
    return f"Not told apart by these seeds: {listed([left[0], *others])}; they are not ranked."


def price(found: Mapping[str, Arm], met: Mapping[str, Arm], chosen: str) -> str:
    """Return what the constraints cost, where the best method of all does not meet them."""
    best = max(found.values(), key=lambda arm: arm.mean)
    if best.method in met:
        return ""
    seeds = sorted(set(best.test) & set(found[chosen].test))
    gaps = [best.test[seed] - found[chosen].test[seed] for seed in seeds]
    gap, half = best.mean - found[chosen].mean, half_width(gaps)
    if gap <= max(half, MARGIN):
        return ""
    name = LABELS[best.method]
    return f"What the question costs: {name}, ruled out by it, scores {gap:.3f} ± {half:.3f} more."


def room(asked: Question, chosen: str) -> str:
    """Return what the step needs on the model that was asked for."""
    gib = peak(asked.model, chosen, asked.shape)
    if gib is None:
        return (
            f"{asked.model}: no closed form covers its activations; all weights, gradients and "
            f"AdamW moments of full fine-tuning in fp32 are {states(asked.model):.1f} GiB."
        )
    how = f"a step of {asked.batch} × {asked.seq:,} tokens"
    if chosen == "full" and not fits(gib, asked.card_gib):
        low = peak(asked.model, "full in bf16", asked.shape)
        return (
            f"On {asked.model} {how} needs {gib:.1f} GiB in mixed precision and {low:.1f} GiB in "
            "pure bf16: load with dtype=torch.bfloat16, which rounds small updates away."
        )
    card = "" if asked.card_gib is None else f"; a card of {asked.card_gib:g} GB holds that"
    return (
        f"On {asked.model} {how} peaks at {gib:.1f} GiB by the closed form{card} beside "
        f"{CARD_OVERHEAD_GIB:g} GiB for the CUDA context."
    )


def serving(asked: Question, chosen: str) -> str:
    """Return what serving costs: files, copies, latency."""
    one, whole = task_bytes(asked.model, chosen), task_bytes(asked.model, "full")
    files = ""
    if asked.tasks > 1 and one:
        files = (
            f"{asked.tasks} tasks are {asked.tasks} files of {size(one)} beside one base of "
            f"{size(whole or 0)}"
        )
    if asked.latency == "merged" and asked.tasks > 1:
        copies = f"merged, each task served at the same time is a copy of {size(whole or 0)}"
        return f"{files or 'One base'}; {copies}."
    if chosen == "qlora" and asked.latency == "merged":
        return (
            f"Merged into the dequantised weights it takes 16 bits a weight again, {size(whole or 0)}"
            "; quantised once more it is another model: notebook 03 measures both."
        )
    return f"{files}." if files else ""


def hugging_face(chosen: str) -> str:
    """Return the chosen method's best published row beside full fine-tuning's."""
    rows = [row for row in published() if row["method"] == chosen]
    whole = next(row for row in published() if row["method"] == "full")
    if not rows or chosen == "full":
        return ""
    row = max(rows, key=lambda row: row["accuracy"])
    error = math.sqrt(sum(r["accuracy"] * (1 - r["accuracy"]) for r in (row, whole)) / QUESTIONS)
    gap = row["accuracy"] - whole["accuracy"]
    apart = abs(gap) > 1.96 * error
    count = f"the best of its {len(rows)} rows, " if len(rows) > 1 else ""
    verdict = f"{gap:+.3f} ± {1.96 * error:.3f}" if apart else "not told apart by its test items"
    return (
        f"Elsewhere: Hugging Face on Llama-3.2-3B and MetaMathQA, one seed, {count}"
        f"{row['name']} "
        f"{row['accuracy']:.3f} against full {whole['accuracy']:.3f}: {verdict}."
    )


def just_ask(asked: Question, records: Records | None) -> str:
    """Return what asking alone gives on ELICIT: the base's own score on its cue."""
    base = base_row(asked.task, records)
    if asked.task != "elicit" or base is None:
        return ""
    return (
        "First try the cue itself: asked with one, for a style or for Italian, the untrained base "
        f"scores {base['cued']:.3f}; training saves the cue."
    )


def forgetting(asked: Question, arm: Arm, records: Records | None) -> str:
    """Return what the loss on old texts becomes, against the base's."""
    base = base_row(asked.task, records)
    if base is None or not arm.general_loss:
        return ""
    mean, half = sum(arm.general_loss) / len(arm.general_loss), half_width(arm.general_loss)
    moved = f"from {base['general_loss']:.2f} to {mean:.2f} ± {half:.2f} at that learning rate"
    if mean - half > base["general_loss"]:
        return f"It forgets: the loss on old texts goes {moved}; mix old texts in (replay)."
    return f"No forgetting beyond its interval: the loss on old texts goes {moved}."


def limits(asked: Question) -> str:
    """Return how far the scores carry."""
    return (
        f"Scores, learning rates and intervals are those of {KINDS[asked.task].base}; for "
        f"{asked.model} only memory and file sizes are worked out: search the rate again there."
    )
