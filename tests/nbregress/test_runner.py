"""The runner: what passes, what it keeps, wrong use, order, shards, resuming."""

import io
import json
import os
import re
import sys
from types import SimpleNamespace

import nbformat
import pytest

from nbregress import notebooks, plan, progress
from nbregress.result import Result
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir

RECORD = "from pefthelpers.record import record\nrecord('loss', 0.5, unit='nats')"


def kept(out):
    return {
        row["notebook"]: row for row in json.loads((out / "metrics.json").read_text())["notebooks"]
    }


def test_a_good_notebook_passes_and_its_metrics_are_kept(run, make_notebook, tmp_path):
    out = tmp_path / "out"
    code, text = run(make_notebook(RECORD), "--out", out)
    assert code == 0 and "1 passed, 0 failed" in text
    row = kept(out)["99_made"]
    assert row["metrics"] == {"loss": {"value": 0.5, "unit": "nats"}}
    assert 0.05 < row["peak_memory_gib"] < 2 and row["cpu_s"] > 0 and row["kernel_starts"] == 1
    executed = notebooks.read(out / "99_made.ipynb")
    assert any("injected-parameters" in notebooks.tags(cell) for cell in executed.cells)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no_such_notebook"], "Unknown notebook 'no_such_notebook': choose from"),
        (["{path}", "--notebook", "8*"], "No notebook fits '8*': choose from 99_made"),
        (["{path}", "{path}"], "Two notebooks named 99_made"),
        (["{path}", "--profile", "huge"], "Unknown profile 'huge': choose one of tiny, laptop"),
        (["{path}", "--param", "STEPS=3"], "has no parameter 'STEPS': it has PROFILE, SEED"),
        (["{path}", "--param", "SEED=many"], "Parameter SEED of 99_made takes a int, not 'many'"),
        (["{path}", "--param", "SEED=True"], "Parameter SEED of 99_made takes a int, not True"),
        (["{path}", "--param", "SEED"], "--param takes NAME=VALUE"),
        (["{path}", "--jobs", "0"], "--jobs takes a whole number from 1, not '0'"),
        (["{path}", "--timeout", "soon"], "--timeout takes a number of seconds from 0"),
        (["{path}", "--timeout", "-1"], "--timeout takes a number of seconds from 0, not '-1'"),
        (["{path}", "--job-count", "2"], "unrecognized arguments: --job-count 2."),
        (["{path}", "--shard", "3/2"], "--shard takes I/N with 1 <= I <= N"),
        (["{broken}"], "broken.ipynb is not a notebook"),
        (["{folder}"], "Unknown notebook"),
        (["{list}"], "list.ipynb is not a notebook"),
        (["{derived}"], "must hold assignments of plain values alone"),
        (["{path}", "--out", "{file}/out"], "fix its permissions, or choose another folder"),
        (["{path}", "--cluster", "tcp://127.0.0.1:1"], "No Dask scheduler answers at tcp://"),
        (["{path}", "--out", "{old}", "--resume"], "metrics.json is damaged"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    run, make_notebook, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.setattr("nbregress.executors.CONNECT_S", 0.5)
    values = {name: tmp_path / f"{name}.ipynb" for name in ("broken", "list", "folder")}
    values["broken"].write_text("{")
    values["list"].write_text("[1, 2]")
    values["folder"].mkdir()
    values["file"] = tmp_path / "file"
    values["file"].write_text("")
    values["old"] = tmp_path / "old"
    values["old"].mkdir()
    (values["old"] / "metrics.json").write_text('{"notebooks": [{"x": 1}]}')
    values["derived"] = make_notebook("1", parameters="RATE = 2 * 1e-3", name="derived.ipynb")
    values["path"] = make_notebook(RECORD)
    before = sorted(tmp_path.rglob("*"))
    arguments = [argument.format(**values) for argument in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    code, text = run(*arguments)
    assert code == 2 and sentence in text
    assert len(text.strip().splitlines()) == 1
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != ".lock"] == before


def test_annotated_parameters_are_read():
    source = 'PROFILE: str = "tiny"\nSEED = 0\nrate: float = 1e-4\nlater: int'
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    found = notebooks.parameters(nbformat.v4.new_notebook(cells=[cell]))
    assert found == {"PROFILE": "tiny", "SEED": 0, "rate": 1e-4, "later": None}


def test_parameters_reach_the_notebook_typed(run, make_notebook, tmp_path):
    path = make_notebook(
        "assert SEED == 7",
        "assert RATE == 1e-4 and NAME == 'x' and RANKS == [4, 8] and FAST is True",
        parameters='PROFILE = "tiny"\nSEED = 0\nRATE = 1e-3\nNAME = "y"\nRANKS = [1]\nFAST = False',
    )
    values = ["SEED=7", "RATE=1e-4", "NAME=x", "RANKS=[4, 8]", "FAST=True"]
    arguments = [part for value in values for part in ("--param", value)]
    code, text = run(path, "--out", tmp_path / "out", *arguments)
    assert code == 0, text


def test_a_notebook_whose_cells_have_no_ids_runs_too(run, tmp_path):
    """Colab saves such files."""
    cells = [
        {"cell_type": "code", "source": source, "outputs": [], "execution_count": None}
        for source in ('PROFILE = "tiny"', RECORD)
    ]
    cells[0]["metadata"], cells[1]["metadata"] = {"tags": ["parameters"]}, {}
    content = {"nbformat": 4, "nbformat_minor": 0, "metadata": {}, "cells": cells}
    path, out = tmp_path / "colab.ipynb", tmp_path / "out"
    path.write_text(json.dumps(content))
    code, text = run(path, "--out", out)
    assert code == 0, text
    assert kept(out)["colab"]["metrics"]["loss"]["value"] == 0.5
    assert run(path, "--out", out, "--resume")[0] == 0


def test_a_shard_without_notebooks_is_no_failure(run, make_notebook, tmp_path):
    out = tmp_path / "out"
    code, text = run(make_notebook("1"), "--shard", "2/2", "--out", out)
    assert code == 0 and "0 passed, 0 failed" in text
    assert kept(out) == {} and "No notebooks" in (out / "report.html").read_text()


def test_notebooks_run_with_passive_threads_and_offline(run, make_notebook, tmp_path):
    path = make_notebook(
        "import os\nassert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1' and os.environ['PEFTHELPERS_HEADLESS']\n"
        f"assert os.getcwd() == {str(tmp_path)!r}"
    )
    code, text = run(path, "--out", tmp_path / "out")
    assert code == 0, text


def test_resume_runs_only_what_is_not_done_with_the_same_source(run, make_notebook, tmp_path):
    count = f"with open({str(tmp_path)!r} + '/ran', 'a') as file:\n    file.write(NAME)"
    paths = [
        make_notebook(count, parameters=f'PROFILE = "tiny"\nNAME = "{name}"', name=f"{name}.ipynb")
        for name in "abc"
    ]
    out = tmp_path / "out"
    assert run(*paths, "--out", out, "--jobs", 2)[0] == 0
    make_notebook(count + "\n# changed", parameters='PROFILE = "tiny"\nNAME = "b"', name="b.ipynb")
    (out / "c.ipynb").unlink()
    code, text = run(*paths, "--out", out, "--resume", "--jobs", 2)
    assert code == 0 and "3 passed" in text
    ran = (tmp_path / "ran").read_text()
    assert (ran.count("a"), ran.count("b"), ran.count("c")) == (1, 2, 2)


def test_fail_fast_stops_the_others(run, make_notebook, tmp_path):
    bad = make_notebook("1 / 0", name="a.ipynb")
    long = make_notebook("import time\ntime.sleep(600)", name="b.ipynb")
    never = make_notebook("1", name="c.ipynb")
    out = tmp_path / "out"
    code, text = run(bad, long, never, "--out", out, "--jobs", 2, "--fail-fast")
    rows = kept(out)
    assert code == 1 and "ZeroDivisionError" in text
    assert [rows[name]["status"] for name in "abc"] == ["failed", "stopped", "stopped"]
    assert "3 of 3 notebooks not good" in (out / "report.html").read_text()


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Record 10, 9 ... 1 seconds for the notebooks 0 to 9."""
    folder = tmp_path / "baselines"
    folder.mkdir()
    paths = [tmp_path / f"{number}.ipynb" for number in range(10)]
    for number, path in enumerate(paths):
        (folder / f"{path.stem}.tiny.json").write_text(json.dumps({"seconds": 10 - number}))
    monkeypatch.setattr(plan.results, "data_dir", lambda: tmp_path)
    return paths


def test_the_longest_start_first_and_the_unknown_before_them(recorded, tmp_path):
    new = tmp_path / "new.ipynb"
    ordered = plan.longest_first([*reversed(recorded), new], "tiny")
    assert ordered == [new, *recorded]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 12])
def test_shards_are_disjoint_complete_and_even(recorded, count):
    shards = [plan.shard(recorded, f"{i}/{count}", "tiny") for i in range(1, count + 1)]
    assert sorted(path for shard in shards for path in shard) == recorded
    seconds = [sum(plan.recorded_seconds(path, "tiny") for path in shard) for shard in shards]
    assert max(seconds) - min(seconds) <= 10


def test_globs_choose_by_stem_or_file_name(recorded):
    assert [path.stem for path in plan.matching(recorded, ["[0-2]", "7.ipynb"])] == list("0127")


COLLECTION = ["00_start_here", "02_lora", "02b_lora_in_depth", "03_merge"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], COLLECTION),  # a companion comes behind its notebook
        (["02"], ["02_lora"]),
        (["02b"], ["02b_lora_in_depth"]),
        (["02b_lora_in_depth", "00"], ["02b_lora_in_depth", "00_start_here"]),
        (["notebooks/02_lora.ipynb"], ["02_lora"]),
    ],
)
def test_a_number_is_one_notebook_and_its_letter_the_companion(tmp_path, monkeypatch, asked, found):
    monkeypatch.setattr(notebooks, "notebooks_dir", lambda: tmp_path)
    for stem in COLLECTION:
        (tmp_path / f"{stem}.ipynb").touch()
    paths = notebooks.find(asked)
    assert [path.stem for path in paths] == found
    both = plan.matching(notebooks.find([]), ["02*"])
    assert [path.stem for path in both] == ["02_lora", "02b_lora_in_depth"]


@pytest.mark.parametrize("name", ["2", "02c", "lora", "02_", "0"])
def test_a_part_of_a_name_is_no_notebook(tmp_path, monkeypatch, name):
    monkeypatch.setattr(notebooks, "notebooks_dir", lambda: tmp_path)
    for stem in COLLECTION:
        (tmp_path / f"{stem}.ipynb").touch()
    with pytest.raises(
        UserError, match=f"Unknown notebook '{name}': choose from 00_start_here, 02_"
    ):
        notebooks.find([name])


def test_the_live_table_is_redrawn_and_never_wraps():
    file = io.StringIO()
    names = ["one", "two", "three"]
    with progress.Screen(
        names, file=file, force_terminal=True, width=40, color_system=None
    ) as table:
        table({}, {"one"})
        first = len(file.getvalue())
        table({"one": Result("one", "failed", seconds=3, reason="[x] " * 50)}, {"two"})
    drawn, redrawn = file.getvalue()[:first], file.getvalue()[first:]
    shown = [re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", text) for text in (drawn, redrawn)]
    rows = [[line for line in text if line] for text in shown]
    assert "running" in rows[0][0] and "waiting" in rows[0][1] and "waiting" in rows[0][2]
    assert redrawn.count("\x1b[1A") >= 2  # up to the first row, over the old ones
    assert "failed" in rows[1][0] and "[x] [x" in rows[1][0] and "running" in rows[1][1]
    assert all(len(line) <= 40 for text in rows for line in text)


def test_what_a_terminal_s_width_cut_is_said_in_full_at_the_end(tmp_path):
    rows = [Result("one", "failed", reason="x" * 200), Result("two", "passed")]
    store = SimpleNamespace(
        rows=rows, out=tmp_path, trouble=[], unreported=[], about=lambda: {"wall_s": 1}
    )
    assert progress.summary(store, cut=True).splitlines()[0] == f"one failed: {'x' * 200}"
    assert progress.summary(store, cut=False).startswith("1 passed, 1 failed in 1 s")


def test_the_recorded_benchmark_keeps_its_gates():
    """The whole collection takes at most four minutes on two cores, less than one after the other."""
    record = data_dir() / "results" / "runner_benchmark.json"
    if not record.exists():
        pytest.skip("not measured yet: studies/runner_benchmark.py")
    content = json.loads(record.read_text())
    last = [row for row in content["rows"] if row["way"] == "comparison"][-1]
    assert last["cores"] == 2 and last["runner_s"] <= 240 and last["ratio"] > 1
    assert {"date", "versions", "processor"} <= set(content["about"])


def test_reading_a_notebook_compiles_no_grammar():
    """It would cost each process more CPU than all else that a small notebook's run takes."""
    assert "nbformat" in sys.modules and "jsonschema" in sys.modules
    assert "lark" not in sys.modules


def test_an_output_is_whole_or_absent(tmp_path):
    from pefthelpers.paths import atomic_path

    target = tmp_path / "file.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("/tmp/ipykernel_1/2.py:3: FutureWarning: old\n  call()\n", "FutureWarning: old"),
        ("x\n/tmp/ipykernel_1/2.py:3: PendingDeprecationWarning: a: b\n", "PendingDepreca"),
        ("/tmp/ipykernel_1/2.py:3: UserWarning: look\n/lib/x.py:1: FutureWarning: old\n", None),
    ],
)
def test_a_warning_counts_if_it_comes_from_the_notebook_s_own_line(said, error):
    from nbregress import failures

    shown = nbformat.v4.new_output("stream", name="stderr", text=said)
    cell = nbformat.v4.new_code_cell("call()", outputs=[shown])
    cell.metadata["papermill"] = {"status": "completed", "start_time": "now"}
    found = failures.find(nbformat.v4.new_notebook(cells=[cell]))
    said = found and found.reason.split("): ", 1)[1]
    assert said.startswith(error) if error else found is None


def test_an_error_s_last_line_is_kept_short():
    from nbregress.failures import last_line

    assert last_line("first\n\x1b[31mlast\x1b[0m\n") == "last" and last_line("") == ""
    assert len(last_line("x" * 10_000)) < 250
