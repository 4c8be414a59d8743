"""The matrix: its stacks, its table, what it does when one cannot be built, and its workflow."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nbregress import cli, matrix, notebooks, stacks
from nbregress.result import Result

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
    lines = [line.strip(' ",') for line in block.strip().splitlines()]
    lowest = [Requirement(line) for line in lines if not line.startswith("#")]
    floor = dict(line.split("==") for line in stacks.named("floor").requirements)
    for one in lowest:
        assert one.name in floor, f"add {one.name} to requirements-floor.txt"
        assert one.name == "torch" or Version(floor[one.name]) in one.specifier, one
        if one.name in ("transformers", "peft", "trl", "datasets", "accelerate", "ipywidgets"):
            promised = Version(next(s.version for s in one.specifier if s.operator == ">="))
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


def test_an_environment_is_kept_by_what_it_holds(monkeypatch):
    made = stacks.Stack("x", ())
    one, other = stacks.folder_of(made, ["a==1"]), stacks.folder_of(made, ["a==2"])
    assert one != other and one == stacks.folder_of(made, ["a==1"])
    monkeypatch.setattr(stacks, "python_version", lambda python: "3.99.0")
    assert stacks.folder_of(made, ["a==1"]) != one


def test_a_stack_may_have_another_python(tmp_path):
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    assert stacks.pythons([f"floor={other}"]) == {"floor": str(other)}
    assert stacks.named("floor", str(other)).python == str(other)
    assert stacks.named("pinned").python == sys.executable


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        ("floor=no-such-python", "'no-such-python' does not start"),
        ("floor=false", "'false' does not start"),
        ("oldest=python3", "--python takes STACK=PROGRAM, STACK one of pinned, floor, newest"),
        ("python3.10", "--python takes STACK=PROGRAM"),
    ],
)
def test_a_python_that_is_none_is_wrong_use(run, python, sentence):
    code, text = run("--python", python, command="matrix")
    assert code == 2 and sentence in text and len(text.strip().splitlines()) == 1


def test_an_environment_is_built_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setenv("PEFTHELPERS_CACHE", str(tmp_path))
    monkeypatch.setattr(stacks, "resolved", lambda stack: ["a==1", "torch==2.13.0+cpu"])
    monkeypatch.setattr(stacks, "python_version", lambda python: "3.11.7")
    monkeypatch.setattr(stacks, "pip", lambda python, *rest: calls.append(rest))
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: Path(command[-1]).mkdir(parents=True)
    )
    stack = stacks.Stack("made", ("torch==2.13.0", "a==9"))
    first = stacks.python_of(stack)
    assert calls[0] == ("install", "--quiet", "torch==2.13.0") and len(calls) == 2
    assert stacks.python_of(stack) == first and len(calls) == 2


def test_a_build_that_failed_half_way_is_built_again(tmp_path, monkeypatch):
    tries = []

    def pip(python, *rest):
        tries.append(rest)
        if len(tries) == 2:
            raise stacks.BuildError("no room")

    monkeypatch.setenv("PEFTHELPERS_CACHE", str(tmp_path))
    monkeypatch.setattr(stacks, "resolved", lambda stack: ["torch==2.13.0"])
    monkeypatch.setattr(stacks, "python_version", lambda python: "3.11.7")
    monkeypatch.setattr(stacks, "pip", pip)
    monkeypatch.setattr(subprocess, "run", lambda command, check: os.makedirs(command[-1]))
    stack = stacks.Stack("made", ("torch==2.13.0", "a==9"))
    with pytest.raises(stacks.BuildError):
        stacks.python_of(stack)
    monkeypatch.setattr(subprocess, "run", lambda command, check: None)
    stacks.python_of(stack)
    assert len(tries) == 4


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
    assert f"Python {platform.python_version()}, torch" in text
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


def test_a_matrix_that_is_stopped_says_what_it_never_reached(make_notebook, tmp_path, monkeypatch):
    def stop(stack):
        if stack.name == "floor":
            raise KeyboardInterrupt
        raise stacks.BuildError("no")

    monkeypatch.setattr(stacks, "python_of", stop)
    wanted = [stacks.named(name) for name in ("pinned", "floor", "newest")]
    with pytest.raises(KeyboardInterrupt):
        matrix.run(wanted, [make_notebook("1")], tmp_path / "out", jobs=1, profile="tiny")
    columns = json.loads((tmp_path / "out" / "matrix.json").read_text())["columns"]
    assert [column["error"] for column in columns[1:]] == [matrix.UNREACHED] * 2


FAILED = Result(
    "02_lora", "failed", cell=7, cell_id="train", reason="cell 7: TypeError: no", traceback="line 3"
)
TABLE = matrix.Table(
    ["02_lora"],
    [
        matrix.Column("pinned", results={"02_lora": Result("02_lora", "passed", seconds=60)}),
        matrix.Column("floor", python="3.10.1", results={"02_lora": FAILED}),
        matrix.Column("newest", error="could not be built"),
    ],
)


@pytest.fixture
def forge(tmp_path):
    """Put a program in place of ``gh``; return a function that reports and returns what gh was asked."""
    gh, log = tmp_path / "gh", tmp_path / "log"
    gh.write_text(
        f"#!{sys.executable}\nimport json, sys\nopen({str(log)!r}, 'a').write(json.dumps(sys.argv) + '\\n')\n"
        'print(\'[{"title": "Matrix: no result for newest"}]\')\n'
    )
    gh.chmod(0o755)
    run = {"GITHUB_SERVER_URL": "forge", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}
    environment = os.environ | run | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def report():
        command = [sys.executable, ROOT / ".ci" / "open_issues.py", tmp_path / "matrix.json"]
        done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
        return done.stdout, [json.loads(line) for line in log.read_text().splitlines()]

    return report


def test_an_issue_is_opened_for_a_new_failure_alone(forge, tmp_path):
    matrix.write(TABLE, tmp_path)
    said, asked = forge()
    assert "opened: Matrix: 02_lora failed on floor at train" in said
    assert "known: Matrix: no result for newest" in said
    assert len(asked) == 2  # one question, one issue
    body = asked[1][-1]
    assert "cell 7: TypeError: no" in body and "Python 3.10.1" in body and "line 3" in body
    assert body.endswith("forge/a/b/actions/runs/7")


def test_a_run_without_a_table_opens_an_issue_too(forge):
    said, asked = forge()
    assert "opened: Matrix: the run left no table" in said and len(asked) == 2


@pytest.fixture(scope="module")
def workflows():
    """Return the workflow files by name."""
    return {
        path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob(".github/workflows/*")
    }


def test_the_workflows_run_what_there_is(workflows):
    assert set(workflows) == {"tests", "matrix"}
    makefile = (ROOT / "Makefile").read_text()
    steps = [
        s for flow in workflows.values() for job in flow["jobs"].values() for s in job["steps"]
    ]
    commands = [step["run"].split()[:2] for step in steps if "run" in step]
    assert ["make", "test"] in commands and ["make", "matrix"] in commands
    for program, target in commands:
        made = program == "make" and f"\n{target}:" in makefile
        assert made or (program == "python3" and (ROOT / target).is_file()), (program, target)
    assert "pefthelpers matrix" in makefile
    assert cli.parser().parse_args(["matrix"]).stacks == "pinned,floor,newest"


def test_what_runs_foreign_packages_may_not_write(workflows):
    for workflow in workflows.values():
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            installs = any("make" in step.get("run", "") for step in job["steps"])
            assert "timeout-minutes" in job
            assert not (installs and "permissions" in job)
            checkout = job["steps"][0]
            assert checkout["uses"].startswith("actions/checkout@")
            assert checkout["with"]["persist-credentials"] is False
    assert workflows["matrix"]["jobs"]["issues"]["permissions"]["issues"] == "write"


def test_the_matrix_tries_the_oldest_python_that_is_promised(workflows):
    steps = workflows["matrix"]["jobs"]["matrix"]["steps"]
    setup = next(step for step in steps if "setup-python" in step.get("uses", ""))
    versions = setup["with"]["python-version"].split()
    matrix_step = next(step["run"] for step in steps if "matrix" in step.get("run", ""))
    asked = dict(one.split("=python") for one in re.findall(r"--python (\S+?)[' ]", matrix_step))
    assert set(asked) == {"floor", "newest"} and set(asked.values()) < set(versions)
    promised = (ROOT / "pyproject.toml").read_text().split('requires-python = ">=')[1]
    assert promised.startswith(f'{asked["floor"]}"')
    assert f"(Python {versions[-1]})" in (ROOT / "requirements.txt").read_text()
