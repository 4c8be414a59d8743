"""Notebook 07b: the same statistics as 07, its tables whole, its sentences as the records are."""

import json

import pytest

from pefthelpers.methods import LABELS
from pefthelpers.paths import data_dir


@pytest.fixture(scope="module")
def notebook(cells):
    """Notebook 07b with its definitions executed and the sweep read."""
    opened = cells("07b_claims_ledger")
    opened.run("parameters", "imports", "define-statistics", "cells", "define-verdict")
    return opened


def test_the_statistics_are_the_same_text_in_both_notebooks(cells, notebook):
    main = cells("07_comparison").by_id
    joined = main["define-chosen"].source + "\n\n" + main["define-interval"].source
    assert notebook.by_id["define-statistics"].source == joined
    assert notebook.by_id["define-verdict"].source == main["define-verdict"].source


def test_the_best_rate_is_worked_out_as_in_07(cells, notebook):
    function = lambda source: source.split("\n\n")[0]
    rates = cells("07_comparison").by_id["rates"].source
    assert function(notebook.by_id["textbook-best"].source) == function(rates)


def test_formulas_count_what_was_trained(notebook):
    notebook.run("predict", "count")
    assert (notebook.namespace["sizes"]["ratio"] == 1).all()


def test_at_the_best_rates_lora_and_full_are_equal_on_learn(notebook):
    notebook.run("textbook-best")
    verdict, gap = notebook.namespace["verdict"], notebook.namespace["gap"]
    assert verdict(*gap) == "equal within 0.02"


def test_on_the_reviews_four_are_equal_to_lora_and_three_behind(notebook):
    notebook.run(
        "define-summary", "results-decoder", "real-rows", "results-encoder", "encoder-ties"
    )
    verdict, gaps = notebook.namespace["verdict"], notebook.namespace["gaps"]
    said = {method: verdict(*gap) for method, gap in gaps.items()}
    behind = {method for method, word in said.items() if word == "behind"}
    equal = {method for method, word in said.items() if word.startswith("equal")}
    assert behind == {"houlsby", "prefix", "prompt"}
    assert equal == {"full", "lora_qv", "dora", "qlora"}
    assert all(-0.06 < gaps[method][0] < -0.005 for method in behind)
    reviews = notebook.namespace["reviews"]["mean"].astype(float)
    assert reviews.drop(["head", "prompt"]).min() > reviews["head"] + 0.03
    assert 0 < reviews["prompt"] - reviews["head"] < 0.03


def test_on_elicit_lora_keeps_fewer_old_tasks(notebook):
    notebook.run("forgetting-elicit")
    assert -0.05 < notebook.namespace["mean"] < 0


def test_published_scores_repeat_the_published_peaks():
    folder = data_dir() / "published"
    scores = json.loads((folder / "peft_metamathqa_scores.json").read_text())["rows"]
    peaks = json.loads((folder / "peft_metamathqa.json").read_text())["rows"]
    known = {row["peak_gb"] for row in peaks}
    assert {row["max_gb"] for row in scores} <= known
    assert all(row["method"] in LABELS for row in scores)


def test_the_article_s_claims_are_all_in_the_table(notebook):
    from peftguide import claims

    page = notebook.run("ledger").data
    assert page.count("<tr data-verdict=") == len(claims.load())
