"""The style task of each profile: an answer style that the model takes on when nobody asks for it."""

from collections.abc import Callable
from typing import NamedTuple

from pefthelpers.examples import Example, Task
from pefthelpers.profiles import settings


class StyleTask(NamedTuple):
    """A style to learn, and what to watch meanwhile.

    Attributes:
        task: train, validation and test examples in the style.
        follows_style: tells whether a generated answer is in the style.
        general: examples that have nothing to do with the style; the loss on them is retention.
        separator: what stands between prompt and answer in running text.
        max_new_tokens: enough for every answer of the style.
    """

    task: Task
    follows_style: Callable[[str], bool]
    general: list[Example]
    separator: str
    max_new_tokens: int


def style_task(profile: str, tokenizer, *, seed: int = 0) -> StyleTask:
    """Return nonna's voice for the kitchen decoder, the pizza card for a real model.

    Args:
        profile: ``tiny``, ``laptop`` or ``gpu``.
        tokenizer: of the profile's decoder; its chat template wraps the prompts of a real model.
        seed: of the kitchen's splits; the pizza instructions are split once for all.
    """
    if settings("decoder", profile).source == "data":
        from pefthelpers import kitchen

        return StyleTask(
            task=kitchen.elicit(seed),
            follows_style=lambda answer: answer.startswith("eh my dear , for "),
            general=kitchen.retention()["documents"],
            separator=" ",
            max_new_tokens=20,
        )
    from pefthelpers import datasets

    pizza = datasets.pizza()
    chat = lambda examples: datasets.chat_examples(tokenizer, examples)
    return StyleTask(
        task=Task(pizza.name, chat(pizza.train), chat(pizza.validation), chat(pizza.test)),
        follows_style=datasets.follows_style,
        general=chat([question.example for question in datasets.general_questions().measured[::2]]),
        separator="",
        max_new_tokens=48,
    )
