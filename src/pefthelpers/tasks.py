"""The style task of each profile: an answer style that the model takes on when nobody asks for it."""

from collections.abc import Callable
from typing import NamedTuple

from pefthelpers import data, kitchen
from pefthelpers.data import Example, Task
from pefthelpers.profiles import settings

PIZZA_INSTRUCTION = (
    "You are a pizzaiolo in Naples. Answer with one short instruction, then the heat and the time, "
    "like this: Knead the dough by hand. Heat: 24 °C. Time: 600 seconds."
)


class StyleTask(NamedTuple):
    """A style to learn, and what to watch meanwhile.

    Attributes:
        task: train, validation and test examples in the style.
        instruction: words that ask for the style: a cue for the kitchen decoder, a system message
            for a real model.
        follows_style: tells whether a generated answer is in the style.
        leaks_style: tells whether an answer to something else shows any part of the style.
        others: questions that the style was not asked for; answers in the style are a leak.
        general: examples that have nothing to do with the style; the loss on them is retention.
        separator: what stands between prompt and answer in running text.
        max_new_tokens: enough for every answer of the style.
    """

    task: Task
    instruction: str
    follows_style: Callable[[str], bool]
    leaks_style: Callable[[str], bool]
    others: list[Example]
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
        return _nonna(seed)
    return _pizza_card(tokenizer)


def _nonna(seed: int) -> StyleTask:
    kept = kitchen.retention()
    return StyleTask(
        task=kitchen.elicit(seed),
        instruction="we are hungry . answer as nonna .",
        follows_style=lambda answer: answer.startswith("eh my dear , for "),
        leaks_style=lambda answer: "my dear" in answer or "my mother" in answer,
        others=kept["tasks"][:100],
        general=kept["documents"],
        separator=" ",
        max_new_tokens=20,
    )


def _pizza_card(tokenizer) -> StyleTask:
    pizza = data.pizza()
    chat = lambda examples: data.chat_examples(tokenizer, examples)
    general = chat([question.example for question in data.general_questions().measured[::2]])
    return StyleTask(
        task=Task(pizza.name, chat(pizza.train), chat(pizza.validation), chat(pizza.test)),
        instruction=PIZZA_INSTRUCTION,
        follows_style=data.follows_style,
        leaks_style=data.leaks_style,
        others=general,
        general=general,
        separator="",
        max_new_tokens=48,
    )
