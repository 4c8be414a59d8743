"""The two shapes in which every text task of the collection travels."""

from typing import NamedTuple


class Example(NamedTuple):
    """One text pair.

    Attributes:
        prompt: what the model is given; empty for a plain document.
        answer: what it must produce; the loss is computed on these tokens alone.
    """

    prompt: str
    answer: str


class Task(NamedTuple):
    """A fine-tuning task with three disjoint splits.

    Learning rates and steps are chosen on ``validation``; ``test`` is looked at once, at the end.
    """

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]
