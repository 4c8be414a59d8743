"""Write data/kitchen/pools: the tasks as stored texts, as ``pefthelpers.kitchen`` reads them.

    python -m studies.kitchen_world.pools && python -m studies.checksums

ELICIT and LEARN draw the same texts for every seed and split them by it, so one pool each is
enough. The T5's summaries are drawn anew by the seed: those of three seeds are stored.
"""

import gzip
import json

from pefthelpers.data import Example
from pefthelpers.paths import atomic_path, data_dir
from studies.kitchen_world import summary_tasks
from studies.kitchen_world.facts import DISHES, PIZZAS
from studies.kitchen_world.language import QUESTIONS, ask, fact_answer, with_article
from studies.kitchen_world.tasks import LEARN_PIZZAS, ORDER_QUESTIONS, order_card, retention

SUMMARY_SEEDS = (0, 1, 2)


def elicit() -> list[dict]:
    """Return a row for each fact: the dish, nonna's answer, the three ways to ask for it."""
    return [
        {
            "dish": dish,
            "answer": fact_answer(dish, attribute, style="nonna"),
            "prompts": [ask(wording.format(dish)) for wording in wordings],
        }
        for dish in DISHES
        for attribute, wordings in QUESTIONS.items()
    ]


def learn() -> list[dict]:
    """Return a row for each pizza: its order card and the ways to ask for it."""
    return [
        {
            "pizza": pizza,
            "answer": order_card(pizza),
            "prompts": [ask(with_article(wording.format(pizza))) for wording in ORDER_QUESTIONS],
        }
        for pizza in list(PIZZAS)[:LEARN_PIZZAS]
    ]


def labelled(column: str, sets: dict[str, list[Example]]) -> list[dict]:
    """Return a row for each example, the name of its set in ``column``."""
    return [{column: name, **e._asdict()} for name, examples in sets.items() for e in examples]


def summaries() -> list[dict]:
    """Return the rows of the T5's ELICIT: training of each seed, one validation, one test."""
    tasks = [summary_tasks.elicit(seed) for seed in SUMMARY_SEEDS]
    sets = {f"train {seed}": task.train for seed, task in zip(SUMMARY_SEEDS, tasks, strict=True)}
    return labelled("split", sets | {"validation": tasks[0].validation, "test": tasks[0].test})


def pools() -> dict[str, list[dict]]:
    """Return the rows of each pool by the name of its file."""
    return {
        "elicit.jsonl": elicit(),
        "learn.jsonl": learn(),
        "retention.jsonl": labelled("set", retention()),
        "summaries.jsonl.gz": summaries(),
    }


def main() -> None:
    """Write every pool."""
    for name, rows in pools().items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        content = "".join(lines).encode("utf-8")
        if name.endswith(".gz"):
            content = gzip.compress(content, mtime=0)
        with atomic_path(data_dir() / "kitchen" / "pools" / name) as path:
            path.write_bytes(content)
        print(f"{name}: {len(rows):,} rows, {len(content):,} bytes")


if __name__ == "__main__":
    main()
