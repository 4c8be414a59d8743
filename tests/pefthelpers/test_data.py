"""The real data: what the docstrings say of it is true, no split leaks, damage ends in a sentence."""

import re
import shutil
from itertools import combinations

import pytest

from pefthelpers import data
from pefthelpers.data import Example
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def overlap(first: set[str], second: set[str]) -> float:
    """Jaccard index of two sets of words."""
    return len(first & second) / len(first | second)


def splits(task):
    return task.train, task.validation, task.test


def test_reviews_are_as_documented():
    task = data.reviews()
    sizes = [len(split) for split in splits(task)]
    assert sizes == [7_234, 1_076, 2_006]
    assert sum(sizes) == 10_316
    positive = sum(item.label for split in splits(task) for item in split)
    assert round(100 * positive / sum(sizes), 1) == 49.6
    for number in (*sizes, 10_316):
        assert f"{number:,}" in data.reviews.__doc__


def test_review_labels_follow_the_words():
    task = data.reviews()
    labels = {
        word: [item.label for item in task.train if f" {word} " in item.text]
        for word in ("excellent", "awful")
    }
    share = {word: sum(values) / len(values) for word, values in labels.items()}
    assert share["excellent"] > 0.7
    assert share["awful"] < 0.3


def test_domains_are_as_documented():
    task = data.domains()
    sizes = [len(split) for split in splits(task)]
    assert sizes == [10_964, 1_544, 3_213]
    editorials = sum(item.label for split in splits(task) for item in split)
    assert round(100 * editorials / sum(sizes), 1) == 32.6
    for number in (*sizes, sum(sizes)):
        assert f"{number:,}" in data.domains.__doc__


@pytest.mark.parametrize("task", [data.reviews(), data.domains()], ids=lambda t: t.name)
def test_no_sentence_is_in_two_splits(task):
    texts = [{" ".join(sorted(words(item.text))) for item in split} for split in splits(task)]
    for first, second in combinations(texts, 2):
        assert len(first & second) <= 2, "the same words in another order, at most"
    exact = [{data._plain(item.text) for item in split} for split in splits(task)]
    assert sum(map(len, exact)) == len(set().union(*exact)) == sum(map(len, splits(task)))


def test_a_review_keeps_its_split_in_the_second_task():
    by_text = {
        item.text: name
        for name, split in data.domains()._asdict().items()
        if isinstance(split, list)
        for item in split
    }
    for name in ("train", "validation", "test"):
        assert {by_text[item.text] for item in getattr(data.reviews(), name)} == {name}


def test_pizza_splits_and_style():
    task = data.pizza()
    assert [len(split) for split in splits(task)] == [180, 60, 60]
    examples = [example for split in splits(task) for example in split]
    assert all(data.follows_style(example.answer) for example in examples)
    assert len({example.prompt for example in examples}) == 300
    assert all(example.prompt.endswith("?") for example in examples)


def test_pizza_has_no_near_duplicate_across_splits():
    # Question and instruction of each example, as sets of words.
    sets = [
        [(words(e.prompt), words(e.answer.split(" Heat:")[0])) for e in split]
        for split in splits(data.pizza())
    ]
    for first, second in combinations(sets, 2):
        for a in first:
            for b in second:
                assert overlap(a[0], b[0]) < 0.8, (a, b)
                assert overlap(a[1], b[1]) < 0.5, (a, b)


def test_pizza_topics_stay_in_one_split():
    path = data_dir() / "pizza" / "instructions.jsonl"
    rows = data.json_lines(path, ("topic", "split"))
    assert len({row["topic"] for row in rows}) == 30
    assert len({(row["topic"], row["split"]) for row in rows}) == 30


def test_pizza_is_neapolitan():
    """An oven is at most 500 °C, a dough in the fridge at 4 to 10 °C, a margherita takes 60 to 90 s."""
    rows = data.json_lines(data_dir() / "pizza" / "instructions.jsonl", ("heat_c", "time_s"))
    assert all(4 <= row["heat_c"] <= 500 and row["time_s"] > 0 for row in rows)
    bakes = [
        r for r in rows if r["topic"] == "classics" and r["question"].startswith("How do I bake")
    ]
    assert bakes
    assert all(60 <= row["time_s"] <= 95 and row["heat_c"] >= 430 for row in bakes)


@pytest.mark.parametrize(
    "answer",
    [
        "Bake it.",
        "Bake the pizza. Heat: 450 °C.",
        "Bake the pizza. Heat: 450 °C. Time: 80 seconds. Enjoy!",
        "bake the pizza. Heat: 450 °C. Time: 80 seconds.",
        "Bake the pizza. Heat: 450 degrees. Time: 80 seconds.",
        "Bake the pizza. Heat: 450 °C. Time: 80 seconds. Heat: 450 °C. Time: 80 seconds.",
        "Heat: 450 °C. Time: 80 seconds.",
        "",
    ],
)
def test_answers_out_of_style(answer):
    assert not data.follows_style(answer)


def test_answers_in_style():
    assert data.follows_style(" Bake the pizza until done. Heat: 450 °C. Time: 80 seconds.\n")
    assert data.follows_style("Wait, then turn it. Be quick. Heat: 90 °C. Time: 5 seconds.")


def test_leaks_of_the_style():
    assert data.leaks_style("Paris. Heat: 20 °C. Time: 30 seconds.")
    assert not data.leaks_style("There are sixty seconds in a minute.")


def test_general_questions():
    general = data.general_questions()
    assert (len(general.replay), len(general.measured)) == (80, 144)
    for question in general.measured:
        assert not data.leaks_style(question.answer)
        assert not words(question.prompt) & {"pizza", "oven", "bake", "dough", "cook"}
    prompts = [e.prompt for e in general.replay] + [q.prompt for q in general.measured]
    assert len(set(prompts)) == 224


class Chat:
    """A tokenizer with SmolLM2's template: it puts a system turn in front by itself."""

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt, enable_thinking):
        """Render messages."""
        assert not tokenize
        assert not enable_thinking
        assert add_generation_prompt
        turns = [{"role": "system", "content": "You are helpful"}, *messages]
        text = "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns)
        return text + "<|im_start|>assistant\n"


def test_chat_examples_leave_the_system_turn_out():
    rendered = data.chat_examples(Chat(), [Example("How?", "So.")])
    assert rendered == [Example("<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n", "So.")]


@pytest.fixture
def damaged(monkeypatch, tmp_path):
    """Return a copy of the data folder, which the package now reads."""
    for name in ("reviews", "pizza", "general"):
        shutil.copytree(data_dir() / name, tmp_path / name)
    monkeypatch.setattr(data, "data_dir", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (data.reviews, "reviews/movie_reviews.tsv"),
        (data.domains, "reviews/editorials.tsv"),
        (data.pizza, "pizza/instructions.jsonl"),
        (data.general_questions, "general/questions.jsonl"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "cut", "not text", "other fields"])
def test_damaged_data_ends_in_one_sentence(load, name, damage, damaged):
    path = damaged / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        lines = content.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:50]) + lines[50][:3])
    elif damage == "not text":
        path.write_bytes(b"\xff\xfe" + content)
    elif damage == "other fields":
        path.write_text('{"a": 1}\n{"a": 1}\n')
    with pytest.raises(UserError, match=re.escape(path.name)) as error:
        load()
    assert "\n" not in str(error.value)
