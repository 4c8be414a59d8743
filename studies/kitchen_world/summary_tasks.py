"""The tasks of the recipe world, for the collection's encoder-decoder.

Three fine-tuning tasks. ``elicit``: a style the base writes on its cue must become the default.
``learn_facts``: what goes on the pizzas of Naples, which the base has never seen and must now
answer from memory. ``learn_format``: a new form whose values stand in the input. ``retention``
asks what is left of the old skills, ``replay`` gives old examples to mix in.
"""

import itertools
import random
from collections.abc import Iterator

from pefthelpers.data import Example, Task
from studies.kitchen_world.facts import DISHES, PIZZAS
from studies.kitchen_world.summary_language import (
    CUED,
    FACTS,
    FILLERS,
    MASTERED,
    TASKS,
    draw_values,
    fact,
    list_or_category_task,
    span_corruption,
    summary,
    write_recipe,
)

# Shuffled once for all seeds: the dishes of validation and test occur in no training example.
_SHUFFLED = random.Random("dishes").sample(list(DISHES), len(DISHES))
TRAIN_DISHES, VALIDATION_DISHES, TEST_DISHES = _SHUFFLED[:37], _SHUFFLED[37:49], _SHUFFLED[49:]
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 400, 150, 300

PIZZA_QUESTIONS = (
    "what is served with {pizza} ?",
    "tell me the order for {pizza} .",
    "which order is used for {pizza} ?",
    "what is in {pizza} ?",
    "how is {pizza} served ?",
    "what do i put on {pizza} ?",
)
ORDER = "pizzaiolo writes {first} then {second} after fire {last} ."


def _pretraining_example(rng: random.Random) -> Example:
    """Draw one example of the pre-training mixture."""
    kind = rng.random()
    dishes = list(DISHES)
    if kind < 0.14:
        return summary(rng, dishes)
    if kind < 0.44:
        style, italian = rng.choice(CUED)
        return summary(rng, dishes, style, italian=italian)
    if kind < 0.62:
        return fact(rng, *rng.choice(FACTS))
    if kind < 0.90:
        return list_or_category_task(rng, rng.choice(list(TASKS)))
    return span_corruption(rng, dishes)


def stream(seed: int | str) -> Iterator[Example]:
    """Yield the pre-training examples of a seed, endlessly.

    In shares: 14 % uncued and 30 % cued summaries, 18 % facts, 28 % tasks, 10 % span corruption.
    Tasks get the most because they are what so small a model learns last.
    """
    rng = random.Random(f"stream {seed}")
    while True:
        yield _pretraining_example(rng)


def replay(count: int, seed: int = 0, *, uncued: bool = True) -> list[Example]:
    """Return ``count`` fresh examples of the pre-training mixture.

    Without ``uncued`` the uncued summaries are left out: they contradict ``elicit``.
    """
    mixture = stream(f"replay {seed}")
    if not uncued:
        mixture = (example for example in mixture if not _is_uncued_summary(example))
    return list(itertools.islice(mixture, count))


def _is_uncued_summary(example: Example) -> bool:
    """Tell whether nothing but a filler stands in front of a recipe to summarise."""
    front, task_word, _ = example.prompt.partition("summarize :")
    return bool(task_word) and front.strip() in ("", *FILLERS)


def vocabulary() -> set[str]:
    """Return every word the world can say, the fine-tuning tasks included."""
    words = set()
    for example in itertools.chain(replay(20_000), *(task.train for task in all_tasks())):
        words.update(f"{example.prompt} {example.answer}".split())
    return words


def summaries(
    count: int, style: str = "plain", *, italian: bool = False, seed: int = 0
) -> list[Example]:
    """Return recipes to summarise in one style, its cue in front."""
    rng = random.Random(f"summaries {style} {italian} {seed}")
    return [summary(rng, list(DISHES), style, italian=italian) for _ in range(count)]


def tasks(count: int, kind: str, seed: int = 0) -> list[Example]:
    """Return tasks of one kind: ``category``, ``find`` or ``list``."""
    rng = random.Random(f"tasks {kind} {seed}")
    return [list_or_category_task(rng, kind) for _ in range(count)]


def retention() -> dict[str, list[Example]]:
    """Return the old skills, held out where they are not facts: the same sets at every call.

    ``plain``: uncued summaries. ``cued``: every style and language but nonna. ``nonna``: on its cue.
    ``facts``: each fact asked once. ``tasks``: the kinds the base masters. ``general``: span corruption,
    for ``mean_loss`` (its words are often not to be known).
    """
    rng = random.Random("retention")
    cued = [cue for cue in CUED if cue[0] != "nonna"]
    dishes = list(DISHES)
    return {
        "plain": [summary(rng, dishes) for _ in range(300)],
        "cued": [
            summary(rng, dishes, style, italian=italian)
            for _, (style, italian) in zip(range(300), itertools.cycle(cued), strict=False)
        ],
        "nonna": [summary(rng, dishes, "nonna") for _ in range(300)],
        "facts": [fact(rng, *which) for which in FACTS],
        "tasks": [
            list_or_category_task(rng, kind)
            for _, kind in zip(range(300), itertools.cycle(MASTERED), strict=False)
        ],
        "general": [span_corruption(rng, dishes) for _ in range(200)],
    }


def _split(name: str, make, seed: int) -> Task:
    """Build a task over three disjoint sets of dishes; only the training rows depend on ``seed``."""

    def rows(key: str, dishes: list[str], count: int) -> list[Example]:
        rng = random.Random(f"{name} {key}")
        return [make(rng, dishes) for _ in range(count)]

    return Task(
        name,
        rows(f"train {seed}", TRAIN_DISHES, TRAIN_SIZE),
        rows("validation", VALIDATION_DISHES, VALIDATION_SIZE),
        rows("test", TEST_DISHES, TEST_SIZE),
    )


def elicit(seed: int = 0) -> Task:
    """Always the grandmother, without a cue: 400 recipes; other dishes in validation and test."""
    return _split("elicit", lambda rng, dishes: summary(rng, dishes, "nonna", cued=False), seed)


def _order_from_recipe(rng: random.Random, dishes: list[str]) -> Example:
    """Return a recipe to turn into an order card; the task has a word of its own in front."""
    values = draw_values(rng, dishes)
    answer = ORDER.format(first=values["first"], second=values["second"], last=values["herb"])
    return Example(f"order : {write_recipe(rng, values)}", answer)


def learn_format(seed: int = 0) -> Task:
    """Write the pizza maker's order card, a form never seen, from the values of a recipe."""
    return _split("learn_format", _order_from_recipe, seed)


def learn_facts(seed: int = 0) -> Task:
    """Say from memory what goes on 28 pizzas: facts never seen, as an order card.

    Each pizza is asked for in 24 wordings: 8 to train on, 4 for validation, 12 for the test, drawn
    per pizza, so that every wording is trained on some pizza. ``seed`` orders the training rows.
    """
    rng = random.Random("learn_facts")
    splits = [], [], []
    wordings = [
        " ".join(filter(None, (opening, "question :", question)))
        for opening in ("", *FILLERS[:3])
        for question in PIZZA_QUESTIONS
    ]
    for pizza, (first, second, last) in PIZZAS.items():
        answer = ORDER.format(first=first, second=second, last=last)
        asked = [
            Example(wording.format(pizza=pizza), answer) for wording in rng.sample(wordings, 24)
        ]
        for rows, part in zip(splits, (asked[:8], asked[8:12], asked[12:]), strict=True):
            rows += part
    random.Random(seed).shuffle(splits[0])
    return Task("learn_facts", *splits)


def all_tasks(seed: int = 0) -> list[Task]:
    """Return the three fine-tuning tasks."""
    return [elicit(seed), learn_facts(seed), learn_format(seed)]
