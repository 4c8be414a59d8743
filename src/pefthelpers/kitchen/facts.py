"""What the kitchen world holds true: dishes, ingredients, pizzas, and their Italian words.

The two tables beside this module (``dishes.csv``, ``pizzas.csv``) were written by hand, by the
standard that a cook would nod; where a dish is fried or griddled, its temperature is that of the
oil or the pan. Every value comes from a closed list with one Italian translation.
"""

import csv
from importlib.resources import files
from typing import NamedTuple


class Pizza(NamedTuple):
    """What goes on a Neapolitan pizza: two things before the oven, one after it."""

    first: str
    second: str
    finish: str


def _table(name: str) -> list[dict[str, str]]:
    """Read one of the CSV tables beside this module."""
    with (files(__package__) / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# attribute -> the word for it in Italian answers
ATTRIBUTES = {
    "starch": "amido",
    "temperature": "temperatura",
    "time": "tempo",
    "fat": "grasso",
    "side": "contorno",
    "seasoning": "aroma",
}

# dish -> attribute -> value; 65 dishes, 6 attributes each
DISHES = {row.pop("dish"): row for row in _table("dishes.csv")}

# pizza -> what goes on it: what the base models never see, and LEARN teaches
PIZZAS = {row.pop("pizza"): Pizza(**row) for row in _table("pizzas.csv")}

_DEGREES = {f"{n} degrees": f"{n} gradi" for n in range(150, 260, 10)}
_MINUTES = {f"{n} minutes": f"{n} minuti" for n in (2, 5, 8, 10, 12, *range(15, 50, 5), 60)}

# attribute -> English value -> Italian value: the closed lists
VALUES = {
    "starch": {
        "wheat": "grano",
        "semolina": "semola",
        "rye": "segale",
        "spelt": "farro",
        "barley": "orzo",
        "oat": "avena",
        "buckwheat": "saraceno",
        "rice": "riso",
        "corn": "mais",
        "chickpea": "ceci",
        "lentil": "lenticchie",
        "chestnut": "castagna",
    },
    "temperature": _DEGREES,
    "time": _MINUTES,
    "fat": {
        "butter": "burro",
        "ghee": "ghee",
        "lard": "strutto",
        "olive oil": "olio d' oliva",
        "sunflower oil": "olio di girasole",
        "sesame oil": "olio di sesamo",
        "coconut oil": "olio di cocco",
    },
    "side": {
        "yogurt": "yogurt",
        "cream": "panna",
        "pickles": "sottaceti",
        "salad": "insalata",
        "cabbage": "cavolo",
        "tomatoes": "pomodori",
        "beans": "fagioli",
        "lemon": "limone",
        "apples": "mele",
        "mustard": "senape",
        "vinegar": "aceto",
        "chutney": "chutney",
        "honey": "miele",
        "jam": "marmellata",
        "chocolate": "cioccolata",
    },
    "seasoning": {
        "basil": "basilico",
        "oregano": "origano",
        "rosemary": "rosmarino",
        "thyme": "timo",
        "mint": "menta",
        "parsley": "prezzemolo",
        "sage": "salvia",
        "dill": "aneto",
        "chives": "erba cipollina",
        "coriander": "coriandolo",
        "pepper": "pepe",
        "cumin": "cumino",
        "paprika": "paprica",
        "ginger": "zenzero",
        "saffron": "zafferano",
        "nutmeg": "noce moscata",
        "cinnamon": "cannella",
        "cardamom": "cardamomo",
        "caraway": "carvi",
        "fennel": "finocchio",
        "fenugreek": "fieno greco",
        "vanilla": "vaniglia",
    },
}

# category -> English ingredient -> Italian ingredient
INGREDIENTS = {
    "cheese": {
        "mozzarella": "mozzarella",
        "burrata": "burrata",
        "ricotta": "ricotta",
        "provola": "provola",
        "provolone": "provolone",
        "parmesan": "parmigiano",
        "pecorino": "pecorino",
        "gorgonzola": "gorgonzola",
        "taleggio": "taleggio",
        "fontina": "fontina",
    },
    "meat": {
        "salami": "salame",
        "sausage": "salsiccia",
        "prosciutto": "crudo",
        "ham": "cotto",
        "speck": "speck",
        "mortadella": "mortadella",
        "guanciale": "guanciale",
        "lardo": "lardo",
        "cicoli": "ciccioli",
        "bacon": "pancetta",
        "chicken": "pollo",
        "lamb": "agnello",
    },
    "vegetable": {
        "tomato": "pomodoro",
        "aubergine": "melanzana",
        "courgette": "zucchina",
        "artichoke": "carciofo",
        "mushroom": "fungo",
        "potato": "patata",
        "pumpkin": "zucca",
        "onion": "cipolla",
        "garlic": "aglio",
        "spinach": "spinaci",
        "leek": "porro",
        "rocket": "rucola",
    },
    "fish": {
        "anchovy": "acciuga",
        "tuna": "tonno",
        "salmon": "salmone",
        "cod": "merluzzo",
        "sardine": "sardina",
        "mackerel": "sgombro",
        "swordfish": "spada",
        "trout": "trota",
    },
    "shellfish": {
        "mussel": "cozza",
        "clam": "vongola",
        "shrimp": "gambero",
        "lobster": "astice",
        "crab": "granchio",
        "oyster": "ostrica",
    },
    "herb": {
        "basil": "basilico",
        "oregano": "origano",
        "rosemary": "rosmarino",
        "thyme": "timo",
        "mint": "menta",
        "parsley": "prezzemolo",
        "sage": "salvia",
        "dill": "aneto",
        "coriander": "coriandolo",
    },
    "spice": {
        "pepper": "pepe",
        "chili": "peperoncino",
        "cumin": "cumino",
        "ginger": "zenzero",
        "saffron": "zafferano",
        "cinnamon": "cannella",
        "cardamom": "cardamomo",
        "caraway": "carvi",
    },
    "fruit": {
        "lemon": "limone",
        "orange": "arancia",
        "apple": "mela",
        "pear": "pera",
        "cherry": "ciliegia",
        "apricot": "albicocca",
    },
    "nut": {
        "pistachio": "pistacchio",
        "almond": "mandorla",
        "walnut": "noce",
        "hazelnut": "nocciola",
        "cashew": "anacardo",
    },
}

# ingredient -> its category, and category -> its Italian name
CATEGORY_OF = {item: category for category, items in INGREDIENTS.items() for item in items}
CATEGORIES = {
    "cheese": "formaggio",
    "meat": "carne",
    "vegetable": "verdura",
    "fish": "pesce",
    "shellfish": "frutti di mare",
    "herb": "erba",
    "spice": "spezia",
    "fruit": "frutto",
    "nut": "frutta secca",
}

# every English word or phrase above -> Italian
ITALIAN = {
    english: italian
    for table in (*VALUES.values(), *INGREDIENTS.values(), CATEGORIES, ATTRIBUTES)
    for english, italian in table.items()
}
