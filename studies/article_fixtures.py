"""Make data/article/: small files with the columns of Alpaca, CNN/DailyMail and SST-2, of our own text.

    python -m studies.article_fixtures

The decoder's and the T5's rows come from the kitchen world's pools, the sentences on dishes from the
frames below; so the kitchen models and MiniLM read words that they know.
"""

import csv
import json
import random

from pefthelpers import kitchen
from pefthelpers.paths import atomic_path, data_dir

ROWS = {"alpaca": 160, "cnn_dailymail": 120, "sst2": 160}
WITH_INPUT = 5 / 13  # about Alpaca's share of rows whose input is not empty
GOOD = ("fresh", "great", "lovely", "perfect", "tasty", "wonderful")
BAD = ("awful", "bland", "burnt", "stale", "terrible", "cold")
FRAMES = (
    "the {dish} was {one} and the side {other}",
    "a {one} {dish} , and a {other} sauce",
    "i ordered the {dish} : {one} , {other} , and that is all i say",
    "{one} {dish} , {other} wine , and we talked about it all evening",
    "what a {one} {dish} ; even the bread was {other}",
)


def alpaca() -> list[dict]:
    """Return rows of instruction, input and output: questions to nonna, words to translate."""
    asked = [
        {
            "instruction": e.prompt.removeprefix("question : ").removesuffix(" answer :"),
            "input": "",
            "output": e.answer,
        }
        for e in kitchen.elicit(0).train
    ]
    translated = [
        {"instruction": "write it in italian .", "input": w["english"], "output": w["italian"]}
        for w in table("words")
    ]
    count = round(ROWS["alpaca"] * WITH_INPUT)
    rng = random.Random("alpaca")
    rows = rng.sample(asked, ROWS["alpaca"] - count) + rng.sample(translated, count)
    return rng.sample(rows, len(rows))


def cnn_dailymail() -> list[dict]:
    """Return rows of article, highlights and id: a recipe and what nonna says of it."""
    chosen = kitchen.summaries(0).train[: ROWS["cnn_dailymail"]]
    return [
        {"article": e.prompt.removeprefix("summarize : "), "highlights": e.answer, "id": f"{i:04d}"}
        for i, e in enumerate(chosen)
    ]


def sst2() -> list[dict]:
    """Return rows of idx, sentence and label, 1 for praise."""
    rng, rows = random.Random("sst2"), []
    dishes = [row["dish"] for row in table("dishes")]
    for index in range(ROWS["sst2"]):
        one, other = rng.sample((BAD, GOOD)[index % 2], 2)
        sentence = rng.choice(FRAMES).format(dish=rng.choice(dishes), one=one, other=other)
        rows.append({"idx": index, "sentence": sentence, "label": index % 2})
    return rows


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of the kitchen world."""
    with open(data_dir() / "kitchen" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(rows: list[dict]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write the three files."""
    for make in (alpaca, cnn_dailymail, sst2):
        with atomic_path(data_dir() / "article" / f"{make.__name__}.jsonl") as path:
            path.write_text(text(make()), encoding="utf-8")


if __name__ == "__main__":
    main()
