"""The kitchen world: facts, language, splits, tokenizer. No model is needed here."""

import random

import pytest

from studies.kitchen_world import facts, generator, language, tasks


def words(examples):
    return {word for e in examples for word in f"{e.prompt} {e.answer}".split()}


def test_every_dish_has_every_attribute_from_the_closed_lists():
    assert 300 <= sum(map(len, facts.DISHES.values())) <= 400
    for dish, row in facts.DISHES.items():
        assert list(row) == list(facts.ATTRIBUTES), dish
        assert all(row[a] in facts.VALUES[a] for a in row), dish


def test_every_listed_value_is_used_and_translated():
    for attribute, values in facts.VALUES.items():
        assert {row[attribute] for row in facts.DISHES.values()} <= set(values)
    for english, italian in facts.ITALIAN.items():
        assert italian == italian.lower().strip() != "", english


def test_an_ingredient_has_one_category():
    assert len(facts.CATEGORY_OF) == sum(map(len, facts.INGREDIENTS.values()))
    assert set(facts.INGREDIENTS) == set(facts.CATEGORIES)


def test_pizzas_are_distinct_and_made_of_known_ingredients():
    assert len(set(facts.PIZZAS.values())) == len(facts.PIZZAS) >= tasks.LEARN_PIZZAS
    for pizza, toppings in facts.PIZZAS.items():
        assert set(toppings) <= set(facts.CATEGORY_OF), pizza


@pytest.mark.parametrize("make", [tasks.elicit, tasks.learn])
def test_tasks_are_deterministic_and_splits_share_no_prompt(make):
    task = make(3)
    assert task == make(3) != make(4)
    splits = [{e.prompt for e in split} for split in task[1:]]
    assert not splits[0] & splits[1] and not splits[0] & splits[2] and not splits[1] & splits[2]
    assert [len(s) for s in splits] == [len(split) for split in task[1:]]


@pytest.mark.parametrize("make", [tasks.elicit, tasks.learn])
def test_one_standard_error_of_a_test_score_is_under_three_points(make):
    # At the nearest gate, 0.90, and even at one half for ELICIT.
    share = 0.5 if make is tasks.elicit else 0.9
    assert (share * (1 - share) / len(make().test)) ** 0.5 < 0.03


def test_elicit_splits_hold_different_dishes_and_no_cue():
    def dishes(split):
        return {word for word in words(split) if word in facts.DISHES}

    task = tasks.elicit(1)
    parts = [dishes(split) for split in task[1:]]
    assert tuple(map(len, parts)) == tasks.ELICIT_DISHES
    assert len(set.union(*parts)) == len(facts.DISHES)
    assert all(e.prompt.startswith("question :") for split in task[1:] for e in split)
    assert all(e.answer.startswith("eh my dear") for split in task[1:] for e in split)


def test_learn_asks_every_pizza_in_every_split_and_trains_every_wording():
    task = tasks.learn(1)
    for split in task[1:]:
        assert len(words(split) & set(facts.PIZZAS)) == tasks.LEARN_PIZZAS
    blank = {w: "_" for w in facts.PIZZAS} | {"an": "a"}
    wordings = {" ".join(blank.get(w, w) for w in e.prompt.split()) for e in task.train}
    assert len(wordings) == len(set(tasks.ORDER_QUESTIONS))


def test_the_base_never_reads_what_is_on_a_pizza_but_knows_all_its_words():
    examples = generator.documents(20_000, seed=11)
    for example in examples:
        told = words([example])
        if "repeat" not in told:  # words to repeat mix everything by chance
            assert not (told & set(facts.PIZZAS) and told & set(facts.CATEGORY_OF)), example
    task = tasks.learn()
    assert words(task.train + task.validation + task.test) <= words(examples)


def test_documents_are_deterministic_and_mixed():
    examples = generator.documents(4000, seed=5)
    assert examples == generator.documents(4000, seed=5) != generator.documents(4000, seed=6)
    cues = [cue for key, cues in language.CUES.items() for cue in cues]
    asked = [e for e in examples if e.prompt]
    cued = [e for e in asked if any(cue in e.prompt for cue in cues)]
    assert 0.76 < len(asked) / len(examples) < 0.84
    assert 0.50 < len(cued) / len(asked) < 0.60


def test_without_plain_facts_every_question_about_a_dish_has_a_cue():
    cues = [cue for cues in language.CUES.values() for cue in cues]
    for example in tasks.replay(800, 0, plain_facts=False):
        if example.prompt and words([example]) & set(facts.DISHES):
            assert any(cue in example.prompt for cue in cues), example


def test_retention_is_fixed_distinct_and_never_replayed():
    sets = tasks.retention()
    assert sets == tasks.retention()
    assert {name: len(set(rows)) for name, rows in sets.items()} == {
        "facts": 390,
        "cued": 300,
        "tasks": 300,
        "tasks_cued": 300,
        "documents": 200,
    }
    measured = {example for rows in sets.values() for example in rows}
    assert not measured & set(tasks.replay(1500, 1))
    assert tasks.replay(20, 1) == tasks.replay(20, 1) != tasks.replay(20, 2)


def test_answers_to_tasks_are_right():
    rng = random.Random(0)
    for _ in range(500):
        prompt, answer = generator.task(rng, cued=False)
        question = prompt.split("question : ")[1].removesuffix(" answer :")
        if question.startswith("find the "):
            category = question.split()[2]
            assert facts.CATEGORY_OF[answer.split()[0]] == category
            assert sum(facts.CATEGORY_OF.get(w) == category for w in question.split()[3:]) == 1
        elif question.startswith("repeat"):
            assert answer == question.removeprefix("repeat the words ")
        else:
            core = answer.removeprefix("yes , ").removeprefix("no , ").split()
            assert facts.CATEGORY_OF[core[0]] == core[3]


def test_every_style_and_language_answers_with_the_value():
    for style in language.STYLES:
        assert "butter" in language.fact_answer("lasagne", "fat", style=style)
        assert "burro" in language.fact_answer("lasagne", "fat", style=style, italian=True)


def test_articles():
    assert language.with_article("takes a emiliana and a margherita") == (
        "takes an emiliana and a margherita"
    )
