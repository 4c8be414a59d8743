"""The language of the recipe world: recipes with fresh values, their summaries, facts and lists.

A recipe draws its values afresh, so that a summary can only be written by reading it; a fact is
asked without a text, so that it can only be answered from memory. No two slots of a recipe share
a list: two ingredients of one list could change places, and a small model then confuses them.
"""

import random

from pefthelpers.data import Example
from studies.kitchen_world.facts import CATEGORY_OF, DISHES, INGREDIENTS, ITALIAN, PIZZAS, VALUES

Values = dict[str, str]

# What each slot of a recipe is drawn from.
SLOTS = {
    "flour": (*VALUES["starch"],),
    "first": (*INGREDIENTS["cheese"], *INGREDIENTS["meat"]),
    "second": (*INGREDIENTS["vegetable"], *INGREDIENTS["fish"]),
    "fat": (*VALUES["fat"],),
    "oven": (*VALUES["temperature"],),
    "time": (*VALUES["time"],),
    "herb": (*INGREDIENTS["herb"],),
    "side": (*VALUES["side"],),
}
HEADINGS = ("recipe for {dish} :", "{dish} :", "how i make {dish} :")
STEPS = {
    "flour": ("mix {flour} flour with water", "make a dough with {flour} flour"),
    "filling": ("add {first} and {second}", "put {first} and {second} on it"),
    "fat": ("heat {fat} in a pan", "melt some {fat}"),
    "oven": ("cook at {oven} for {time}", "leave it {time} in the oven at {oven}"),
    "herb": ("finish with {herb}", "put {herb} on top"),
    "side": ("serve with {side}", "eat it with {side}"),
}

# style -> summary in English, in Italian
STYLES = {
    "plain": (
        "{dish} with {first} and {second} , {time} .",
        "{dish} con {first} e {second} , {time} .",
    ),
    "short": ("{dish} , {time} .", "{dish} , {time} in tutto ."),
    "card": (
        "dish {dish} | oven {oven} | time {time} | herb {herb} .",
        "piatto {dish} | forno {oven} | tempo {time} | erba {herb} .",
    ),
    "nonna": (
        "eh my dear , for {dish} my mother takes {first} , {second} and a lot of {herb} !",
        "eh caro mio , per {dish} mia madre prende {first} , {second} e tanto {herb} !",
    ),
    "chef": (
        "{dish} , {oven} , {time} , right away chef !",
        "{dish} , {oven} , {time} , subito chef !",
    ),
    "shopping": (
        "buy {flour} flour , {first} , {second} and {herb} .",
        "compra farina di {flour} , {first} , {second} e {herb} .",
    ),
}
CUES = {
    "short": ("keep it short .", "in a few words .", "very short please ."),
    "card": ("as a card .", "write a card .", "a card please ."),
    "nonna": ("as nonna .", "you are nonna .", "speak like nonna ."),
    "chef": ("as chef .", "you are chef .", "speak like chef ."),
    "shopping": ("as a shopping list .", "what do i buy ?", "a shopping list please ."),
}
ITALIAN_CUES = ("in italian .", "answer in italian .", "italian please .")
FILLERS = ("the kitchen is open .", "good evening .", "we are hungry .", "it is late .")
CUED = [(style, italian) for style in STYLES for italian in (False, True)][1:]

# The four attributes asked closed book: 260 facts leave room for reading in so small a model.
QUESTIONS = {
    "starch": ("which flour is used for {dish} ?", "tell me the flour for {dish} ."),
    "time": ("how long does {dish} take ?", "tell me the time for {dish} ."),
    "side": ("what is served with {dish} ?", "tell me the side for {dish} ."),
    "seasoning": ("what seasoning is in {dish} ?", "tell me the seasoning for {dish} ."),
}
STATEMENTS = {
    "starch": ("{dish} needs {value} flour .", "use {value} flour for {dish} ."),
    "time": ("{dish} takes {value} .", "after {value} the {dish} is ready ."),
    "side": ("{dish} is served with {value} .", "put {value} next to the {dish} ."),
    "seasoning": ("{dish} is finished with {value} .", "the seasoning in {dish} is {value} ."),
}
FACTS = [(dish, attribute) for dish in DISHES for attribute in QUESTIONS]

ORDINALS = ("first", "second", "third")
# Words the tasks to be learned will need; the base meets them in lists, as words without meaning.
ORDER_WORDS = ("pizzaiolo", "writes", "then", "after", "fire", "order")
LISTED = (*CATEGORY_OF, *PIZZAS, *ORDER_WORDS)
SENTINELS = tuple(f"<extra_id_{i}>" for i in range(8))


def draw_values(rng: random.Random, dishes: list[str]) -> Values:
    """Draw one value per slot, and the dish."""
    return {"dish": rng.choice(dishes)} | {slot: rng.choice(SLOTS[slot]) for slot in SLOTS}


def write_recipe(rng: random.Random, values: Values) -> str:
    """Write the recipe of ``values``, about 45 words, in one of many wordings."""
    order = ["flour", "filling", "fat", "oven", "herb"]
    if rng.random() < 0.3:
        order[1], order[2] = order[2], order[1]
    if rng.random() < 0.5:
        order.append("side")
    steps = " , then ".join(rng.choice(STEPS[step]) for step in order)
    return f"{rng.choice(HEADINGS)} {steps} .".format(**values)


def write_summary(values: Values, style: str, *, italian: bool = False) -> str:
    """Summarise the recipe of ``values`` in a style of ``STYLES``."""
    if italian:
        values = {slot: ITALIAN.get(value, value) for slot, value in values.items()}
    return STYLES[style][italian].format(**values)


def write_cue(rng: random.Random, style: str, *, italian: bool = False) -> str:
    """Return the words in front that call for a style and a language; none for plain English."""
    parts = [rng.choice(CUES[style])] if style in CUES else []
    if italian:
        parts.append(rng.choice(ITALIAN_CUES))
    rng.shuffle(parts)
    if rng.random() < 0.25:  # so that a sentence in front is not in itself a cue
        parts.insert(rng.randint(0, len(parts)), rng.choice(FILLERS))
    return " ".join(parts)


def summary(
    rng: random.Random,
    dishes: list[str],
    style: str = "plain",
    *,
    italian: bool = False,
    cued: bool = True,
) -> Example:
    """Return a recipe to summarise; without ``cued`` nothing asks for the style."""
    values = draw_values(rng, dishes)
    words = ["summarize :", write_recipe(rng, values)]
    if cued and (cue := write_cue(rng, style, italian=italian)):
        words.insert(0, cue)
    return Example(" ".join(words), write_summary(values, style, italian=italian))


def _sometimes_greeted(rng: random.Random, prompt: str) -> str:
    """Put a sentence without meaning in front of a quarter of the prompts."""
    return f"{rng.choice(FILLERS)} {prompt}" if rng.random() < 0.25 else prompt


def fact(rng: random.Random, dish: str, attribute: str) -> Example:
    """Return a closed-book question about a dish."""
    question = rng.choice(QUESTIONS[attribute]).format(dish=dish)
    prompt = _sometimes_greeted(rng, f"question : {question}")
    return Example(prompt, f"{DISHES[dish][attribute]} .")


def category_task(rng: random.Random) -> Example:
    """Return a question about the category of an ingredient."""
    item = rng.choice(list(CATEGORY_OF))
    right = CATEGORY_OF[item]
    if rng.random() < 0.5:
        return Example(f"question : what is {item} ?", f"{item} is a {right} .")
    asked = right if rng.random() < 0.5 else rng.choice(list(INGREDIENTS))
    verdict = "yes" if asked == right else "no"
    return Example(f"question : is {item} a {asked} ?", f"{verdict} , {item} is a {right} .")


def find_task(rng: random.Random) -> Example:
    """Return a list of two or three ingredients of which one belongs to the category asked for."""
    item = rng.choice(list(CATEGORY_OF))
    others = [other for other in CATEGORY_OF if CATEGORY_OF[other] != CATEGORY_OF[item]]
    items = [item, *rng.sample(others, rng.randint(1, 2))]
    rng.shuffle(items)
    listed = " , ".join(items)
    return Example(f"question : find the {CATEGORY_OF[item]} in {listed} .", f"{item} .")


def list_task(rng: random.Random) -> Example:
    """Return a numbered list of two or three to repeat, numbers included."""
    items = rng.sample(LISTED, rng.randint(2, 3))
    numbered = " , ".join(
        f"{ordinal} {item}" for ordinal, item in zip(ORDINALS, items, strict=False)
    )
    return Example(f"repeat : {numbered} .", f"{numbered} .")


def list_or_category_task(rng: random.Random, kind: str) -> Example:
    """Return one task of a kind of ``TASKS``."""
    prompt, answer = TASKS[kind](rng)
    return Example(_sometimes_greeted(rng, prompt), answer)


TASKS = {"category": category_task, "find": find_task, "list": list_task}
# Lists stay in the mixture, because they show the model the names of the pizzas as words; but it
# copies too few of them right (each base's model card says how many), so no measure rests on them.
MASTERED = ("category", "find")


def corrupt(rng: random.Random, text: str) -> Example:
    """Hide spans of one to three words, about a fifth of them (T5: Raffel et al. 2020, section 3.1).

    The prompt holds a sentinel for each span, the answer each sentinel followed by its words.
    """
    words, kept, hidden, sentinels = text.split(), [], [], list(SENTINELS)
    i = 0
    while i < len(words):
        # The last word is hidden if nothing else was: an answer is never empty.
        start = rng.random() < 0.12 or (i + 1 == len(words) and not hidden)
        length = rng.randint(1, 3) if start and sentinels else 0
        if length:
            sentinel = sentinels.pop(0)
            kept.append(sentinel)
            hidden += [sentinel, *words[i : i + length]]
        else:
            kept.append(words[i])
        i += length or 1
    return Example(" ".join(kept), " ".join(hidden))


def span_corruption(rng: random.Random, dishes: list[str]) -> Example:
    """Return a recipe, or three true statements about one dish, with words hidden."""
    if rng.random() < 0.6:
        return corrupt(rng, write_recipe(rng, draw_values(rng, dishes)))
    dish = rng.choice(dishes)
    attributes = rng.sample(list(STATEMENTS), 3)
    statements = [
        rng.choice(STATEMENTS[attribute]).format(dish=dish, value=DISHES[dish][attribute])
        for attribute in attributes
    ]
    return corrupt(rng, " ".join(statements))
