"""Notebook 07: its statistics equal the libraries', its record is whole, its exercises diagnose."""

import json

import pandas as pd
import pytest
from scipy import stats

from pefthelpers import methods, results
from pefthelpers.checks import comparison as check
from pefthelpers.paths import data_dir

RECORDS = {"sweep_decoder": ("elicit", "learn"), "sweep_seq2seq": ("elicit",)}


@pytest.fixture(scope="module")
def notebook(cells):
    """Notebook 07 with its definitions executed."""
    opened = cells("07_comparison")
    opened.run("parameters", "imports", "define-chosen", "define-interval", "define-mildest")
    return opened


@pytest.fixture
def runs():
    """Runs of one method: three rates on seed 0, the best of them on two seeds more."""
    table = [(1e-3, 0, 0.80, 0.99), (3e-3, 0, 0.90, 0.85), (1e-2, 0, 0.89, 0.97)]
    table += [(3e-3, 1, 0.70, 0.88), (3e-3, 2, 0.95, 0.91)]
    columns = ["learning_rate", "seed", "validation", "test"]
    return pd.DataFrame(table, columns=columns).assign(validation_loss=0.1)


def test_interval_equals_scipys(notebook):
    values = [0.81, 0.84, 0.80, 0.86, 0.83]
    mean, half = notebook.namespace["interval"](values)
    low, high = stats.t.interval(0.95, 4, loc=mean, scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-12)


def test_difference_is_paired_by_seed(notebook):
    a = pd.DataFrame({"test": [0.5, 0.7, 0.9]}, index=[0, 1, 2])
    b = pd.DataFrame({"test": [0.8, 0.6, 0.4, 0.1]}, index=[2, 1, 0, 7])
    mean, half = notebook.namespace["difference"](a, b)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(0, abs=1e-12)


def test_rate_is_chosen_on_validation_of_seed_0(notebook, runs):
    assert notebook.namespace["chosen_rate"](runs) == 3e-3
    assert list(notebook.namespace["chosen"](runs)["test"]) == [0.85, 0.88, 0.91]


def test_the_test_split_changes_no_choice(notebook, runs):
    swapped = runs.assign(test=1 - runs["test"])
    assert notebook.namespace["chosen_rate"](swapped) == notebook.namespace["chosen_rate"](runs)


def test_equal_validation_is_decided_by_loss(notebook, runs):
    runs.loc[2, ["validation", "validation_loss"]] = (0.90, 0.01)
    assert notebook.namespace["chosen_rate"](runs) == 1e-2


def test_mildest_is_the_lowest_rate_within_the_tie(notebook, runs):
    runs.loc[0, "validation"] = 0.86
    assert notebook.namespace["mildest"](runs)["learning_rate"].unique() == [1e-3]
    runs.loc[0, "validation"] = 0.84
    assert notebook.namespace["mildest"](runs)["learning_rate"].unique() == [3e-3]


@pytest.mark.parametrize(("record", "tasks"), RECORDS.items())
@pytest.mark.parametrize("method", methods.LABELS)
def test_record_holds_a_search_inside_its_edges_and_three_seeds(record, tasks, method):
    rows = results.rows(record)
    for task in tasks:
        own = rows[(rows["task"] == task) & (rows["method"] == method)]
        runs = results.at_chosen_rate(own, ["task", "method"])
        rate, tried = runs["learning_rate"].iloc[0], own[own["seed"] == 0]["learning_rate"]
        assert tried.min() < rate < tried.max()
        assert runs["seed"].nunique() >= (5 if record == "sweep_decoder" else 3)


@pytest.mark.parametrize("method", ["head", *methods.LABELS])
def test_reviews_record_holds_a_search_inside_its_edges_and_three_seeds(method):
    rows = pd.concat([results.rows("encoder_study"), results.rows("sweep_encoder")])
    own = rows[rows["method"] == method]
    tested, tried = own.dropna(subset="test"), own[own["seed"] == 0]["learning_rate"]
    assert tested["seed"].nunique() == 3
    assert tested["learning_rate"].nunique() == 1
    assert tried.min() < tested["learning_rate"].iloc[0] < tried.max()


def test_costs_are_recorded_for_every_method_and_trace_equals_formula():
    rows = results.rows("sweep_cost")
    assert list(rows["method"]) == list(methods.LABELS)
    assert rows["closed_form_peak_bytes"].div(rows["traced_peak_bytes"]).between(0.99, 1.01).all()


def test_published_scores_repeat_the_published_peaks():
    folder = data_dir() / "published"
    scores = json.loads((folder / "peft_metamathqa_scores.json").read_text())["rows"]
    peaks = json.loads((folder / "peft_metamathqa.json").read_text())["rows"]
    known = {row["peak_gb"] for row in peaks}
    assert {row["max_gb"] for row in scores} <= known
    assert all(row["method"] in methods.LABELS for row in scores)


@pytest.mark.parametrize("number", range(1, 5))
def test_exercises(notebook, number):
    if number in (2, 3):  # they use a row of the record
        notebook.namespace |= {
            "real_cells": {("reviews", "houlsby"): pd.DataFrame({"test": [0.79, 0.80, 0.81]})},
            "cells": {
                ("learn", "qlora"): pd.DataFrame({"test": [0.99, 1.00, 0.98]}),
                ("learn", "lora"): pd.DataFrame({"test": [1.00, 0.99, 0.98]}),
            },
        }
    stub, solution = notebook.exercise(number)
    assert stub.status == "not attempted"
    assert solution.status == "correct"


def best_by(column, seeds=(0,)):
    """Return a wrong or right choice of a rate."""
    return lambda runs: max(
        (run[column], run["learning_rate"]) for run in runs if run["seed"] in seeds
    )[1]


SCORES = [0.79, 0.80, 0.84]


@pytest.mark.parametrize(
    ("verdict", "hint"),
    [
        (lambda: check.rate(best_by("test")), "no test any more"),
        (lambda: check.rate(best_by("validation", (0, 1))), "Seed 1"),
        (lambda: check.rate(lambda runs: 1e-3), "not the minimum"),
        (lambda: check.rate(lambda runs: runs[9]), "raised IndexError"),
        (lambda: check.half_width(pd.Series(SCORES).std(), values=SCORES), "spread of runs"),
        (
            lambda: check.half_width(1.96 * pd.Series(SCORES).std() / 3**0.5, values=SCORES),
            "2 degrees of freedom",
        ),
        (lambda: check.sentence("equal", low=-0.1, high=0.2), "Absence of evidence"),
        (lambda: check.sentence("A is better", low=-0.1, high=0.2), "zero lies inside"),
        (lambda: check.sentence("B is better", low=0.1, high=0.2), "its sign"),
        (lambda: check.sentence("not told apart", low=0.1, high=0.2), "outside"),
        (lambda: check.mildest(lambda runs, tie: runs[0]["learning_rate"]), "forgets most"),
        (lambda: check.mildest(lambda runs, tie: 3e-4), "lowest rate of all"),
    ],
)
def test_wrong_answers_get_their_own_diagnosis(verdict, hint):
    found = verdict()
    assert found.status == "not yet"
    assert hint in found.message
