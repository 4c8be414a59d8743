"""The matrix: its stacks, its table, what it does when one cannot be built, and its workflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pefthelpers import cli, notebooks
from pefthelpers.runner import matrix, stacks
from pefthelpers.runner.result import Result

ROOT = notebooks.notebooks_dir().resolve().parent


def test_every_stack_asks_for_torch_first_and_by_the_pinned_version():
    found = {name: stacks.named(name) for name in stacks.FILES}
    assert {stack.requirements[0] for stack in found.values()} == {found["pinned"].torch}
    assert all("==" in line for line in found["floor"].requirements)
    assert not any("==" in line for line in found["newest"].requirements[1:])
    assert "papermill" in found["newest"].requirements


def test_the_floor_is_not_above_the_package_s_own_floors():
    """What pyproject.toml promises is what the floor stack tries, except torch (see its file)."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("\ndependencies = [")[1].split("\n]")[0]
    lowest = [Requirement(line.strip(' ",')) for line in block.strip().splitlines()]
    floor = dict(line.split("==") for line in stacks.named("floor").requirements)
    for one in lowest:
        if one.name in floor:
            assert Version(floor[one.name]) in one.specifier, one
        if one.name in ("transformers", "peft", "trl", "datasets", "accelerate", "ipywidgets"):
            promised = Version(next(iter(one.specifier)).version)
            assert Version(floor[one.name]).release[: len(promised.release)] == promised.release


def test_an_unknown_stack_is_wrong_use(run):
    code, text = run("--stacks", "pinned,oldest", command="matrix")
    assert code == 2 and "Unknown stack 'oldest': choose from pinned, floor, newest" in text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "The conflict is caused by:\n    The user requested a==1\n    b 2 depends on a>=2\n\nTo fix\n",
            "The user requested a==1; b 2 depends on a>=2",
        ),
        (
            "WARNING: x\nERROR: No matching distribution found for a==9\n",
            "ERROR: No matching distrib",
        ),
        ("", "pip failed"),
    ],
)
def test_pip_s_reason_in_one_line(said, words):
    assert stacks.why(said).startswith(words)


def test_an_environment_is_kept_by_what_it_holds():
    one, other = stacks.folder_of("x", ["a==1"]), stacks.folder_of("x", ["a==2"])
    assert one != other and one == stacks.folder_of("x", ["a==1"])


def test_an_environment_is_built_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setenv("PEFTHELPERS_CACHE", str(tmp_path))
    monkeypatch.setattr(stacks, "resolved", lambda stack: ["a==1", "torch==2.13.0+cpu"])
    monkeypatch.setattr(stacks, "pip", lambda python, *rest: calls.append(rest))
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: Path(command[-1]).mkdir(parents=True)
    )
    stack = stacks.Stack("made", ("torch==2.13.0", "a==9"))
    first = stacks.python_of(stack)
    assert calls[0] == ("install", "--quiet", "torch==2.13.0") and len(calls) == 2
    assert stacks.python_of(stack) == first and len(calls) == 2


def broken(stack):
    raise stacks.BuildError("ERROR: No matching distribution found for peft==99")


@pytest.mark.parametrize("good", [True, False])
def test_the_matrix_names_cell_error_and_drift(run, make_notebook, tmp_path, monkeypatch, good):
    """Two stacks for the price of one environment: both are this one."""
    here = "import os\nassert os.environ['PYTHONPATH'].endswith('src')"
    path = make_notebook(here if good else "x = {}\nx['gone']")
    monkeypatch.setattr(stacks, "python_of", lambda stack: sys.executable)
    out = tmp_path / "out"
    code, text = run(path, "--stacks", "pinned", "--out", out, command="matrix")
    assert code == (0 if good else 1)
    column = json.loads((out / "matrix.json").read_text())["columns"][0]
    assert column["versions"]["peft"] and column["results"]["99_made"]["seconds"] > 0
    if not good:
        assert "99_made: failed: cell 1 [cell-1] (x = {}): KeyError: 'gone'" in text
        assert "KeyError: &#39;gone&#39;" in (out / "matrix.html").read_text()


def test_a_stack_that_cannot_be_built_leaves_the_others_their_row(
    run, make_notebook, tmp_path, monkeypatch
):
    monkeypatch.setattr(stacks, "python_of", broken)
    out = tmp_path / "out"
    code, text = run(make_notebook("1"), "--stacks", "pinned,floor", "--out", out, command="matrix")
    assert code == 1 and text.count("no build") == 2
    assert "the environment could not be built: ERROR: No matching distribution" in text
    assert len(json.loads((out / "matrix.json").read_text())["columns"]) == 2


FAILED = Result("02_lora", "failed", cell=7, cell_id="train", reason="cell 7: TypeError: no")
TABLE = matrix.Table(
    ["02_lora"],
    [
        matrix.Column("pinned", results={"02_lora": Result("02_lora", "passed", seconds=60)}),
        matrix.Column("floor", results={"02_lora": FAILED}),
        matrix.Column("newest", error="could not be built"),
    ],
)


def test_an_issue_is_opened_for_a_new_failure_alone(tmp_path):
    gh, log = tmp_path / "gh", tmp_path / "log"
    gh.write_text(
        f"#!{sys.executable}\nimport json, sys\nopen({str(log)!r}, 'a').write(json.dumps(sys.argv) + '\\n')\n"
        'print(\'[{"title": "Matrix: no environment for newest"}]\')\n'
    )
    gh.chmod(0o755)
    matrix.write(TABLE, tmp_path)
    command = [sys.executable, ROOT / ".ci" / "open_issues.py", tmp_path / "matrix.json"]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert "opened: Matrix: 02_lora failed on floor at train" in done.stdout
    assert "known: Matrix: no environment for newest" in done.stdout
    assert len(log.read_text().splitlines()) == 2  # one question, one issue


def test_the_workflows_run_what_there_is():
    found = {
        path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob(".github/workflows/*")
    }
    assert set(found) == {"tests", "matrix"}
    for workflow in found.values():
        assert workflow["permissions"]["contents"] == "read"
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                target = step.get("run", "make test").split()
                makefile = (ROOT / "Makefile").read_text()
                known = (
                    f"\n{target[1]}:" in makefile
                    if target[0] == "make"
                    else (ROOT / target[1]).exists()
                )
                assert known, step
    assert "pefthelpers matrix" in (ROOT / "Makefile").read_text()
    assert cli.parser().parse_args(["matrix"]).stacks == "pinned,floor,newest"
