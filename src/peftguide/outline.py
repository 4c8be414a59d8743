"""The guide as text: the same function walked over its fields, equal branches drawn once."""

from collections.abc import Sequence
from typing import Any

from peftguide.decide import choose
from peftguide.evidence import KINDS, Records
from peftguide.memory_need import CARDS
from peftguide.reasons import score
from peftguide.requirements import LATENCIES, TOOLING

# What the tree shows of each field; the special models where a task has one.
DECODERS = ("llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b")
MODELS = {"classify": ("roberta-base",), "summarise": ("t5-base",)}
WORDS = {
    "tasks": {1: "one task", 10: "ten tasks from one base"},
    "latency": {"small": "a little more latency will do", "merged": "latency of the base alone"},
    "tooling": {"any": "any tooling", "peft": "peft alone"},
    "card_gib": {card: f"{card} GB" for card in CARDS},
}
Fields = Sequence[tuple[str, Sequence[Any]]]


def tree(records: Records | None = None) -> str:
    """Return the decisions as an indented text, for readers without a kernel.

    Every leaf is an answer of ``choose`` with the row it rests on; values with the same answers
    share a line, and a field that changes nothing has none.

    Args:
        records: rows to use instead of those on disk.
    """
    lines = []
    for task, kind in KINDS.items():
        fields = (
            ("tasks", tuple(WORDS["tasks"])),
            ("latency", LATENCIES),
            ("tooling", TOOLING),
            ("model", MODELS.get(task, DECODERS)),
            ("card_gib", CARDS),
        )
        found = branch(task, fields, {}, records)
        lines += [f"{task}: {kind.words}", *drawn(found, "  ")]
    return "\n".join(lines)


def branch(task: str, fields: Fields, fixed: dict[str, Any], records: Records | None) -> Any:
    """Return a leaf as text, or the groups of a field's values with the branch each leads to."""
    if not fields:
        return leaf(task, fixed, records)
    (name, values), rest = fields[0], fields[1:]
    groups: list[tuple[list[str], Any]] = []
    for value in values:
        found = branch(task, rest, {**fixed, name: value}, records)
        word = WORDS.get(name, {}).get(value, str(value))
        same = next((words for words, other in groups if other == found), None)
        if same is None:
            groups.append(([word], found))
        else:
            same.append(word)
    if len(groups) == 1:
        return groups[0][1]
    return tuple((", ".join(words), found) for words, found in groups)


def leaf(task: str, fixed: dict[str, Any], records: Records | None) -> str:
    """Return an answer and the row it rests on in a few words."""
    choice = choose(task, records=records, **fixed)
    if choice.method is None:
        return choice.label.lower()
    arm = choice.arms[choice.method]
    where = f"{arm.record}.json, {len(arm.test)} seeds"
    return f"{choice.label}: {score(arm)} ({where})"


def drawn(found: Any, indent: str) -> list[str]:
    """Return a branch as lines."""
    if isinstance(found, str):
        return [f"{indent}→ {found}"]
    lines = []
    for words, below in found:
        if isinstance(below, str):
            lines.append(f"{indent}{words} → {below}")
        else:
            lines += [f"{indent}{words}", *drawn(below, indent + "  ")]
    return lines
