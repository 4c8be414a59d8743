"""The decision guide: a method for a task, a model and a card, made from the recorded results."""

from pefthelpers.guide.decide import Choice, Question, choose
from pefthelpers.guide.evidence import KINDS, arms, judge
from pefthelpers.guide.outline import tree
from pefthelpers.guide.recipes import INSTALL, configuration, recipe
from pefthelpers.guide.room import CARDS, model_names

__all__ = [
    "CARDS",
    "INSTALL",
    "KINDS",
    "Choice",
    "Question",
    "arms",
    "choose",
    "configuration",
    "judge",
    "model_names",
    "recipe",
    "tree",
]
