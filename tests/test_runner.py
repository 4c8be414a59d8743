"""The runner: what passes, what fails and why, and wrong use."""

import json
import os

import pytest

from pefthelpers import cli, notebooks, runner

RECORD = "from pefthelpers.record import record\nrecord('loss', 0.5, unit='nats')"


def run(capsys, *arguments):
    code = cli.main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_good_notebook_passes_and_its_metrics_are_kept(capsys, make_notebook, tmp_path):
    code, text = run(capsys, make_notebook(RECORD), "--out", tmp_path / "out")
    assert code == 0 and "1 passed, 0 failed" in text
    (row,) = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert row["metrics"] == {"loss": {"value": 0.5, "unit": "nats"}}
    executed = notebooks.read(tmp_path / "out" / "99_made.ipynb")
    assert any("injected-parameters" in notebooks.tags(cell) for cell in executed.cells)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('the pan is cold')", "ValueError: the pan is cold"),
        ("import sys\nsys.exit(0)", "cell"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "DeadKernelError"),
        ("import warnings\nwarnings.warn('old', FutureWarning)", "FutureWarning: old"),
        (RECORD.replace("0.5", "float('nan')"), "must be finite"),
    ],
)
def test_what_must_not_pass(capsys, make_notebook, tmp_path, source, reason):
    out = tmp_path / "out"
    code, text = run(capsys, make_notebook(source, "print('later')"), "--out", out)
    assert code == 1 and reason in text and "0 passed, 1 failed" in text
    assert (out / "99_made.ipynb").exists()


def test_a_cell_that_never_ends_is_stopped(capsys, make_notebook, tmp_path):
    path = make_notebook("while True: pass")
    code, text = run(capsys, path, "--out", tmp_path / "out", "--timeout", 2)
    assert code == 1 and "Timeout" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no_such_notebook"], "Unknown notebook 'no_such_notebook': choose from"),
        (["{path}", "--profile", "huge"], "Unknown profile 'huge': choose one of tiny, laptop"),
        (["{path}", "--param", "STEPS=3"], "has no parameter 'STEPS': it has PROFILE, SEED"),
        (["{path}", "--param", "SEED=many"], "Parameter SEED of 99_made takes a int, not 'many'"),
        (["{path}", "--param", "SEED"], "--param takes NAME=VALUE"),
        (["{path}", "--jobs", "0"], "--jobs takes a whole number"),
        (["{broken}"], "broken.ipynb is not a notebook"),
        (["{path}", "--out", "{file}/out"], "choose another folder or fix its permissions"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    capsys, make_notebook, tmp_path, arguments, sentence
):
    path, broken, file = make_notebook(RECORD), tmp_path / "broken.ipynb", tmp_path / "file"
    broken.write_text("{")
    file.write_text("")
    before = sorted(tmp_path.rglob("*"))
    values = {"path": path, "broken": broken, "file": file}
    arguments = [argument.format(**values) for argument in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    code, text = run(capsys, *arguments)
    assert code == 2 and sentence in text
    assert len(text.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_parameters_reach_the_notebook(capsys, make_notebook, tmp_path):
    path = make_notebook(
        "assert SEED == 7",
        "assert RATE == 1e-4 and NAME == 'x'",
        parameters='PROFILE = "tiny"\nSEED = 0\nRATE = 1e-3\nNAME = "y"',
    )
    out = tmp_path / "out"
    code, text = run(
        capsys, path, "--out", out, "--param", "SEED=7", "--param", "RATE=1e-4", "--param", "NAME=x"
    )
    assert code == 0, text


def test_notebooks_run_with_passive_threads_and_offline(capsys, make_notebook, tmp_path):
    path = make_notebook(
        "import os\nassert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1' and os.environ['PEFTHELPERS_HEADLESS']"
    )
    assert run(capsys, path, "--out", tmp_path / "out")[0] == 0


def test_a_worker_that_dies_is_a_failed_notebook(make_notebook, tmp_path):
    from concurrent.futures import Future

    future = Future()
    future.set_exception(RuntimeError("gone"))
    result = runner.result_of(future, make_notebook("1"))
    assert result.status == "failed" and "its process died" in result.reason


def test_an_output_is_whole_or_absent(tmp_path):
    from pefthelpers.paths import atomic_path

    target = tmp_path / "file.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]
