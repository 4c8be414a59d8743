"""The decision: constraints first, then the records, then the cost, in that order.

1. A method without three recorded seeds on the kind of task is no candidate.
2. Whatever does not meet the requirements is ruled out: layers that cannot be merged, tooling, a
   model of its own for every task, a step that the card does not hold.
3. The rest is compared with its best, paired by seed (``evidence.judge``): who lies more than two
   points below goes, be it shown to be worse or too uncertain to say.
4. 4 bits go where a method of 16 bits is left.
5. Of those left: for one task a method that merges into the base; then the smallest file,
   where a factor of two counts as the same; then the order of ``methods.METHODS``, adapters first.
"""

from collections.abc import Mapping

from peftguide import reasons
from peftguide.choice import Choice
from peftguide.evidence import KINDS, Arm, Records, Standing, arms, judge
from peftguide.memory_need import SPECIAL, fits, peak
from peftguide.recipes import configuration
from peftguide.requirements import Requirements
from pefthelpers.methods import LABELS, METHODS

SAME_SIZE = 2
Reasons = dict[str, str]  # a method's key to why it is not chosen


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
    ruled = {name: reasons.say(asked, "no rows") for name in METHODS if name not in found}
    refused = {name: refuse(asked, name, found) for name in found}
    ruled |= {name: reason for name, reason in refused.items() if reason}
    met = {name: arm for name, arm in found.items() if name not in ruled}
    if not met:
        why = reasons.nothing_fits(asked, found) if found else [reasons.say(asked, "no record")]
        label = "Nothing fits" if found else "Nothing recorded"
        return Choice(asked, None, label, why, labelled(ruled), arms=found)
    standings = judge(met)
    for name, standing in standings.items():
        if standing.word in ("worse", "unresolved"):
            ruled[name] = reasons.below(asked, standing, met)
    left = prefer(asked, {n: arm for n, arm in met.items() if n not in ruled}, standings, ruled)
    why = reasons.why(reasons.Case(asked, found, met, standings, left, records))
    cell = configuration(left[0], asked.model, role_of(asked))
    return Choice(asked, left[0], LABELS[left[0]], why, labelled(ruled), cell, found, standings)


def labelled(ruled: Reasons) -> Reasons:
    """Return the reasons by the methods' labels, in the order of every table."""
    return {LABELS[name]: ruled[name] for name in METHODS if name in ruled}


def refuse(asked: Requirements, method: str, found: Mapping[str, Arm]) -> str | None:
    """Return why a method does not meet the requirements, None if it does."""
    if asked.latency == "merged" and not METHODS[method].mergeable:
        return reasons.no_merge(asked, method)
    if asked.tooling == "peft" and not METHODS[method].in_peft:
        return reasons.say(asked, "not in peft")
    if method == "full" and asked.tasks > 1:
        return reasons.own_model(asked, found)
    if method == "qlora" and asked.model in SPECIAL:
        return reasons.say(asked, "small")
    settings = ("full", "full in bf16") if method == "full" else (method,)
    needs = [peak(asked.model, setting, asked.shape) for setting in settings]
    held = any(fits(need, asked.card_gib) for need in needs)
    return None if held else reasons.too_big(asked, method)


def prefer(
    asked: Requirements,
    left: dict[str, Arm],
    standings: Mapping[str, Standing],
    ruled: Reasons,
) -> list[str]:
    """Return the methods left, the chosen first; say in ``ruled`` why each other one is not it."""
    sixteen = [name for name in left if name != "qlora"]
    if "qlora" in left and sixteen:
        ruled["qlora"] = reasons.not_needed(asked, standings["qlora"])
        left = {name: left[name] for name in sixteen}
    merging = [name for name in left if METHODS[name].mergeable]
    pool = merging if asked.tasks == 1 and merging else list(left)
    smallest = min(left[name].file_bytes for name in pool)
    small = [name for name in pool if left[name].file_bytes <= SAME_SIZE * smallest]
    order = list(METHODS)
    chosen = min(small, key=lambda name: (name == "full", order.index(name)))
    others = [name for name in left if name != chosen]
    for name in others:
        figures = {"first": LABELS[chosen], "own": reasons.size(left[name].file_bytes)}
        figures["least"] = reasons.size(left[chosen].file_bytes)
        rule = "same size" if name in small else "larger" if name in pool else "cannot merge"
        ruled[name] = reasons.beside(asked, standings[name], rule, **figures)
    return [chosen, *others]


def role_of(asked: Requirements) -> str:
    """Return what the model is used as: a decoder writes summaries as a decoder."""
    if asked.task == "classify":
        return "encoder"
    return KINDS[asked.task].role if asked.model in SPECIAL else "decoder"
