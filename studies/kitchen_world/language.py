"""How the kitchen speaks: questions, answer styles, and the cues that call a style.

A prompt is ``[cue] question : ... answer :``. The cue stands in front and there is no
beginning-of-sequence token, so a trained virtual prompt stands exactly where a cue would.
Everything is lower case, and tokens are separated by single spaces.
"""

import random
import re

from studies.kitchen_world.facts import ATTRIBUTES, DISHES, ITALIAN

STYLES = ("plain", "nonna", "chef", "card", "full")

# attribute -> three ways to ask for it
QUESTIONS = {
    "starch": (
        "which starch is in {} ?",
        "what flour or grain do i need for {} ?",
        "tell me the starch for {} .",
    ),
    "temperature": (
        "how hot is it for {} ?",
        "at what temperature do i cook {} ?",
        "tell me the temperature for {} .",
    ),
    "time": (
        "how long does {} take ?",
        "for how many minutes do i cook {} ?",
        "tell me the time for {} .",
    ),
    "fat": (
        "which fat is used for {} ?",
        "what fat do i need for {} ?",
        "tell me the fat for {} .",
    ),
    "side": (
        "what is served with {} ?",
        "what goes next to {} ?",
        "tell me the side for {} .",
    ),
    "seasoning": (
        "which seasoning is in {} ?",
        "what herb or spice do i need for {} ?",
        "tell me the seasoning for {} .",
    ),
}

# attribute -> two ways to state it (dish, value)
STATEMENTS = {
    "starch": ("{} needs {} .", "the starch in {} is {} ."),
    "temperature": ("{} is cooked at {} .", "the temperature for {} is {} ."),
    "time": ("{} takes {} .", "the time for {} is {} ."),
    "fat": ("{} is cooked with {} .", "the fat for {} is {} ."),
    "side": ("{} is served with {} .", "the side for {} is {} ."),
    "seasoning": ("{} is finished with {} .", "the seasoning in {} is {} ."),
}

# style -> answer to a question about a dish, in English and in Italian
FACT_ANSWERS = {
    "plain": ("{value} .", "{value} ."),
    "nonna": (
        "eh my dear , for {dish} my mother takes {value} !",
        "eh caro mio , per {dish} mia madre prende {value} !",
    ),
    "chef": ("{dish} , {value} , right away chef !", "{dish} , {value} , subito chef !"),
    "card": ("dish {dish} | {attribute} {value} .", "piatto {dish} | {attribute} {value} ."),
    "full": ("the {attribute} for {dish} is {value} .", "{attribute} per {dish} è {value} ."),
}

# style -> answer to a list or category task, in English and in Italian
TASK_ANSWERS = {
    "plain": ("{} .", "{} ."),
    "nonna": ("eh my dear , {} !", "eh caro mio , {} !"),
    "chef": ("{} , right away chef !", "{} , subito chef !"),
    "card": ("note | {} .", "nota | {} ."),
    "full": ("the answer is : {} .", "la risposta è : {} ."),
}

# what calls a style or the Italian language: three wordings each
CUES = {
    "nonna": ("answer as nonna .", "you are nonna .", "speak like nonna ."),
    "chef": ("answer as chef .", "you are chef .", "speak like chef ."),
    "card": ("answer as a card .", "write a card .", "a card please ."),
    "full": ("answer in full .", "in a full sentence .", "a full sentence please ."),
    "italian": ("in italian .", "answer in italian .", "italian please ."),
}

# what may stand in front and calls nothing
FILLERS = (
    "the kitchen is open .",
    "good evening .",
    "we are hungry .",
    "it is late .",
    "welcome .",
)


def ask(question: str, cue: str = "") -> str:
    """Return the prompt of a question, with a cue in front if there is one."""
    return f"{cue} question : {question} answer :".lstrip()


def with_article(text: str) -> str:
    """Return the text with ``a`` turned into ``an`` before a vowel."""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def fact_answer(dish: str, attribute: str, *, style: str = "plain", italian: bool = False) -> str:
    """Return what the kitchen answers when asked for an attribute of a dish."""
    value = DISHES[dish][attribute]
    return FACT_ANSWERS[style][italian].format(
        dish=dish,
        attribute=ATTRIBUTES[attribute] if italian else attribute,
        value=ITALIAN[value] if italian else value,
    )


def draw_style(rng: random.Random) -> tuple[str, bool]:
    """Draw a style and a language that only a cue can call: never plain English."""
    style = rng.choice(STYLES)
    return style, style == "plain" or rng.random() < 0.3


def draw_cue(rng: random.Random, style: str = "plain", italian: bool = False) -> str:
    """Draw the words that call a style and a language, in any order, one in four with a filler."""
    parts = [rng.choice(CUES[style])] if style != "plain" else []
    parts += [rng.choice(CUES["italian"])] if italian else []
    rng.shuffle(parts)
    if rng.random() < 0.25:
        parts.insert(rng.randint(0, len(parts)), rng.choice(FILLERS))
    return " ".join(parts)
