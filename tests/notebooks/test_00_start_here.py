"""Notebook 00: what it says of the kitchen world is so, its words are explained, its map is whole."""

import random
import re

import pytest

from nbregress import notebooks
from pefthelpers import figures, kitchen, measure, models, results
from pefthelpers.checks import start as check
from studies.kitchen_world import generator, language

STEM = "00_start_here"
WORDS = ("kitchen decoder", "nonna", "cue", "exact match", "nats", "q, k, v, o and MLP")
WORDS += ("base, adapter", "LoRA's r", "prefix", "Houlsby", "guard", "seed", "profile")


@pytest.fixture(scope="module")
def notebook(cells):
    return cells(STEM)


@pytest.fixture(scope="module")
def decoder():
    return models.load("decoder")


@pytest.fixture(scope="module")
def ways(notebook):
    ask = notebook.by_id["ways-of-asking"].source
    notebook.execute(ask[: ask.index("for wanted")])
    return notebook.namespace["ways"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cue_is_all_that_elicit_needs_and_nothing_helps_learn(seed, decoder, ways):
    found = {
        (task.name, way): measure.exact_match(*decoder, [ask(e) for e in task.test])
        for task in (kitchen.elicit(seed), kitchen.learn(seed))
        for way, ask in ways.items()
    }
    assert found.pop(("elicit", "with the cue in front")) == 1
    assert set(found.values()) == {0} and len(found) == 5


def test_lora_s_recorded_row_is_what_the_text_says_of_it():
    rows = results.rows("kitchen_gates").query("base == 'decoder' and method == 'lora'")
    runs = results.at_chosen_rate(rows[rows["replay"] == 0], ["task"])
    assert runs.groupby("task")["steps"].unique().map(list).to_dict() == {
        "elicit": [100],
        "learn": [200],
    }
    assert (runs.groupby("task")["seed"].nunique() == 3).all()
    assert runs["test"].min() > 0.95  # "nearly every question"
    assert runs.query("task == 'learn'")["facts"].max() == 0  # "of its old facts none"
    assert runs["trainable_parameters"].max() < 1_685_184 / 10  # the map: "less than a tenth"


def drawing():
    """Return the words of the drawing, line breaks as blanks."""
    svg = (figures.DRAWINGS / "kitchen_world.svg").read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", " ".join(re.findall(r"<text[^>]*>(.*?)</text>", svg)))


def test_the_drawing_shows_the_mixture_of_pre_training():
    texts = generator.documents(4000, seed=0)
    asked = [e.prompt for e in texts if e.prompt]
    dishes = re.compile(rf"\b({'|'.join(generator.DISHES)})\b")
    about_a_dish = sum(bool(dishes.search(prompt)) for prompt in asked)
    assert about_a_dish / len(texts) == pytest.approx(0.4, abs=0.03)
    assert 1 - len(asked) / len(texts) == pytest.approx(0.2, abs=0.03)
    cued = sum(not prompt.startswith("question") for prompt in asked) / len(asked)
    assert 0.5 < cued < 0.7
    said = ("4 texts in 10", "2 texts in 10", "more than half of the questions have a cue")
    assert [drawing().count(each) for each in said] == [2, 1, 1]


def test_its_examples_are_the_world_s_own():
    assert language.fact_answer("gyoza", "seasoning") == "ginger ."
    voice = language.fact_answer("gyoza", "seasoning", style="nonna")
    card = next(e.answer for e in kitchen.learn(0).train if "nordica" in e.answer)
    assert voice in drawing() and card in drawing()
    assert '"which seasoning is in gyoza ?"' in drawing()
    rng, find = random.Random(0), "find the fish in mint and salmon ."
    found = {generator.task(rng, cued=False).prompt for _ in range(40_000)}
    assert f"question : {find} answer :" in found and f'"{find}"' in drawing()


def test_no_text_of_pre_training_says_what_is_on_a_pizza_or_has_an_answer_in_front():
    texts = generator.documents(20_000, seed=1)
    cards = {e.answer for e in kitchen.learn(0).train}
    assert len(cards) == 24
    whole = [f"{e.prompt} {e.answer}" for e in texts]
    assert not any(card in text for card in cards for text in whole)
    calls = {*language.FILLERS, *(cue for cues in language.CUES.values() for cue in cues)}
    fronts = {e.prompt.split("question :")[0].strip() for e in texts if e.prompt}
    parts = {f"{part.strip()} ." for front in fronts for part in front.split(" .") if part.strip()}
    assert parts <= calls


def test_every_word_that_the_notebooks_use_has_its_sentence(notebook):
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", notebook.by_id["words"].source, re.MULTILINE))
    assert [word for word in WORDS if len(rows.get(word, "").split()) < 9] == []


def test_the_map_leads_to_every_notebook_and_nowhere_else(notebook):
    linked = set(re.findall(r"\((\w+)\.ipynb\)", notebook.by_id["map"].source))
    there = {path.stem for path in notebooks.find([])} - {STEM}
    assert there == linked
    assert "planned" not in notebook.by_id["map"].source


def test_it_stays_a_short_first_reading(notebook):
    """Fewer than 1,250 words; the table of words is there to come back to."""
    told = [c for c in notebook.notebook.cells if c.cell_type == "markdown" and c.id != "words"]
    text = re.sub(r"(?s)\]\([^)]*\)|<details>.*?</details>", "", " ".join(c.source for c in told))
    assert len(re.findall(r"\w[\w'-]*", text)) < 1_250


def test_the_exercise(notebook):
    notebook.namespace["check"] = check
    stub, solved = notebook.exercise(1)
    assert stub.status == "not attempted" and solved.status == "correct"
