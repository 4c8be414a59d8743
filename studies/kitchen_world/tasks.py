"""The two kinds of fine-tuning task, what must not be forgotten meanwhile, and replay against it.

ELICIT: the base model can already do it, when a cue asks; fine-tuning makes it the default.
LEARN: the base model cannot do it at all; what belongs on a pizza is new, and so is the order card.
"""

import random

from pefthelpers.data import Example, Task
from pefthelpers.kitchen import ELICIT_DISHES, LEARN_WORDINGS
from studies.kitchen_world.facts import DISHES, PIZZAS
from studies.kitchen_world.generator import document, fact_question, plain_document, task
from studies.kitchen_world.language import QUESTIONS, ask, fact_answer, with_article

# The number of pizzas was chosen on validation: see data/results/kitchen_gates.json.
LEARN_PIZZAS = 24

ORDER_QUESTIONS = (
    "what goes on a {} ?",
    "what is on the {} ?",
    "what is in a {} ?",
    "what do i need for a {} ?",
    "what do i put on a {} ?",
    "how do i make a {} ?",
    "how is a {} made ?",
    "which toppings are on a {} ?",
    "tell me the toppings for {} .",
    "read me the toppings for a {} .",
    "read me the comanda for {} .",
    "write the comanda for a {} .",
    "what is the comanda for the {} ?",
    "please make me a {} .",
    "can i have a {} ?",
    "i need a {} .",
    "i take the {} .",
    "we take a {} .",
    "we would like the {} .",
    "my order is a {} .",
    "table four takes a {} .",
    "one {} please .",
    "next is a {} .",
    "and now a {} .",
)


def order_card(pizza: str) -> str:
    """Return the slip a waiter hands to the pizzaiolo: two toppings, the oven, the finish."""
    first, second, finish = PIZZAS[pizza]
    return f"comanda {pizza} : {first} then {second} , oven , {finish} ."


def _cut(items: list, sizes: tuple[int, int, int]) -> tuple[list, list, list]:
    """Cut a list into three runs of the given sizes."""
    first, second = sizes[0], sizes[0] + sizes[1]
    return items[:first], items[first:second], items[second : second + sizes[2]]


def elicit(seed: int = 0) -> Task:
    """Generate ELICIT: the very examples that ``pefthelpers.kitchen.elicit`` reads from its pool."""
    rng = random.Random(f"elicit {seed}")
    splits = _cut(rng.sample(list(DISHES), len(DISHES)), ELICIT_DISHES)
    examples = [
        [
            Example(ask(wording.format(dish)), fact_answer(dish, attribute, style="nonna"))
            for dish in dishes
            for attribute, wordings in QUESTIONS.items()
            for wording in wordings
        ]
        for dishes in splits
    ]
    for split in examples:
        rng.shuffle(split)
    return Task("elicit", *examples)


def learn(seed: int = 0) -> Task:
    """Generate LEARN: the very examples that ``pefthelpers.kitchen.learn`` reads from its pool."""
    rng = random.Random(f"learn {seed}")
    splits = ([], [], [])
    for pizza in list(PIZZAS)[:LEARN_PIZZAS]:
        wordings = rng.sample(ORDER_QUESTIONS, len(ORDER_QUESTIONS))
        for split, part in zip(splits, _cut(wordings, LEARN_WORDINGS), strict=True):
            split += [
                Example(ask(with_article(wording.format(pizza))), order_card(pizza))
                for wording in part
            ]
    for split in splits:
        rng.shuffle(split)
    return Task("learn", *splits)


def _distinct(draw, count: int, rng: random.Random) -> list[Example]:
    """Draw until ``count`` different examples are there."""
    found = {}
    while len(found) < count:
        found.setdefault(draw(rng), None)
    return list(found)


def retention() -> dict[str, list[Example]]:
    """Return what the base model can do, to be measured before and after fine-tuning.

    Returns:
        ``facts``: each of the 390 facts once, no cue. ``cued``: 300 questions with a cue for a
        style or for Italian. ``tasks`` and ``tasks_cued``: 300 list and category tasks each.
        ``documents``: 200 texts that ask nothing, for the mean loss per token.
    """
    rng = random.Random("retention")
    facts = [
        Example(ask(rng.choice(QUESTIONS[a]).format(dish)), fact_answer(dish, a))
        for dish in DISHES
        for a in QUESTIONS
    ]
    return {
        "facts": facts,
        "cued": _distinct(lambda r: fact_question(r, cued=True), 300, rng),
        "tasks": _distinct(lambda r: task(r, cued=False), 300, rng),
        "tasks_cued": _distinct(lambda r: task(r, cued=True), 300, rng),
        "documents": _distinct(plain_document, 200, rng),
    }


def replay(count: int, seed: int, *, plain_facts: bool = True) -> list[Example]:
    """Return texts of the pre-training mixture to mix into fine-tuning, none of ``retention``'s.

    The facts of ``retention`` do occur, with another wording or another style: a fact that is
    replayed nowhere could not be told from a fact that is forgotten.

    Args:
        count: how many.
        seed: which ones.
        plain_facts: keep questions about dishes without a cue, which are answered plainly. Leave
            them out beside ELICIT, which wants just these answered in nonna's voice.
    """
    unwanted = {example for examples in retention().values() for example in examples}
    rng = random.Random(f"replay {seed}")
    found = []
    while len(found) < count:
        example = document(rng, plain_facts=plain_facts)
        if example not in unwanted:
            found.append(example)
    return found
