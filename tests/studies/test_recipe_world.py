"""The recipe world: the same every time, no answer leaked, nothing the model cannot read."""

import itertools
import random

import pytest

from pefthelpers.kitchen import recipes, recipes_world
from pefthelpers.kitchen.facts import DISHES, PIZZAS


def first(count, seed=1):
    return list(itertools.islice(recipes.stream(seed), count))


def dishes_in(examples):
    return {dish for e in examples for dish in DISHES if f" {dish} " in f" {e.prompt} {e.answer} "}


def test_everything_is_the_same_at_every_call():
    assert first(200) == first(200)
    assert first(200) != first(200, seed=2)
    assert recipes.retention() == recipes.retention()
    assert recipes.all_tasks() == recipes.all_tasks()
    assert recipes.replay(50, 3) == recipes.replay(50, 3)


def test_a_seed_changes_the_training_rows_alone():
    for one, two in zip(recipes.all_tasks(0), recipes.all_tasks(1), strict=True):
        assert one.train != two.train
        assert (one.validation, one.test) == (two.validation, two.test)


def test_splits_share_no_prompt_and_recipes_no_dish():
    for task in recipes.all_tasks():
        prompts = [{example.prompt for example in split} for split in task[1:]]
        assert not prompts[0] & prompts[1] | prompts[0] & prompts[2] | prompts[1] & prompts[2]
    for task in (recipes.elicit(), recipes.learn_format()):
        seen, validation, test = map(dishes_in, task[1:])
        assert not (seen & validation or seen & test or validation & test)
        assert len(validation) >= 8


def test_test_sets_keep_the_standard_error_under_three_points():
    sets = [task.test for task in recipes.all_tasks()]
    old = recipes.retention()
    facts, _ = old.pop("facts"), old.pop("general")
    for rows in (*sets, *old.values()):
        assert (0.25 / len(rows)) ** 0.5 < 0.03
    assert len(facts) == len(set(facts)) == len(recipes_world.FACTS)  # every fact: no sampling


def test_pretraining_holds_no_new_fact_and_no_new_form():
    for example in first(5000):
        words = set(example.prompt.split())
        assert not words & set(PIZZAS) or "repeat" in words
        assert not example.answer.startswith("pizzaiolo writes")


def test_elicit_asks_without_a_cue_for_what_the_base_says_on_one():
    for example in recipes.elicit().test:
        assert example.prompt.startswith("summarize :")
        assert example.answer.startswith("eh my dear")


def test_no_two_slots_can_change_places():
    for one, two in itertools.combinations(recipes_world.SLOTS.values(), 2):
        assert not set(one) & set(two)


def test_replay_can_leave_out_what_contradicts_elicit():
    kept = recipes.replay(500, uncued=False)
    uncued = set(recipes.replay(500)) - set(kept)
    assert uncued
    fronts = {example.prompt.partition("summarize :")[0].strip() for example in kept}
    assert not fronts & set(recipes_world.FILLERS)
    for example in uncued:
        assert example.prompt.partition("summarize :")[0].strip() in ("", *recipes_world.FILLERS)


def test_span_corruption_loses_no_word():
    text = "lasagne : make a dough with rye flour , then melt some ghee , then put dill on top ."
    for seed in range(50):
        prompt, answer = recipes_world.corrupt(random.Random(seed), text)
        spans = answer.split("<extra_id_")[1:]
        assert spans
        for span in spans:
            number, words = span.split("> ")
            prompt = prompt.replace(f"<extra_id_{number}>", words.strip())
        assert prompt == text


@pytest.mark.parametrize("style", recipes_world.STYLES)
def test_italian_summaries_translate_every_value(style):
    values = {slot: choices[0] for slot, choices in recipes_world.SLOTS.items()} | {"dish": "pide"}
    italian = recipes_world.write_summary(values, style, italian=True)
    assert italian != recipes_world.write_summary(values, style)
    assert "degrees" not in italian and "minutes" not in italian
