"""The guide as text: the same function walked over its fields, equal branches drawn once."""

from collections.abc import Mapping
from typing import Any

from peftguide.decide import choose
from peftguide.evidence import KINDS, Records
from peftguide.memory_need import CARDS

# What the tree shows of each field, in words; the special models where a task has one.
DECODERS = ("llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b")
MODELS = {"classify": ("roberta-base",), "summarise": ("t5-base",)}
FIELDS = {
    "tasks": {1: "one task", 10: "ten tasks from one base"},
    "latency": {"small": "a little more latency will do", "merged": "latency of the base alone"},
    "tooling": {"any": "any tooling", "peft": "peft alone", "vllm": "served by vLLM or SGLang"},
}


def tree(records: Records | None = None) -> str:
    """Return the decisions as an indented text, for readers without a kernel.

    Every leaf is an answer of ``choose``; values with the same answers share a line, and a field
    that changes nothing has none, nor have tasks. A task's line says on which stand-in its rows
    were measured.

    Args:
        records: rows to use instead of those on disk.
    """
    cards, groups = {card: f"{card} GB" for card in CARDS} | {None: "no GPU"}, {}
    for task, kind in KINDS.items():
        models = {model: model for model in MODELS.get(task, DECODERS)}
        fields = FIELDS | {"model": models, "card_gib": cards}
        found = branch(fields, {"task": task, "records": records})
        said = f"{task}: {kind.words}; measured on {kind.base}"
        groups.setdefault(found, []).append(said)
    below = lambda found: "\n  " + drawn(found, "  ").strip(" \n")
    return "\n".join("\n".join(said) + below(found) for found, said in groups.items())


def branch(fields: Mapping[str, Mapping[Any, str]], fixed: dict[str, Any]) -> str | tuple:
    """Return a leaf as text, or the groups of a field's values with the branch each leads to."""
    if not fields:
        return choose(**fixed).label
    (name, values), *rest = fields.items()
    groups: dict[str | tuple, list[str]] = {}
    for value, word in values.items():
        found = branch(dict(rest), {**fixed, name: value})
        groups.setdefault(found, []).append(word)
    alone = next(iter(groups)) if len(groups) == 1 else None
    return alone or tuple((", ".join(words), found) for found, words in groups.items())


def drawn(found: str | tuple, indent: str) -> str:
    """Return a leaf behind an arrow, or each group on a line of its own."""
    if isinstance(found, str):
        return f" → {found}"
    below = [f"{indent}{words}{drawn(each, indent + '  ')}" for words, each in found]
    return "".join(f"\n{line}" for line in below)
