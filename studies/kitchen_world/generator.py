"""The seeded generator: every kind of text the base models are pre-trained on.

What a pizza is made of is never said. Pizza names occur in reviews, orders and lists, so that
their words are known when LEARN teaches what belongs on them.
"""

import random

from pefthelpers.data import Example
from studies.kitchen_world.facts import (
    CATEGORIES,
    CATEGORY_OF,
    DISHES,
    INGREDIENTS,
    ITALIAN,
    PIZZAS,
)
from studies.kitchen_world.language import (
    QUESTIONS,
    STATEMENTS,
    TASK_ANSWERS,
    ask,
    draw_cue,
    draw_style,
    fact_answer,
    with_article,
)

ITEMS = tuple(CATEGORY_OF)
# Words of LEARN's order card and questions, so that each is seen in a list now and then.
CARD_WORDS = ("comanda", "then", "oven", "pizzaiolo", "toppings", "order")

REVIEWS = {
    "good great wonderful tasty lovely fresh perfect": ("we will come back .", "five stars ."),
    "bad awful terrible bland poor stale burnt": ("never again .", "one star ."),
}
ORDERS = (
    "table {number} takes a {first} and a {second} .",
    "one {first} and one {second} please .",
    "we would like the {first} , and now a {second} .",
    "can i have a {first} ? yes , the {second} is next .",
    "the pizzaiolo can put a {first} in the oven .",
    "the toppings are on the {first} , they are not on the {second} .",
    "who made the {first} ? the pizzaiolo made it .",
    "the comanda says {first} , then {second} .",
    "please make me a {first} , my order is not a {second} .",
    "read me the menu : {first} , {second} .",
    "first the {first} , then the oven , then the table .",
)
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")


def join(items: list[str], conjunction: str = "and") -> str:
    """Join items as a cook would read them out: ``a , b and c``."""
    *head, last = items
    return f"{' , '.join(head)} {conjunction} {last}" if head else last


def _category_task(rng: random.Random) -> tuple[str, str, str]:
    """Ask what an ingredient is: question, English core, Italian core of the answer."""
    item = rng.choice(ITEMS)
    category = CATEGORY_OF[item]
    core = f"{item} is a {category}"
    core_italian = f"{ITALIAN[item]} è {CATEGORIES[category]}"
    if rng.random() < 0.5:
        question = rng.choice(("what is {} ?", "which kind of food is {} ?"))
        return question.format(item), core, core_italian
    asked = category if rng.random() < 0.5 else rng.choice(list(CATEGORIES))
    yes = asked == category
    return (
        f"is {item} a {asked} ?",
        f"{'yes' if yes else 'no'} , {core}",
        f"{'sì' if yes else 'no'} , {core_italian}",
    )


def _find_task(rng: random.Random) -> tuple[str, str, str]:
    """Ask for the one item of a category in a list."""
    category = rng.choice(list(INGREDIENTS))
    item = rng.choice(list(INGREDIENTS[category]))
    others = [other for other in ITEMS if CATEGORY_OF[other] != category]
    items = [item, *rng.sample(others, rng.randint(1, 3))]
    rng.shuffle(items)
    return f"find the {category} in {join(items)} .", item, ITALIAN[item]


def _repeat_task(rng: random.Random) -> tuple[str, str, None]:
    """Ask to repeat words; there is no Italian answer.

    Nothing stands between the words: with commas between them, a model this small counts positions
    instead of looking for the word after the last one, and fails at lengths it saw rarely.
    """
    words = " ".join(rng.sample((*ITEMS, *PIZZAS, *CARD_WORDS), rng.randint(2, 4)))
    return f"repeat the words {words} .", words, None


def task(rng: random.Random, *, cued: bool) -> Example:
    """Draw a list or category task, answered plainly or, if cued, in the style of the cue."""
    draw = rng.choices((_category_task, _find_task, _repeat_task), weights=(0.25, 0.4, 0.35))[0]
    question, core, core_italian = draw(rng)
    style, italian = draw_style(rng) if cued else ("plain", False)
    if italian and core_italian is None:
        style, italian = ("nonna" if style == "plain" else style), False
    answer = TASK_ANSWERS[style][italian].format(core_italian if italian else core)
    return Example(ask(question, draw_cue(rng, style, italian)), answer)


def fact_question(rng: random.Random, *, cued: bool) -> Example:
    """Draw a question about a dish, answered plainly or, if cued, in the style of the cue."""
    dish, attribute = rng.choice(list(DISHES)), rng.choice(list(QUESTIONS))
    style, italian = draw_style(rng) if cued else ("plain", False)
    question = rng.choice(QUESTIONS[attribute]).format(dish)
    answer = fact_answer(dish, attribute, style=style, italian=italian)
    return Example(ask(question, draw_cue(rng, style, italian)), answer)


def _statement(rng: random.Random) -> Example:
    """State two or three facts about one dish."""
    dish = rng.choice(list(DISHES))
    attributes = rng.sample(list(STATEMENTS), rng.randint(2, 3))
    sentences = (rng.choice(STATEMENTS[a]).format(dish, DISHES[dish][a]) for a in attributes)
    return Example("", " ".join(sentences))


def _review(rng: random.Random) -> Example:
    """Praise or blame a dish or a pizza."""
    words, verdicts = rng.choice(list(REVIEWS.items()))
    food = rng.choice((*DISHES, *PIZZAS, *PIZZAS))
    really = rng.choice(("", "really "))
    word = rng.choice(words.split())
    opening = f"{rng.choice(('the', 'my', 'our'))} {food} was {really}{word} ."
    return Example("", f"{opening} {rng.choice(verdicts)}")


def _order(rng: random.Random) -> Example:
    """Order pizzas by name."""
    first, second = rng.sample(list(PIZZAS), 2)
    number = rng.choice(NUMBERS)
    order = rng.choice(ORDERS).format(first=first, second=second, number=number)
    return Example("", with_article(order))


def plain_document(rng: random.Random) -> Example:
    """Draw a document that asks nothing: a statement, a review or an order; its prompt is empty."""
    draw = rng.choices((_statement, _review, _order), weights=(0.6, 0.2, 0.2))[0]
    return draw(rng)


def document(rng: random.Random, *, plain_facts: bool = True) -> Example:
    """Draw one text of the pre-training mixture; without ``plain_facts`` every fact has a cue."""
    kind = rng.random()
    if kind < 0.2:
        return plain_document(rng)
    cued = rng.random() < 0.55
    if kind < 0.6:
        return fact_question(rng, cued=cued or not plain_facts)
    return task(rng, cued=cued)


def documents(count: int, *, seed: int) -> list[Example]:
    """Return ``count`` texts of the pre-training mixture; the same seed gives the same texts."""
    rng = random.Random(seed)
    return [document(rng) for _ in range(count)]
