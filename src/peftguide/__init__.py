"""The decision guide: a method for a task, a model and a card, made from the recorded results."""

from peftguide.decide import Choice, choose
from peftguide.evidence import KINDS, arms, judge
from peftguide.memory_need import CARDS, model_names
from peftguide.outline import tree
from peftguide.recipes import configuration, recipe
from peftguide.requirements import Requirements

__all__ = [
    "CARDS",
    "KINDS",
    "Choice",
    "Requirements",
    "arms",
    "choose",
    "configuration",
    "judge",
    "model_names",
    "recipe",
    "tree",
]
