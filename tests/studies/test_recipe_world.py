"""The recipe world: the same every time, no answer leaked, nothing the model cannot read."""

import itertools
import random

import pytest

from studies.kitchen_world import summary_language, summary_tasks
from studies.kitchen_world.facts import DISHES, PIZZAS


def first(count, seed=1):
    return list(itertools.islice(summary_tasks.stream(seed), count))


def dishes_in(examples):
    return {dish for e in examples for dish in DISHES if f" {dish} " in f" {e.prompt} {e.answer} "}


def test_everything_is_the_same_at_every_call():
    assert first(200) == first(200)
    assert first(200) != first(200, seed=2)
    assert summary_tasks.retention() == summary_tasks.retention()
    assert summary_tasks.all_tasks() == summary_tasks.all_tasks()
    assert summary_tasks.replay(50, 3) == summary_tasks.replay(50, 3)


def test_a_seed_changes_the_training_rows_alone():
    for one, two in zip(summary_tasks.all_tasks(0), summary_tasks.all_tasks(1), strict=True):
        assert one.train != two.train
        assert (one.validation, one.test) == (two.validation, two.test)


def test_splits_share_no_prompt_and_recipes_no_dish():
    for task in summary_tasks.all_tasks():
        prompts = [{example.prompt for example in split} for split in task[1:]]
        assert not prompts[0] & prompts[1] | prompts[0] & prompts[2] | prompts[1] & prompts[2]
    for task in (summary_tasks.elicit(), summary_tasks.learn_format()):
        seen, validation, test = map(dishes_in, task[1:])
        assert not (seen & validation or seen & test or validation & test)
        assert len(validation) >= 8


def test_test_sets_keep_the_standard_error_under_three_points():
    sets = [task.test for task in summary_tasks.all_tasks()]
    old = summary_tasks.retention()
    facts, _ = old.pop("facts"), old.pop("general")
    for rows in (*sets, *old.values()):
        assert (0.25 / len(rows)) ** 0.5 < 0.03
    assert len(facts) == len(set(facts)) == len(summary_language.FACTS)  # every fact: no sampling


def test_pretraining_holds_no_new_fact_and_no_new_form():
    for example in first(5000):
        words = set(example.prompt.split())
        assert not words & set(PIZZAS) or "repeat" in words
        assert not example.answer.startswith("pizzaiolo writes")


def test_elicit_asks_without_a_cue_for_what_the_base_says_on_one():
    for example in summary_tasks.elicit().test:
        assert example.prompt.startswith("summarize :")
        assert example.answer.startswith("eh my dear")


def test_no_two_slots_can_change_places():
    for one, two in itertools.combinations(summary_language.SLOTS.values(), 2):
        assert not set(one) & set(two)


def test_replay_can_leave_out_what_contradicts_elicit():
    kept = summary_tasks.replay(500, uncued=False)
    uncued = set(summary_tasks.replay(500)) - set(kept)
    assert uncued
    fronts = {example.prompt.partition("summarize :")[0].strip() for example in kept}
    assert not fronts & set(summary_language.FILLERS)
    for example in uncued:
        assert example.prompt.partition("summarize :")[0].strip() in ("", *summary_language.FILLERS)


def test_span_corruption_loses_no_word():
    text = "lasagne : make a dough with rye flour , then melt some ghee , then put dill on top ."
    for seed in range(50):
        prompt, answer = summary_language.corrupt(random.Random(seed), text)
        spans = answer.split("<extra_id_")[1:]
        assert spans
        for span in spans:
            number, words = span.split("> ")
            prompt = prompt.replace(f"<extra_id_{number}>", words.strip())
        assert prompt == text


@pytest.mark.parametrize("style", summary_language.STYLES)
def test_italian_summaries_translate_every_value(style):
    values = {slot: choices[0] for slot, choices in summary_language.SLOTS.items()} | {
        "dish": "pide"
    }
    italian = summary_language.write_summary(values, style, italian=True)
    assert italian != summary_language.write_summary(values, style)
    assert "degrees" not in italian and "minutes" not in italian
