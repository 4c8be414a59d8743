"""The pictures of notebook 07: every point named, no name on another, alt text with the numbers."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from pefthelpers import figures, results, retention
from pefthelpers.figures import comparison, memory
from pefthelpers.methods import LABELS


@pytest.fixture
def shown(monkeypatch):
    """Collect ``(figure, alt text)`` of what is shown."""
    found = []
    monkeypatch.setattr(figures, "show", lambda figure, alt: found.append((figure, alt)))
    yield found
    mpl.pyplot.close("all")


def boxes(axis):
    """Return the names in a panel: text to the box it covers."""
    return {word.get_text(): mpl.text.Text.get_window_extent(word) for word in axis.texts}


@pytest.mark.parametrize("apart", [0, 0.002, 0.02])
def test_names_of_near_points_cover_no_other(apart):
    figure, axis = figures.axes(1, width=5, height=4)
    axis.set(xlim=(0, 2), ylim=(0, 1))
    points = {f"method {i}": (0.5 + apart * i, 0.5 + apart * i) for i in range(8)}
    comparison.names(axis, points)
    found = boxes(axis)
    assert found.keys() == points.keys()
    assert not any(a.overlaps(b) for a, b in itertools.combinations(found.values(), 2))
    assert all(axis.bbox.y0 < box.y0 and box.y1 < axis.bbox.y1 for box in found.values())
    mpl.pyplot.close(figure)


def test_the_published_points_are_all_named_and_none_on_another(shown):
    theirs = pd.DataFrame(results.read("peft_metamathqa_scores")["rows"]).set_index("name")
    comparison.tradeoffs([(theirs, "accuracy", ("max_gb", "forgetting"))] * 2)
    figure, alt = shown[0]
    for axis in figure.axes:
        found = boxes(axis)
        assert found.keys() == {LABELS.get(name, name) for name in theirs.index}
        assert not any(a.overlaps(b) for a, b in itertools.combinations(found.values(), 2))
    assert "rsLoRA r64 q, v 0.51" in alt


def test_each_line_of_steps_is_named_with_its_last_score(shown):
    rows = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    curve = rows.pivot_table(index="cell", columns="steps", values="test")
    comparison.steps(curve, runs=rows, xlabel="steps", ylabel="score")
    (axis,) = shown[0][0].axes
    assert len(axis.texts) == len(axis.lines) == len(comparison.BUDGETS)
    assert f"prompt: {curve.loc['prompt', 2000]:.2f}" in boxes(axis)
    ends = sorted((word.xy[1], word.get_text()) for word in axis.texts if word.xy[0] == 2000)
    heights = [boxes(axis)[name].y0 for _, name in ends]
    assert len(ends) > 5 and heights == sorted(
        heights
    )  # the names stand in the order of the scores
    drawn = axis.collections[list(comparison.BUDGETS).index("prefix")].get_segments()
    tests = rows[rows["cell"] == "prefix"].groupby("steps")["test"]
    np.testing.assert_allclose(np.array(drawn)[:, :, 1], tests.agg(["min", "max"]))


def test_cards_with_names_are_named_at_their_lines():
    bars = {"a step": {"frozen_weights": 2**33}}
    named, bare = memory.stacks(bars, cards_gib={"T4": 14.5}), memory.stacks(bars, cards_gib=[14.5])
    words = [[word.get_text() for word in figure.axes[0].texts] for figure in (named, bare)]
    assert words == [["T4"], ["14.5"]]
    lines = [figure.axes[0].lines[0].get_xdata()[0] for figure in (named, bare)]
    assert lines == [14.5, 14.5]
    mpl.pyplot.close("all")


def test_scores_write_the_rate_at_each_point(shown):
    table = pd.DataFrame({"mean": [0.9], "from": [0.8], "to": [1.0], "rate": [0.003]}, ["lora"])
    comparison.scores(dict.fromkeys("abcd", table), dict.fromkeys("abcd", "share"))
    figure, alt = shown[0]
    assert all("0.90 at 0.003" in boxes(axis) for axis in figure.axes)
    assert "LoRA all-linear 0.90" in alt


@pytest.mark.parametrize("name", ["retention_curves", "retention_smollm2"])
def test_retention_holds_six_methods_with_three_seeds_at_one_rate(name, shown):
    base, paths = retention.paths(name)
    six = {"full", "lora", "rslora", "dora", "houlsby", "prefix"}
    assert {m for m, replay, _ in paths if not replay} == six
    assert {seed for *_, seed in paths} == {0, 1, 2}
    left = "facts" if name == "retention_curves" else "general_leak"
    comparison.retention(paths, y=left, xlabel="x", ylabel="y", base=base[left], alt="alt")
    figure, _ = shown[0]
    assert sum(len(axis.lines) - 1 for axis in figure.axes) == len(paths)
