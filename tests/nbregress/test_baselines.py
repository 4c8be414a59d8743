"""Baselines with tolerances, and two runs compared."""

import json
import re

import pytest

from nbregress import baselines, report
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir

TRUTH = {
    "accuracy": {"value": 0.8, "unit": "share"},
    "weights": {"value": 1536, "unit": "parameters"},
    "loss": {"value": 2.0, "unit": "nats/token"},
    "error": {"value": 1e-8, "unit": "logit"},
    "time": {"value": 3.0, "unit": "s"},
}


def verdicts(**changed):
    after = {**TRUTH, **{k: {**TRUTH[k], "value": v} for k, v in changed.items()}}
    return {one.name: one.verdict for one in baselines.compare(TRUTH, after)}


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("accuracy", 0.8, "same"),
        ("accuracy", 0.71, "within tolerance"),
        ("accuracy", 0.69, "beyond tolerance"),
        ("weights", 1537, "beyond tolerance"),
        ("loss", 2.5, "within tolerance"),
        ("loss", 2.53, "beyond tolerance"),
        ("error", 9e-5, "within tolerance"),
        ("error", 2e-4, "beyond tolerance"),
        ("time", 300.0, "not judged"),
        ("loss", float("nan"), "is nan, not a finite number"),
        ("loss", "nan", "is nan, not a finite number"),
    ],
)
def test_a_metric_is_judged_by_its_unit(name, value, verdict):
    assert verdicts(**{name: value}) == {k: "same" for k in TRUTH} | {name: verdict}


RECORDED = [
    (path.stem, name, metric["unit"], metric["value"])
    for path in sorted((data_dir() / "baselines").glob("*.json"))
    for name, metric in json.loads(path.read_text(encoding="utf-8"))["metrics"].items()
]


def is_known(unit):
    return any(re.match(start, unit) for start in baselines.KINDS)


def test_no_baseline_has_a_unit_without_a_rule():
    """A new unit gets its rule in ``baselines.KINDS``, or is said in a word that stands there."""
    assert len(RECORDED) > 150
    assert [row for row in RECORDED if not is_known(row[2])] == []
    assert not is_known("quarks") and not is_known("shared") and not is_known("seconds of joy")
    assert baselines.floor_of("quarks", 7.0) == 0  # until then it has to be equal


@pytest.mark.parametrize(
    ("units", "value", "within", "beyond"),
    [
        ("parameters; bytes; layers; fine-tunings; runs; methods at the top", 242, 242, 243),
        ("of 192; of 32,768; of 5; of all", 8, 8, 7),
        ("share; share, trained; share, untrained; share of an old skill", 0.99, 0.9, 0.88),
        ("share of old facts, gained; accuracy; accuracy, plus or minus", 0.2, 0.29, 0.31),
        ("nats; nats/token", 2.0, 2.5, 2.6),
        ("GB; GiB; MiB; GB, 1e9 bytes; bits per weight; bytes/logit", 20.0, 20.1, 20.3),
        ("ratio; times; of full; of NF4's", 1.0, 1.09, 1.11),
        ("logit; activation; gradient; weight; norm; relative; of ||W||; ", 0.4, 0.59, 0.61),
        ("logit; output; level; difference; of the largest logit; ||ΔW|| / ||W||", 0.0, 9e-5, 2e-4),
    ],
)
def test_of_each_unit_a_changed_metric_fails(units, value, within, beyond):
    for unit in units.split("; "):
        assert is_known(unit), unit
        for after, verdict in ((within, "within tolerance"), (beyond, "beyond tolerance")):
            old, new = ({"a": {"value": x, "unit": unit}} for x in (value, after))
            expected = "same" if after == value else verdict
            assert baselines.compare(old, new)[0].verdict == expected, (unit, after)
        assert baselines.floor_of(unit, value, 3) < abs(beyond - value)


@pytest.mark.parametrize("unit", ["s", "ms", "min", "CPU s", "h of one core", "answers/s"])
def test_times_are_never_judged(unit):
    assert is_known(unit) and baselines.floor_of(unit, 3.0) is None


def test_each_recorded_metric_can_fail():
    judged = 0
    for notebook, name, unit, value in RECORDED:
        old, new = ({name: {"value": x, "unit": unit}} for x in (value, value + abs(value) + 0.2))
        (found,) = baselines.compare(old, new)
        timed = baselines.floor_of(unit, value) is None
        assert found.verdict == ("not judged" if timed else "beyond tolerance"), (notebook, name)
        judged += not timed
    assert judged > 150


def test_a_tolerance_of_none_is_the_units_own():
    """Older baselines have none for ratios, which were not judged then."""
    old = {"a": {"value": 1.0, "unit": "ratio", "tolerance": None}}
    new = {"a": {"value": 1.2, "unit": "ratio"}}
    assert baselines.compare(old, new)[0].bad
    old["a"]["unit"] = new["a"]["unit"] = "s"
    assert baselines.compare(old, new)[0].verdict == "not judged"


def test_missing_new_and_another_unit():
    after = {k: v for k, v in TRUTH.items() if k != "loss"}
    after["accuracy"] = {"value": 80, "unit": "%"}
    after["extra"] = {"value": 1, "unit": "s"}
    found = {one.name: one for one in baselines.compare(TRUTH, after)}
    assert found["loss"].sentence == "loss: missing" and found["loss"].bad
    assert found["accuracy"].verdict == "recorded in share, now in %" and found["accuracy"].bad
    assert found["extra"].verdict == "new" and not found["extra"].bad


def test_the_spread_of_runs_becomes_the_tolerance():
    runs = [{k: dict(v) for k, v in TRUTH.items()} for _ in range(3)]
    runs[1]["accuracy"]["value"], runs[2]["accuracy"]["value"] = 0.7, 0.9
    made = baselines.from_runs(runs)
    assert made["accuracy"]["value"] == 0.8
    assert made["accuracy"]["tolerance"] == pytest.approx(0.4)
    assert made["weights"]["tolerance"] == 0 and made["time"]["tolerance"] is None
    # Three runs that agree are known better than one.
    assert made["loss"]["tolerance"] == pytest.approx(0.12)
    assert made["error"]["tolerance"] == pytest.approx(1e-4, rel=1e-3)
    assert baselines.from_runs(runs[:2])["loss"]["tolerance"] == pytest.approx(0.52)


def test_three_runs_that_agree_leave_little_room():
    made = baselines.from_runs([TRUTH] * 3)
    after = {name: {**TRUTH[name], "value": TRUTH[name]["value"] * 1.07} for name in TRUTH}
    verdict = {one.name: one.verdict for one in baselines.compare(made, after)}
    assert verdict["accuracy"] == verdict["loss"] == "beyond tolerance"
    assert verdict["error"] == "within tolerance" and verdict["time"] == "not judged"


@pytest.mark.parametrize("change", ["missing", "more", "nan"])
def test_runs_that_do_not_agree_make_no_baseline(change):
    runs = [{k: dict(v) for k, v in TRUTH.items()} for _ in range(2)]
    if change == "missing":
        del runs[1]["loss"]
    if change == "more":
        runs[1]["extra"] = {"value": 1, "unit": "s"}
    if change == "nan":
        runs[1]["loss"]["value"] = "nan"
    with pytest.raises(UserError, match="metric (loss|extra)"):
        baselines.from_runs(runs)


def test_a_new_recording_keeps_the_tolerances(tmp_path):
    path = tmp_path / "x.tiny.json"
    old = {name: {"value": 1, "unit": "share", "tolerance": 0.3} for name in ("a", "far", "other")}
    path.write_text(json.dumps({"metrics": old}))
    metrics = {"a": {"value": 1.2, "unit": "share"}, "far": {"value": 2, "unit": "share"}}
    metrics |= {"other": {"value": 1, "unit": "nats"}, "b": {"value": 1, "unit": "s"}}
    baselines.keep_tolerances(path, metrics)
    assert metrics["a"]["tolerance"] == 0.3
    # What left its tolerance is another experiment: the scatter of the old one says nothing about it.
    assert not any("tolerance" in metrics[name] for name in ("far", "other", "b"))


@pytest.mark.parametrize(
    ("name", "unit", "values", "words"),
    [
        ("exact_match", "share", (0.5, 0.6), "↑ better"),
        ("held_out_loss", "nats/token", (0.5, 0.6), "↑ worse"),
        ("adapter", "bytes", (5, 4), "↓ better"),
        ("alpha", "ratio", (5, 4), "↓"),
        ("alpha", "ratio", (5, 5), "="),
        ("alpha", "ratio", (5, None), ""),
    ],
)
def test_direction(name, unit, values, words):
    assert baselines.Change(name, unit, *values, None, "").direction == words


def test_a_chart_holds_band_tick_and_dot():
    chart = report.TEMPLATES.get_template("parts.html.jinja").module.chart
    one = baselines.Change("a", "share", 0.5, 0.9, 0.1, baselines.OFF)
    svg = chart(one)
    assert 'class="off" cx="142' in svg and 'class="band"' in svg
    assert "<title>baseline 0.5, this run 0.9 share</title>" in svg
    assert chart(baselines.Change("a", "share", 0.5, None, 0.1, "missing")).strip() == ""
    still = baselines.Change("a", "share", 0.5, 0.5, 0, baselines.SAME)
    assert 'cx="75' in chart(still)


def metric(value, name="accuracy", unit="share"):
    return f"from pefthelpers.record import record\nrecord('{name}', {value}, unit='{unit}')\n"


@pytest.fixture
def baseline(tmp_path):
    """Return the folder of a baseline for 99_made: accuracy 0.8."""
    folder = tmp_path / "baselines"
    folder.mkdir()
    content = {"seconds": 5, "metrics": {"accuracy": TRUTH["accuracy"]}}
    (folder / "99_made.tiny.json").write_text(json.dumps(content))
    return folder


RAW = """from IPython.display import display
display({"application/vnd.pefthelpers.metric+json":
         {"name": "accuracy", "value": float("nan"), "unit": "share"}, "text/plain": ""}, raw=True)"""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (metric(0.6), "accuracy: 0.8 → 0.6 share, tolerance 0.1"),
        ("x = 1", "accuracy: missing"),
        (metric(80, unit="%"), "accuracy: recorded in share, now in %"),
        (RAW, "accuracy: is nan, not a finite number"),
    ],
)
def test_a_drifted_metric_fails_the_run(run, make_notebook, baseline, tmp_path, source, reason):
    out = tmp_path / "out"
    code, text = run(make_notebook(source), "--out", out, "--baselines", baseline)
    assert code == 1 and reason in text and "drifted" in text
    row = json.loads((out / "metrics.json").read_text())["notebooks"][0]
    assert row["status"] == "drifted" and row["drifts"] == [reason]
    assert 'type="drifted"' in (out / "junit.xml").read_text()
    assert (out / "99_made.ipynb").exists()


DAMAGED = [
    "{",
    "[]",
    '{"metrics": {"a": {"value": "x", "unit": "s"}}}',
    '{"metrics": {"a": {"value": 1, "unit": "s", "tolerance": "wide"}}}',
    '{"metrics": {"a": {"value": 1, "unit": "s", "tolerance": -1}}}',
    '{"metrics": {}, "seconds": "long"}',
]


def test_what_drifted_before_a_failure_is_said_too(run, make_notebook, baseline, tmp_path):
    out = tmp_path / "out"
    code, text = run(make_notebook(metric(0.1), "1 / 0"), "--out", out, "--baselines", baseline)
    assert code == 1 and "ZeroDivisionError" in text
    row = json.loads((out / "metrics.json").read_text())["notebooks"][0]
    assert row["status"] == "failed" and row["drifts"] == []
    assert row["notes"] == ["accuracy: 0.8 → 0.1 share, tolerance 0.1"]
    assert row["notes"][0] in (out / "report.html").read_text()


@pytest.mark.parametrize("content", DAMAGED)
def test_a_corrupt_baseline_is_wrong_use(run, make_notebook, baseline, tmp_path, content):
    (baseline / "99_made.tiny.json").write_text(content)
    code, text = run(make_notebook("1"), "--out", tmp_path / "out", "--baselines", baseline)
    assert code == 2 and "The baseline 99_made.tiny.json is damaged" in text
    assert "restore it with `git checkout`" in text and len(text.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_corrupt_baseline_stays_until_it_is_deleted(run, make_notebook, baseline, tmp_path):
    """What the sentence says to do helps; the run that it is written from needs no baseline."""
    path, out, file = make_notebook(metric(0.7)), tmp_path / "out", baseline / "99_made.tiny.json"
    assert run(path, "--out", out, "--baselines", tmp_path / "none")[0] == 0
    for content in DAMAGED:
        file.write_text(content)
        code, text = run(out, "--baselines", baseline, command="baseline")
        assert code == 2 and "is damaged" in text and file.read_text() == content
        with pytest.raises(UserError, match="is damaged"):
            baselines.keep_tolerances(file, {})
        file.unlink()
        assert run(out, "--baselines", baseline, command="baseline")[0] == 0
        assert json.loads(file.read_text())["metrics"]["accuracy"]["value"] == 0.7


def test_the_times_of_a_recording_stay(tmp_path):
    path = tmp_path / "x.tiny.json"
    row = {"notebook": "x", "status": "passed", "source_hash": "", "versions": {}, "metrics": {}}
    rows = [{**row, "seconds": seconds, "cpu_s": 1} for seconds in (9, 5, 7)]
    baselines.write(path, rows, {"profile": "tiny"})
    assert json.loads(path.read_text())["seconds"] == 7
    path.write_text(json.dumps({"seconds": 3, "texts": {"a": "b"}, "metrics": {}}))
    baselines.write(path, rows, {"profile": "tiny"})
    written = json.loads(path.read_text())
    assert written["seconds"] == 3 and written["texts"] == {"a": "b"} and written["runs"] == 3


def test_what_a_notebook_left_out_is_not_missed_but_said(run, make_notebook, baseline, tmp_path):
    source = "from pefthelpers.record import quote\nquote('left_out', 'no oven here')"
    code, text = run(make_notebook(source), "--out", tmp_path / "out", "--baselines", baseline)
    assert code == 0 and "0 passed, 1 not run, 0 failed" in text and "no oven here" in text
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "0 notebooks ran and are good, 1 not run: 99_made</h1>" in page and "– not run" in page
    assert "<title>0 of 1 notebooks good, 1 not run (tiny)" in page
    assert '<skipped message="no oven here"/>' in (tmp_path / "out" / "junit.xml").read_text()
    row = json.loads((tmp_path / "out" / "metrics.json").read_text())["notebooks"][0]
    assert row["left_out"] == "no oven here" and row["notes"] == ["no oven here"]
    both = make_notebook(source, metric(0.6), name="99_made.ipynb")
    code, text = run(both, "--out", tmp_path / "again", "--baselines", baseline)
    assert code == 1 and "tolerance 0.1" in text  # what was measured is compared all the same


def test_beside_a_failure_the_report_still_names_what_did_not_run(run, make_notebook, tmp_path):
    source = "from pefthelpers.record import quote\nquote('left_out', 'no oven here')"
    names = {"1_good": "1", "2_apart": source, "3_bad": "1 / 0"}
    paths = [make_notebook(text, name=f"{name}.ipynb") for name, text in names.items()]
    code, text = run(*paths, "--out", tmp_path / "out")
    assert code == 1 and "1 passed, 1 not run, 1 failed" in text
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ">1 of 3 notebooks not good, 1 not run: 2_apart</h1>" in page


def test_changed_parameters_are_not_compared(run, make_notebook, baseline, tmp_path):
    arguments = ["--out", tmp_path / "out", "--baselines", baseline, "--param", "SEED=1"]
    code, _ = run(make_notebook(metric(0.1)), *arguments)
    assert code == 0
    assert (
        "metrics not compared: parameters were changed"
        in (tmp_path / "out" / "report.html").read_text()
    )


def test_baseline_and_compare_from_runs(run, make_notebook, tmp_path):
    path, folder = (
        make_notebook(metric("0.8 + SEED / 100") + metric(7, "n", "layers")),
        tmp_path / "b",
    )
    outs = [tmp_path / f"run{seed}" for seed in (0, 1, 15)]
    for seed, out in zip((0, 1, 15), outs, strict=True):
        assert run(path, "--out", out, "--param", f"SEED={seed}", "--baselines", folder)[0] == 0
    code, text = run(*outs[:2], "--baselines", folder, command="baseline")
    assert code == 0 and "99_made.tiny.json: 2 metrics from 2 runs" in text
    made = json.loads((folder / "99_made.tiny.json").read_text())
    assert made["runs"] == 2 and made["metrics"]["accuracy"]["tolerance"] == pytest.approx(0.1)
    html = tmp_path / "compare.html"
    agree = run(*outs[:2], "--baselines", folder, "--html", html, command="compare")
    assert agree[0] == 0 and "1 the same, 0 beyond" in agree[1] and "↑ better" in agree[1]
    assert "agrees with" in html.read_text()
    assert "1 the same" in html.read_text()
    far = run(outs[0], outs[2], "--baselines", folder, "--html", html, command="compare")
    assert far[0] == 1 and "beyond tolerance" in far[1] and "differs from" in html.read_text()
    assert "1 beyond its tolerance" in html.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.clear(), "99_made: only in"),
        (lambda rows: rows[0].update(status="failed", reason="cell 3: no"), "failed in"),
    ],
)
def test_compare_names_what_cannot_be_compared(run, tmp_path, change, words):
    about = {"profile": "tiny", "parameters": {}, "date": "", "versions": {}}
    for name in "ab":
        rows = [{"notebook": "99_made", "status": "passed", "metrics": TRUTH}]
        if name == "b":
            change(rows)
        (tmp_path / name).mkdir()
        content = json.dumps({"about": about, "notebooks": rows})
        (tmp_path / name / "metrics.json").write_text(content)
    code, text = run(tmp_path / "a", tmp_path / "b", command="compare")
    assert code == 1 and words in text


@pytest.mark.parametrize("command", ["compare", "baseline"])
def test_a_folder_without_a_run_is_wrong_use(run, tmp_path, command):
    code, text = run(tmp_path, tmp_path, command=command)
    assert code == 2 and "there is no metrics.json in it" in text


def test_a_failed_run_makes_no_baseline(run, make_notebook, tmp_path):
    out = tmp_path / "out"
    run(make_notebook("1 / 0"), "--out", out)
    code, text = run(out, "--baselines", tmp_path / "b", command="baseline")
    assert code == 2 and "a baseline is made of good runs alone" in text
    assert not (tmp_path / "b").exists()
