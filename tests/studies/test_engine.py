"""Resumable experiments: rows that survive, and searches that do not stop at an edge."""

import json
import math

import pytest

from pefthelpers.errors import UserError
from pefthelpers.results import at_chosen_rate, mildest
from studies.engine import Cell, Gate, Study, judge, mean_and_sd, search_learning_rate

LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def curve(*validation):
    """Return a measure that looks up the score of a rate, and the rates it was asked for."""
    asked = []

    def measure(rate):
        asked.append(rate)
        return {"learning_rate": rate, "validation": validation[LADDER.index(rate)]}

    return measure, asked


def between(*validation):
    """Return ``curve``, in which a rate between two of the ladder scores as the lower of them."""
    asked = []

    def measure(rate):
        asked.append(rate)
        position = max([i for i, step in enumerate(LADDER) if step <= rate], default=0)
        return {"learning_rate": rate, "validation": validation[position]}

    return measure, asked


def test_a_search_goes_on_past_the_edge_and_then_by_halves_until_one_no_longer_ties():
    measure, asked = between(0.1, 0.9, 0.8, 0.5, 0.2)
    assert search_learning_rate(measure, LADDER, (3, 4))["learning_rate"] == 3e-4
    assert asked == [3e-3, 1e-2, 1e-3, 3e-4, 1e-4, 1.5e-4]


def test_a_search_stops_once_both_neighbours_and_the_half_are_worse():
    measure, asked = between(0.1, 0.2, 0.9, 0.3, 0.99)
    assert search_learning_rate(measure, LADDER, (1, 2, 3))["learning_rate"] == 1e-3
    assert asked == [3e-4, 1e-3, 3e-3, 5e-4]


def test_of_rates_within_the_tie_margin_the_lowest_is_taken_however_low_it_lies():
    measure, asked = between(0.5, 0.985, 0.99, 1.0, 0.6)
    assert search_learning_rate(measure, LADDER, (3,))["learning_rate"] == 5e-4
    assert asked == [3e-3, 1e-3, 1e-2, 5e-4, 2.5e-4]
    strict, _ = between(0.5, 0.985, 0.99, 1.0, 0.6)
    assert search_learning_rate(strict, LADDER, (3,), tie=0)["learning_rate"] == 3e-3
    assert mildest([{"validation": 1, "learning_rate": r} for r in (3, 1, 2)])["learning_rate"] == 1


def test_a_start_that_does_the_task_untrained_ends_the_search():
    asked = []
    measure = lambda rate: asked.append(rate) or {"learning_rate": rate, "validation": 1.0}
    search_learning_rate(measure, LADDER, (2,))
    assert LADDER[0] / 512 < min(asked) < LADDER[0] / 256


def test_where_nothing_is_right_yet_losses_decide():
    rows = [
        {"learning_rate": rate, "validation": right, "validation_loss": loss}
        for rate, right, loss in [(1, 0.0, 3.0), (2, 0.0, 0.54), (3, 0.01, 0.5), (4, 0.02, 2.0)]
    ]
    assert mildest(rows)["learning_rate"] == 2
    rows[3]["validation"] = 0.3
    assert mildest(rows)["learning_rate"] == 4


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


def test_a_run_may_tell_its_own_seconds(tmp_path):
    row = Study(tmp_path / "rows.json").measure(lambda: {"cpu_s": 7.0, "test": 1}, seed=0)
    assert row["cpu_s"] == 7.0


def test_a_damaged_record_is_one_sentence(tmp_path):
    (tmp_path / "rows.json").write_text('{"rows": [')
    with pytest.raises(UserError, match="rows.json is damaged"):
        Study(tmp_path / "rows.json")


def two_cells():
    """Return a table of two methods, and a measure in which each has a best rate of its own."""
    best_rate, calls = {"lora": 3e-4, "full": 1e-2}, []

    def run(method, learning_rate, seed):
        calls.append((method, learning_rate, seed))
        return {"validation": -abs(math.log(learning_rate / best_rate[method]))}

    return [Cell({"method": method}, LADDER, (2,)) for method in best_rate], run, calls


def test_a_table_is_searched_on_seed_0_and_repeated_at_the_chosen_rate(tmp_path, capsys):
    cells, run, calls = two_cells()
    study = Study(tmp_path / "rows.json")
    assert study.tune(cells, run, seeds=(0, 1, 2)) == [3e-4, 1e-2]
    assert {call for call in calls if call[2]} == {
        (method, rate, seed) for method, rate in (("lora", 3e-4), ("full", 1e-2)) for seed in (1, 2)
    }
    assert all(list(row)[:3] == ["method", "learning_rate", "seed"] for row in study.rows)
    capsys.readouterr()
    study.print_table(cells, [3e-4, 1e-2])
    assert "lora | rate 0.0003 | validation 0.000 ± 0.000 (n = 3)" in capsys.readouterr().out


def test_a_table_that_was_stopped_goes_on_where_it_was(tmp_path):
    cells, run, calls = two_cells()
    whole = Study(tmp_path / "whole.json")
    whole.tune(cells, run, seeds=(1,))
    for done in range(len(whole.rows)):
        stopped = Study(tmp_path / f"{done}.json")
        stopped.rows, before = list(whole.rows[:done]), len(calls)
        assert stopped.tune(cells, run, seeds=(1,)) == [3e-4, 1e-2]
        assert len(calls) - before == len(whole.rows) - done


def test_what_has_no_rate_is_measured_once_for_each_key(tmp_path, capsys):
    keys, study = [{"kind": "nf4"}, {"kind": "fp4"}], Study(tmp_path / "rows.json")
    for _ in range(2):
        study.measure_each(keys, lambda kind: {"error": len(kind) / 10})
    assert [row["kind"] for row in study.rows] == ["nf4", "fp4"]
    assert "nf4 | error 0.3" in capsys.readouterr().out


def test_a_gate_needs_its_figure_and_the_failed_are_said_again(capsys):
    gates = [
        Gate("high", 0.9, "least", 0.9),
        Gate("low", 0.31, "most", 0.3),
        Gate("none", None, "most", 1),
    ]
    assert [gate.passed() for gate in gates] == [True, False, False]
    assert judge(gates) == 1 and judge(gates[:1]) == 0
    said = capsys.readouterr()
    assert "1 of 3 gates passed." in said.out
    assert "FAIL  low: 0.310 (at most 0.3)" in said.err and "none: not recorded" in said.err


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
        "tied": [0.2],  # its lower rate ran on one seed alone
    }
    assert len(kept) == 9


def test_rows_without_a_validation_loss_can_be_compared():
    row = {"validation": 1.0, "learning_rate": 0.1}
    assert mildest([row, row | {"validation_loss": float("nan"), "learning_rate": 0.2}]) == row
    assert (
        mildest([row | {"validation": 0.0}, row | {"validation": 0.01, "learning_rate": 0.2}])[
            "learning_rate"
        ]
        == 0.1
    )
