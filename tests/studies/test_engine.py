"""Resumable experiments: rows that survive, and searches that do not stop at an edge."""

import json

import pytest

from pefthelpers.results import at_chosen_rate, best, mean_and_sd
from studies.engine import Study, search_learning_rate

LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def curve(*validation):
    """Return a measure that looks up the score of a rate, and the rates it was asked for."""
    asked = []

    def measure(rate):
        asked.append(rate)
        return {"learning_rate": rate, "validation": validation[LADDER.index(rate)]}

    return measure, asked


def test_a_search_goes_on_past_the_edge():
    measure, asked = curve(0.9, 0.8, 0.5, 0.2, 0.1)
    assert search_learning_rate(measure, LADDER, (2, 3))["learning_rate"] == 1e-4
    assert asked == [1e-3, 3e-3, 3e-4, 1e-4]


def test_a_search_stops_once_both_neighbours_are_worse():
    measure, asked = curve(0.1, 0.2, 0.9, 0.3, 0.99)
    assert search_learning_rate(measure, LADDER, (1, 2, 3))["learning_rate"] == 1e-3
    assert asked == [3e-4, 1e-3, 3e-3]


def test_of_equals_the_lower_rate_is_taken_and_another_key_may_choose():
    measure, _ = curve(0.1, 1.0, 1.0, 1.0, 0.1)
    assert search_learning_rate(measure, LADDER, (2,))["learning_rate"] == 3e-4
    lowest = search_learning_rate(measure, LADDER, (2,), key=lambda row: row["learning_rate"])
    assert lowest["learning_rate"] == LADDER[-1]
    assert best([{"validation": 1, "learning_rate": r} for r in (3, 1, 2)])["learning_rate"] == 1


def test_a_row_is_measured_once_and_survives(tmp_path, capsys):
    path = tmp_path / "rows.json"
    calls = []
    run = lambda: calls.append(1) or {"test": 0.5}
    first = Study(path).measure(run, method="lora", seed=0)
    again = Study(path).measure(run, method="lora", seed=0)
    assert calls == [1] and first == again and again["cpu_s"] >= 0
    Study(path).measure(run, method="lora", seed=1)
    stored = json.loads(path.read_text())
    assert [row["seed"] for row in stored["rows"]] == [0, 1]
    assert {"date", "versions", "processor"} <= set(stored["about"])


def test_a_run_that_breaks_leaves_the_rows_as_they_were(tmp_path):
    path = tmp_path / "rows.json"
    Study(path).measure(lambda: {"test": 1}, seed=0)
    with pytest.raises(ZeroDivisionError):
        Study(path).measure(lambda: {"test": 1 / 0}, seed=1)
    assert len(Study(path).rows) == 1


def test_mean_and_deviation():
    assert mean_and_sd([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_and_sd([4.0]) == (4.0, 0.0)


def test_the_chosen_rate_is_validations_even_where_others_ran_on_all_seeds():
    pd = pytest.importorskip("pandas")
    rows = [
        {"method": method, "learning_rate": rate, "seed": seed, "validation": rate * good}
        for method, good in (("high", 1), ("low", -1))
        for rate in (0.1, 0.2)
        for seed in (0, 1, 2)
    ]
    rows.append({"method": "short", "learning_rate": 0.1, "seed": 0, "validation": 1.0})
    for rate, seeds in ((0.1, 1), (0.2, 3)):  # validation cannot tell these two apart
        common = {"method": "tied", "learning_rate": rate, "validation": 0.0}
        rows += [common | {"seed": seed} for seed in range(seeds)]
    kept = at_chosen_rate(pd.DataFrame(rows), ["method"])
    assert kept.groupby("method")["learning_rate"].unique().map(list).to_dict() == {
        "high": [0.2],
        "low": [0.1],
        "tied": [0.2],
    }
    assert len(kept) == 9


def test_a_row_without_a_validation_loss_can_be_compared():
    row = {"validation": 1.0, "learning_rate": 0.1}
    assert best([row, row | {"validation_loss": float("nan"), "learning_rate": 0.2}]) == row
