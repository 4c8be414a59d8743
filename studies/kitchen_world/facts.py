"""What the kitchen world holds true: dishes, ingredients, pizzas, and their Italian words.

The three tables in data/kitchen (``dishes.csv``, ``pizzas.csv``, ``words.csv``) were written by
hand, by the standard that a cook would nod; where a dish is fried or griddled, its temperature is
that of the oil or the pan. Every value comes from a closed list with one Italian translation.
"""

import csv
from typing import NamedTuple

from pefthelpers.paths import data_dir


class Pizza(NamedTuple):
    """What goes on a Neapolitan pizza: two things before the oven, one after it."""

    first: str
    second: str
    finish: str


def _table(name: str) -> list[dict[str, str]]:
    """Read one of the CSV tables of data/kitchen."""
    with (data_dir() / "kitchen" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


_WORDS = _table("words.csv")


def _list(name: str) -> dict[str, str]:
    """Return one list of words: English -> Italian."""
    return {row["english"]: row["italian"] for row in _WORDS if row["list"] == name}


# attribute of a dish -> the word for it in Italian answers; category -> its Italian name
ATTRIBUTES, CATEGORIES = _list("attribute"), _list("category")

# dish -> attribute -> value; 65 dishes, 6 attributes each
DISHES = {row.pop("dish"): row for row in _table("dishes.csv")}

# pizza -> what goes on it: what the base models never see, and LEARN teaches
PIZZAS = {row.pop("pizza"): Pizza(**row) for row in _table("pizzas.csv")}

# attribute -> English value -> Italian value, and category -> English ingredient -> Italian one
VALUES = {attribute: _list(attribute) for attribute in ATTRIBUTES}
INGREDIENTS = {category: _list(category) for category in CATEGORIES}

# ingredient -> its category
CATEGORY_OF = {item: category for category, items in INGREDIENTS.items() for item in items}

# every English word or phrase above -> Italian
ITALIAN = {
    english: italian
    for words in (*VALUES.values(), *INGREDIENTS.values(), CATEGORIES, ATTRIBUTES)
    for english, italian in words.items()
}
