"""Notebook 07: its statistics equal the libraries', its record is whole, its exercises diagnose."""

import ast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pefthelpers import methods, results, retention
from pefthelpers.methods import LABELS
from studies.encoder_study import TIE

SIX = ("full", "lora", "rslora", "dora", "houlsby", "prefix")
RECORDS = {"sweep_decoder": ("elicit", "learn"), "sweep_seq2seq": ("elicit",)}


@pytest.fixture(scope="module")
def notebook(cells):
    """Notebook 07 with its definitions executed."""
    opened = cells("07_comparison")
    opened.run("parameters", "imports", "define-chosen", "define-interval", "define-verdict")
    return opened


@pytest.fixture(scope="module")
def measured(notebook):
    """Notebook 07 with its records read: rows of the toy and of the two real models."""
    notebook.run("rows", "real-rows", "define-summary", "against-lora", "cost")
    return notebook.namespace


@pytest.fixture
def runs():
    """Runs of one method: four rates on seed 0, two of them on two seeds more."""
    table = [(1e-3, 0, 0.80, 0.99), (3e-3, 0, 0.89, 0.85), (1e-2, 0, 0.90, 0.97)]
    table += [
        (3e-3, 1, 0.70, 0.88),
        (3e-3, 2, 0.95, 0.91),
        (1e-2, 1, 0.9, 0.9),
        (1e-2, 2, 0.9, 0.9),
    ]
    columns = ["learning_rate", "seed", "validation", "test"]
    return pd.DataFrame(table, columns=columns).assign(validation_loss=0.1)


@pytest.mark.parametrize("shares", [[0.0] * 5, [1.0] * 5, [0.1, 0.9, 0.5], [0.98, 1.0, 0.99]])
def test_an_interval_of_shares_stays_between_0_and_1_and_has_a_width(notebook, shares):
    low, high = notebook.namespace["interval"](shares, 24)
    assert 0 <= low < high <= 1 and high - low > 0.05
    assert low - 0.03 <= np.mean(shares) <= high + 0.03


def test_an_interval_covers_the_mean_of_seeds_that_share_their_pizzas(notebook):
    """24 pizzas, known wholly or not at all, the same in five seeds: 19 in 20 intervals hold 0.8."""
    drawn = np.random.default_rng(1).binomial(24, 0.8, size=100) / 24
    found = [notebook.namespace["interval"]([share] * 5, 24, draws=500) for share in drawn]
    covered = np.mean([low <= 0.8 <= high for low, high in found])
    assert 0.9 <= covered <= 1
    narrow = [notebook.namespace["interval"]([share] * 5, 240, draws=500) for share in drawn]
    assert np.mean([low <= 0.8 <= high for low, high in narrow]) < 0.7


def test_difference_is_paired_by_seed_and_equals_scipys(notebook):
    a = pd.DataFrame({"test": [0.5, 0.7, 0.9]}, index=[0, 1, 2])
    b = pd.DataFrame({"test": [0.8, 0.6, 0.4, 0.1]}, index=[2, 1, 0, 7])
    mean, half = notebook.namespace["difference"](a, b)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(0, abs=1e-12)
    b = pd.DataFrame({"test": [0.4, 0.65, 0.7]}, index=[0, 1, 2])
    mean, half = notebook.namespace["difference"](a, b)
    low, high = stats.ttest_rel(a["test"], b["test"]).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-12)


def test_on_the_reviews_sentences_widen_the_interval_of_the_seeds(notebook):
    reviewed, draw = notebook.namespace["reviewed"], np.random.default_rng(0)
    bits = draw.random((3, 2006)) < 0.8
    runs = lambda right: pd.DataFrame(
        {
            "test": right.mean(axis=1),
            "test_right": [np.packbits(row).tobytes().hex() for row in right],
        }
    )
    assert reviewed(runs(bits), runs(bits)) == (0, 0)
    other = draw.random((3, 2006)) < 0.8
    mean, half = reviewed(runs(bits), runs(other))
    assert mean == pytest.approx(bits.mean() - other.mean())
    assert half > notebook.namespace["difference"](runs(bits), runs(other))[1]


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [
        (0.0, 0.019, "equal within 0.02"),
        (0.005, 0.003, "equal within 0.02"),  # shown, and too small to matter
        (0.0, 0.021, "not told apart"),
        (0.019, 0.002, "ahead"),
        (-0.3, 0.1, "behind"),
        (-0.3, 0.4, "not told apart"),
    ],
)
def test_a_verdict_says_equal_only_within_the_margin(notebook, mean, half, word):
    assert notebook.namespace["verdict"](mean, half) == word


def test_equal_is_two_one_sided_tests(notebook):
    values = np.array([0.004, -0.002, 0.009, 0.001, 0.003])
    a, b = pd.DataFrame({"test": values + 0.5}), pd.DataFrame({"test": [0.5] * 5})
    below = stats.ttest_1samp(values, -0.02, alternative="greater").pvalue
    above = stats.ttest_1samp(values, 0.02, alternative="less").pvalue
    equal = notebook.namespace["verdict"](*notebook.namespace["difference"](a, b))
    assert (max(below, above) < 0.025) == equal.startswith("equal")


def test_the_lowest_rate_that_ties_on_seed_0_is_chosen(notebook, runs):
    assert notebook.namespace["tied_rates"](runs) == [3e-3, 1e-2]
    assert list(notebook.namespace["chosen"](runs)["test"]) == [0.85, 0.88, 0.91]
    runs.loc[1, "validation"] = 0.87
    assert list(notebook.namespace["chosen"](runs)["test"]) == [0.97, 0.9, 0.9]


def test_the_test_split_changes_no_choice(notebook, runs):
    swapped = runs.assign(test=1 - runs["test"])
    assert notebook.namespace["tied_rates"](swapped) == notebook.namespace["tied_rates"](runs)


def test_where_no_answer_is_right_the_loss_decides(notebook, runs):
    runs["validation"] = 0.0
    runs["validation_loss"] = [1.9, 1.04, 1.0, 9, 9, 9, 9]
    assert notebook.namespace["tied_rates"](runs) == [3e-3, 1e-2]


@pytest.mark.parametrize("record", RECORDS)
def test_the_notebooks_choice_is_the_packages(notebook, record):
    rows = results.rows(record).dropna(subset=["seed"])
    for key, cell in rows.groupby(["task", "method"]):
        package = results.mildest(cell[cell["seed"] == 0].to_dict("records"))
        assert notebook.namespace["tied_rates"](cell)[0] == package["learning_rate"], key


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
    chosen = results.at_chosen_rate(own, ["method"], TIE)
    tested, tried = chosen.dropna(subset="test"), own[own["seed"] == 0]["learning_rate"]
    assert tested["seed"].nunique() == 3
    assert tried.min() < tested["learning_rate"].iloc[0] < tried.max()


@pytest.fixture(scope="module")
def curves(notebook):
    """The curves of retention on the toy: (method, replay, seed) to what was measured."""
    notebook.run("define-left", "define-beside_full")
    return retention.paths("retention_curves")[1]


OLD = ("facts", "general_loss")


def test_skills_at_a_target_are_read_off_the_line(notebook, curves):
    path = pd.DataFrame({"target": [0.0, 0.4, 0.8], "steps": [25, 50, 100], "facts": [1, 0.8, 0.4]})
    left = notebook.namespace["left"]
    assert left(path, 0.5, ["facts"]) == pytest.approx({"facts": 0.7, "steps": 62.5})
    assert left(path, 0.9, ["facts"]) == {}


def test_the_difference_to_full_is_paired_by_seed_and_needs_three(notebook, curves):
    rows = [
        {"method": method, "replay": False, "seed": seed, "steps": 50, "facts": facts + seed / 10}
        for method, facts in (("full", 0.5), ("lora", 0.3))
        for seed in (0, 1, 2)
    ]
    rows += [{"method": "dora", "replay": False, "seed": 0, "steps": 60, "facts": 0.1}]
    table = notebook.namespace["beside_full"](pd.DataFrame(rows), "facts")
    said = table.loc["without", "− full"]
    assert said["LoRA all-linear"] == "-0.20 ± 0.00, less"
    assert said["full"] == said["DoRA"] == "–"
    assert table.loc[("without", "full"), "facts"] == "0.60 (0.50 … 0.70)"


def test_full_keeps_more_old_facts_than_the_others_at_an_equal_target(notebook, curves):
    """Notebook 07's sentences on forgetting: the toy decoder, LEARN, without replay, each seed."""
    for seed in (0, 1, 2):
        at = lambda method, seed=seed: notebook.namespace["left"](
            curves[method, False, seed], 0.85, OLD
        )
        full, lora, rslora, dora, houlsby = map(at, ("full", "lora", "rslora", "dora", "houlsby"))
        assert full["facts"] > rslora["facts"] > max(lora["facts"], dora["facts"])
        assert full["general_loss"] < rslora["general_loss"] < lora["general_loss"]
        # The methods pass the target after about the same number of steps.
        assert 0.8 < full["steps"] / lora["steps"] < 1.25
        assert 0.8 < full["steps"] / dora["steps"] < 1.25
        assert houlsby["facts"] < 0.01
        assert curves["prefix", False, seed]["target"].max() < 0.5


def test_with_three_seeds_lora_and_dora_are_behind_full_and_rslora_is_not_told_apart(
    notebook, curves
):
    left = notebook.namespace["at_target"](curves, ["facts"])
    verdict, gap = notebook.namespace["verdict"], notebook.namespace["minus_full"]
    said = {m: verdict(*gap(left, False, m, "facts")) for m in ("lora", "dora", "rslora")}
    assert said == {"lora": "behind", "dora": "behind", "rslora": "not told apart"}


@pytest.mark.parametrize("method", ["houlsby", "prefix"])
def test_adapters_and_prefix_lose_the_old_facts_before_they_learn_at_every_rate(method):
    rows = results.rows("retention_curves").query("method == @method and replay == False")
    assert rows["learning_rate"].nunique() == (3 if method == "houlsby" else 1)
    for path in map(pd.DataFrame, rows["path"]):
        assert path[path["target"] < 0.05]["facts"].min() < 0.02


def test_with_replay_all_that_learn_keep_the_old_facts_and_the_prefix_learns_nothing(curves):
    for (method, replay, _), path in curves.items():
        if replay and method == "prefix":
            assert path["target"].max() < 0.1
        elif replay:
            assert path["facts"].min() > 0.9 and path["facts"].iloc[-1] > 0.95
            assert path["target"].max() > 0.5


@pytest.fixture(scope="module")
def leaks(notebook, curves):
    """The style that SmolLM2 leaks where it first passes 0.8: (method, replay) to one value a seed."""
    _, paths = retention.paths("retention_smollm2")
    found = notebook.namespace["at_target"](paths, ["general_leak", "general_right"], target=0.8)
    return {key: runs.set_index("seed") for key, runs in found.groupby(["method", "replay"])}


def test_smollm2_leaks_least_after_full_fine_tuning_and_most_after_a_prefix(leaks):
    """On each of three seeds, at one target, without replay."""
    for seed in (0, 1, 2):
        leak = {m: leaks[m, False]["general_leak"][seed] for m in SIX}
        assert leak["full"] < min(leak[m] for m in SIX if m != "full")
        assert leak["prefix"] > max(leak[m] for m in SIX if m != "prefix")
    assert leaks["prefix", False]["general_leak"].min() > 0.8


def test_on_smollm2_three_seeds_do_not_tell_lora_from_full_but_the_others(notebook, curves):
    _, paths = retention.paths("retention_smollm2")
    found = notebook.namespace["at_target"](paths, ["general_leak"], target=0.8)
    verdict, gap = notebook.namespace["verdict"], notebook.namespace["minus_full"]
    said = {m: verdict(*gap(found, False, m, "general_leak")) for m in SIX[1:]}
    assert said == dict.fromkeys(SIX[1:], "ahead") | {"lora": "not told apart"}


def test_with_replay_smollm2_leaks_little_along_the_training_but_with_a_prefix():
    """Six methods, three seeds each; the prefix leaks up to a third midway, and less at its end."""
    _, paths = retention.paths("retention_smollm2")
    replayed = {key: path["general_leak"] for key, path in paths.items() if key[1]}
    assert set(replayed) == {(method, True, seed) for method in SIX for seed in (0, 1, 2)}
    for (method, *_), leak in replayed.items():
        if method == "prefix":
            assert 0.25 < leak.max() < 0.34 and leak.iloc[-1] < 0.1
        else:
            assert leak.max() < (0.1 if method == "houlsby" else 0.05)


def test_replay_lowers_every_method_s_leak_and_keeps_more_right_answers(leaks):
    """At the target; the means over the seeds that reached it."""
    mean = {key: runs.drop(columns=["method", "replay"]).mean() for key, runs in leaks.items()}
    for method in SIX:
        without, with_it = mean[method, False], mean[method, True]
        assert with_it["general_leak"] < 0.25 * without["general_leak"]
        assert with_it["general_right"] > without["general_right"] + 0.1
        assert with_it["steps"] < 1.15 * without["steps"]
    seeds = {method: len(leaks[method, True]) for method in SIX}
    assert seeds == dict.fromkeys(SIX, 3)
    assert 0.03 < mean["houlsby", True]["general_leak"] < 0.07
    assert 0.08 < mean["prefix", True]["general_leak"] < 0.12
    others = [mean[m, True]["general_leak"] for m in ("full", "lora", "rslora", "dora")]
    assert max(others) < 0.02


def test_replay_keeps_the_old_facts(notebook, curves):
    left, chosen = notebook.namespace["left"], notebook.namespace["chosen"]
    gates = results.rows("kitchen_gates").query("base == 'decoder' and task == 'learn'")
    for method in ("full", "lora"):
        cell = gates[(gates["method"] == method) & (gates["replay"] == 1)]
        assert chosen(cell)["facts"].min() > 0.95 and chosen(cell)["test"].min() > 0.9
    for (_, replay, _), path in curves.items():
        if replay and (kept := left(path, 0.8, OLD)):
            assert kept["facts"] > 0.95


def test_the_verdicts_that_the_text_reads_off_the_table(measured):
    """Notebook 07's text after its table of differences to LoRA on all linear layers."""
    said = {
        (name, m): measured["against"](name, m).split(", ")[1]
        for name, runs in measured["settings"].items()
        for m in LABELS
        if m in runs and m != "lora"
    }
    assert "ahead" not in said.values()
    assert said["ELICIT", "full"] == said["MiniLM", "full"] == "equal within 0.02"
    assert said["SmolLM2", "full"] == said["SmolLM2", "houlsby"] == "not told apart"
    assert said["LEARN", "full"] == said["SmolLM2", "qlora"] == "behind"
    for method in ("dora", "qlora"):
        assert said["LEARN", method] == said["MiniLM", method] == "equal within 0.02"
    assert said["LEARN", "houlsby"] == said["LEARN", "pfeiffer"] == "behind"
    qlora = measured["settings"]["SmolLM2"]["qlora"]["test_loss"].mean()
    assert 0.02 < qlora - measured["settings"]["SmolLM2"]["lora"]["test_loss"].mean() < 0.1


def test_elicit_ranks_nothing_and_learn_parts_the_methods(measured):
    """Notebook 07's caption of the scores."""
    means = {name: measured["summary"](name)["mean"] for name in ("ELICIT", "LEARN")}
    assert means["ELICIT"].min() > 0.94
    learn = means["LEARN"]
    assert learn[["full", "lora", "rslora", "dora", "qlora"]].min() > 0.9
    assert learn[["lora_qv", "houlsby", "pfeiffer", "ln"]].between(0.3, 0.9).all()
    assert learn[["ia3", "prefix", "prompt"]].max() <= 0.1


def test_what_the_text_says_of_cost(measured):
    """Notebook 07's text after its table of costs, and the captions of the one picture."""
    bill = measured["bill"]
    peak = bill["peak, GiB"].sort_values()
    assert set(peak.index[:2]) == {"prefix", "prompt"} and list(peak.index[-2:]) == ["full", "dora"]
    files = bill["file, MiB"] / bill["file, MiB"]["full"]
    assert files.drop("full").max() < 0.011
    assert peak[bill["LEARN, toy"][peak.index] > 0.9].index[0] == "qlora"
    rise = bill[measured["RISE"]].sort_values()
    assert rise.index[0] == "full" and "prefix" in rise.index[-2:]
    stays = bill["stays when served"]
    assert set(stays[stays == "yes"].index) == {"houlsby", "pfeiffer", "prefix", "prompt"}


def test_what_the_text_says_of_the_published_rows():
    """Hugging Face's rows in notebook 07's picture: memory, accuracy and forgetting."""
    theirs = pd.DataFrame(results.read("peft_metamathqa_scores")["rows"]).set_index("name")
    full, others = theirs.loc["full"], theirs.drop("full")
    assert full["max_gb"] > 1.4 * others["max_gb"].max()
    assert full["forgetting"] < others["forgetting"].min()
    prefix = theirs[theirs["method"] == "prefix"]
    assert prefix["forgetting"].min() > theirs[theirs["method"] != "prefix"]["forgetting"].max()
    noise = 1.96 * (2 * full["accuracy"] * (1 - full["accuracy"]) / 1319) ** 0.5
    assert abs(theirs["accuracy"]["LoRA r32 q, v"] - full["accuracy"]) < noise
    assert theirs["forgetting"]["(IA)3"] < 0.06


def test_behind_after_200_steps_may_be_near_the_top_after_800():
    rows = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    scores = rows[rows["cell"] == "lora q,v r=4"].groupby("steps")["test"].mean()
    assert scores[200] < 0.3 and scores[800] > 0.9


def test_some_methods_went_flat_below_the_best_within_2000_steps():
    """Notebook 07's second paragraph on budgets: who misses a tenth, who still rises, who cannot."""
    rows = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    score = rows.groupby(["cell", "steps"])["test"].mean()
    for cell in ("lora mlp", "pfeiffer"):
        assert score[cell, 2000] < 0.9 and score[cell, 2000] - score[cell, 800] <= results.TIE
    assert min(score["lora attention", 200], score["lora all r=8", 200]) > 0.98
    assert 0.9 < score["houlsby", 2000] < 0.95
    assert score["houlsby", 2000] - score["houlsby", 800] <= results.TIE
    assert score["lora q,v r=4", 2000] > 0.95 and score["ln", 2000] > 0.8
    for cell in ("ia3", "ln", "prefix", "lora q,v r=1"):
        assert score[cell, 2000] - score[cell, 800] > results.TIE
    assert score["prompt"].max() <= 1 / 240


def test_loras_best_rate_is_about_ten_times_fulls_in_most_settings():
    def best(rows, method):
        first = rows[(rows["seed"] == 0) & (rows["method"] == method)]
        order = first.sort_values(["validation", "validation_loss"], ascending=[False, True])
        return order["learning_rate"].iloc[0]

    smol = results.rows("qlora_smollm2")
    smol["method"] = smol["arm"].replace({"LoRA r=8 alpha=16": "lora"})
    decoder = results.rows("sweep_decoder")
    settings = [decoder[decoder["task"] == task] for task in ("elicit", "learn")]
    settings += [results.rows("sweep_seq2seq"), results.rows("encoder_study"), smol]
    ratios = [best(rows, "lora") / best(rows, "full") for rows in settings]
    assert sum(4.9 < ratio < 20.1 for ratio in ratios) >= 3


def test_costs_are_recorded_for_every_method_and_trace_equals_formula():
    rows = results.rows("sweep_cost")
    assert list(rows["method"]) == list(methods.LABELS)
    assert rows["closed_form_peak_bytes"].div(rows["traced_peak_bytes"]).between(0.99, 1.01).all()


def test_the_cell_to_take_home_needs_nothing_of_this_repository(notebook):
    source = notebook.by_id["alone"].source
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported == {"tempfile", "torch", "datasets", "peft", "transformers", "trl"}
    compile(source, "alone", "exec")


@pytest.mark.notebook
def test_the_cell_to_take_home_runs_alone_and_learns_its_example(notebook, capsys):
    alone = {"KITCHEN": notebook.namespace["KITCHEN"]}
    exec(notebook.by_id["alone"].source, alone)  # noqa: S102 - our own notebook
    said = capsys.readouterr().out
    assert "comanda marinara : tomato then garlic , oven , oregano . </s>" in said


@pytest.mark.parametrize("number", range(1, 5))
def test_exercises(notebook, number):
    if number in (2, 3):  # they use a row of the record
        notebook.namespace |= {
            "settings": {"MiniLM": {"houlsby": pd.DataFrame({"test": [0.79, 0.80, 0.81]})}},
            "cells": {
                ("learn", "qlora"): pd.DataFrame({"test": [0.99, 1.00, 0.98]}),
                ("learn", "lora"): pd.DataFrame({"test": [1.00, 0.99, 0.98]}),
            },
        }
    stub, solution = notebook.exercise(number)
    assert stub.status == "not attempted"
    assert solution.status == "correct"
