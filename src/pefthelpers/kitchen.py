"""The kitchen world's tasks: what the two small models are fine-tuned for, and must not forget.

The texts are stored in data/kitchen/pools; ``studies/kitchen_world`` wrote them, and holds the
generator of everything else the models were pre-trained on.
ELICIT: the base model can already do it, when a cue asks; fine-tuning makes it the default.
LEARN: the base model cannot do it at all; what belongs on a pizza is new, and so is the order card.
"""

import random

from pefthelpers.data import Example, Task, json_lines
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir

# How the dishes of ELICIT, and the wordings of each pizza of LEARN, fall into the three splits.
ELICIT_DISHES = (34, 11, 20)
LEARN_WORDINGS = (8, 6, 10)


def elicit(seed: int = 0) -> Task:
    """Make nonna's voice the decoder's default: no cue, always her style.

    The splits hold different dishes, so the values of a test answer come from pre-training.

    Args:
        seed: which dishes fall into which split, and the order of the examples.

    Returns:
        612, 198 and 360 examples.
    """
    rng = random.Random(f"elicit {seed}")
    asked = _asked("elicit", "dish")
    splits = _cut(rng.sample(list(asked), len(asked)), ELICIT_DISHES)
    examples = [[e for dish in split for e in asked[dish]] for split in splits]
    return _shuffled("elicit", examples, rng)


def learn(seed: int = 0) -> Task:
    """Teach what belongs on 24 pizzas, answered as an order card: facts and format are both new.

    Every pizza occurs in every split, each time with other wordings of the question; a wording
    held out for one pizza is trained with others.

    Args:
        seed: which wordings fall into which split, and the order of the examples.

    Returns:
        192, 144 and 240 examples.
    """
    rng = random.Random(f"learn {seed}")
    splits: list[list[Example]] = [[], [], []]
    for asked in _asked("learn", "pizza").values():
        parts = _cut(rng.sample(asked, len(asked)), LEARN_WORDINGS)
        for split, part in zip(splits, parts, strict=True):
            split += part
    return _shuffled("learn", splits, rng)


def summaries(seed: int = 0) -> Task:
    """Make nonna's voice the default of the T5's summaries: ELICIT for the encoder-decoder.

    Recipes with values drawn afresh; other dishes in validation and test.

    Args:
        seed: 0, 1 or 2; which training recipes, validation and test being the same for all.

    Returns:
        400, 150 and 300 examples.

    Raises:
        UserError: another seed.
    """
    rows = _pool("summaries", "split", "prompt", "answer", ending="jsonl.gz")
    split = lambda name: [Example(r["prompt"], r["answer"]) for r in rows if r["split"] == name]
    if not (train := split(f"train {seed}")):
        raise UserError(
            f"The T5's summaries are stored for the seeds 0, 1 and 2, not for {seed!r}: take one of "
            "these, or draw others in a clone by studies.kitchen_world.summary_tasks.elicit."
        )
    return Task("elicit", train, split("validation"), split("test"))


def retention() -> dict[str, list[Example]]:
    """Return what the decoder can do, to be measured before and after fine-tuning.

    Returns:
        ``facts``: each of the 390 facts once, no cue. ``cued``: 300 questions with a cue for a
        style or for Italian. ``tasks`` and ``tasks_cued``: 300 list and category tasks each.
        ``documents``: 200 texts that ask nothing, for the mean loss per token.
    """
    found: dict[str, list[Example]] = {}
    for row in _pool("retention", "set", "prompt", "answer"):
        found.setdefault(row["set"], []).append(Example(row["prompt"], row["answer"]))
    return found


def _pool(name: str, *fields: str, ending: str = "jsonl") -> list[dict]:
    return json_lines(data_dir() / "kitchen" / "pools" / f"{name}.{ending}", fields)


def _asked(name: str, about: str) -> dict[str, list[Example]]:
    """Return a pool's examples by the dish or pizza that they ask about."""
    found: dict[str, list[Example]] = {}
    for row in _pool(name, about, "answer", "prompts"):
        examples = [Example(prompt, row["answer"]) for prompt in row["prompts"]]
        found.setdefault(row[about], []).extend(examples)
    return found


def _cut(items: list, sizes: tuple[int, int, int]) -> tuple[list, list, list]:
    """Cut a list into three runs of the given sizes."""
    first, second = sizes[0], sizes[0] + sizes[1]
    return items[:first], items[first:second], items[second : second + sizes[2]]


def _shuffled(name: str, splits: list[list[Example]], rng: random.Random) -> Task:
    for split in splits:
        rng.shuffle(split)
    return Task(name, *splits)
