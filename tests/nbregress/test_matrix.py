"""The matrix: its stacks, its table, what it does when one cannot be built, and its workflow."""

import configparser
import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from nbregress import cli, matrix, notebooks
from nbregress.result import Result

ROOT = notebooks.notebooks_dir().resolve().parent


def lines_of(name):
    """Return the requirements of a file: no comments, no blank lines."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in lines if line]


def declared():
    """Return pyproject.toml's requirements: of the package and of the extra ``run``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [
        Requirement(line)
        for line in project["dependencies"] + project["optional-dependencies"]["run"]
    ]


def test_every_stack_asks_for_torch_first_and_by_the_pinned_version():
    said = configparser.ConfigParser(inline_comment_prefixes="#")
    said.read(ROOT / "tox.ini")
    first, *others = said["testenv"]["deps"].split("\n")[1:]
    assert first == "-r requirements-torch.txt"  # of every environment: it names none
    (torch,) = lines_of("requirements-torch.txt")
    assert torch.startswith("torch==")
    assert not [line for line in lines_of("requirements.txt") if line.startswith("torch==")]
    files = dict(line.split(": ", 1) for line in others)
    assert tuple(files) == matrix.STACKS == tuple(said["tox"]["env_list"].split(", "))
    assert files["newest"] == ".[run]" and files["pinned"] == "-r requirements.txt"
    assert all(
        "==" in line and "torch==" not in line for line in lines_of("requirements-floor.txt")
    )


def test_the_floor_is_not_above_the_package_s_own_floors():
    """What pyproject.toml promises is what the floor stack tries, except torch (see its file)."""
    floor = dict(line.split("==") for line in lines_of("requirements-floor.txt"))
    for one in declared():
        if one.name == "torch":
            continue
        assert one.name in floor, f"add {one.name} to requirements-floor.txt"
        assert Version(floor[one.name]) in one.specifier, one
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
    assert matrix.why(said).startswith(words)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Return a function that gives the stack ``floor`` of a checkout of its own other requirements."""
    monkeypatch.setattr(matrix, "root", lambda: tmp_path)
    monkeypatch.setenv("PEFTHELPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    def ask(requirement):
        text = "[tox]\nno_package = true\nenv_list = floor\n[testenv]\ndeps = "
        (tmp_path / "tox.ini").write_text(f"{text}{requirement}\n")
        return matrix.python_of("floor", sys.executable)

    return ask


def wheel(folder, version):
    """Write the wheel of a package without a line of code."""
    info, path = f"made-{version}.dist-info", folder / f"made-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: made\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_tox_keeps_an_environment_by_what_it_holds(toy, tmp_path):
    def version(python):
        ask = "import importlib.metadata as m; print(m.version('made'))"
        return subprocess.check_output([python, "-c", ask], text=True).strip()

    python = Path(toy(wheel(tmp_path, "1")))
    assert version(python) == "1" and python.is_relative_to(tmp_path / "cache" / "stacks")
    mark = python.parent / "mark"
    mark.touch()
    assert Path(toy(wheel(tmp_path, "1"))) == python and mark.exists()  # the same one
    assert version(toy(wheel(tmp_path, "2"))) == "2" and not mark.exists()  # built anew
    with pytest.raises(
        ChildProcessError, match="^ERROR: No matching distribution found for gone==1"
    ):
        toy("gone==1")
    assert (
        version(toy(wheel(tmp_path, "2"))) == "2"
    )  # a build that failed leaves nothing to be taken


def test_the_newest_stack_is_built_anew_and_another_python_is_passed_on(monkeypatch):
    asked = []
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command) or done)
    for stack, python in (("newest", "python3.13"), ("floor", "python3.10")):
        matrix.python_of(stack, python)
        assert f"testenv.base_python={python}" in asked[-1]
    assert ["--recreate" in command for command in asked] == [True, False]


def test_a_stack_may_have_another_python(tmp_path):
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    found = matrix.stacks(["pinned", "floor"], [f"floor={other}"])
    assert found == {"pinned": sys.executable, "floor": str(other)}


def test_the_running_environment_serves_the_pinned_stack_if_it_holds_its_pins(monkeypatch):
    monkeypatch.setattr(matrix, "installed_here", lambda: True)
    assert matrix.python_of("pinned", sys.executable) == sys.executable
    monkeypatch.undo()
    monkeypatch.setattr(matrix, "version", lambda name: "0.0.1")
    assert not matrix.installed_here()


def test_without_tox_the_sentence_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tox", None)
    code, text = run(command="matrix")
    assert code == 2 and "pip install 'pefthelpers[test]'" in text


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


def broken(stack, python):
    raise ChildProcessError("ERROR: No matching distribution found for peft==99")


@pytest.mark.parametrize("good", [True, False])
def test_the_matrix_names_cell_error_and_drift(run, make_notebook, tmp_path, monkeypatch, good):
    """Two stacks for the price of one environment: both are this one."""
    here = "import os\nassert os.environ['PYTHONPATH'].endswith('src')"
    path = make_notebook(here if good else "x = {}\nx['gone']")
    monkeypatch.setattr(matrix, "python_of", lambda stack, python: sys.executable)
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
    monkeypatch.setattr(matrix, "python_of", broken)
    out = tmp_path / "out"
    code, text = run(make_notebook("1"), "--stacks", "pinned,floor", "--out", out, command="matrix")
    assert code == 1 and text.count("no build") == 2
    assert "the environment could not be built: ERROR: No matching distribution" in text
    assert len(json.loads((out / "matrix.json").read_text())["columns"]) == 2


def test_a_matrix_that_is_stopped_says_what_it_never_reached(make_notebook, tmp_path, monkeypatch):
    def stop(stack, python):
        if stack == "floor":
            raise KeyboardInterrupt
        raise ChildProcessError("no")

    monkeypatch.setattr(matrix, "python_of", stop)
    wanted = dict.fromkeys(matrix.STACKS, sys.executable)
    with pytest.raises(KeyboardInterrupt):
        matrix.run(wanted, [make_notebook("1")], tmp_path / "out", jobs=1, profile="tiny")
    columns = json.loads((tmp_path / "out" / "matrix.json").read_text())["columns"]
    assert [column["error"] for column in columns[1:]] == [
        "the matrix ended before it came to this stack"
    ] * 2


FAILED = Result(
    "02_lora", "failed", cell=7, cell_id="train", reason="cell 7: TypeError: no", traceback="line 3"
)
TABLE = matrix.Matrix(
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

    log.touch()

    def report(**ended):
        command = [sys.executable, ROOT / ".ci" / "open_issues.py", tmp_path / "matrix.json"]
        done = subprocess.run(
            command, check=True, env=environment | ended, capture_output=True, text=True
        )
        return done.stdout, [json.loads(line) for line in log.read_text().splitlines()]

    return report


def test_an_issue_is_opened_for_a_new_failure_alone(forge, tmp_path):
    TABLE.write(tmp_path)
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


@pytest.mark.parametrize(("ended", "opened"), [("failure", True), ("success", False)])
def test_an_audit_that_found_something_opens_an_issue(forge, ended, opened):
    said, _ = forge(MATRIX="success", AUDIT=ended)
    assert ("opened: Audit: a pinned package has a known hole" in said) == opened
    assert "opened: Matrix" not in said


@pytest.fixture(scope="module")
def workflows():
    """Return the workflow files by name."""
    return {
        path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob(".github/workflows/*")
    }


def test_the_workflows_run_what_there_is(workflows):
    assert set(workflows) == {"tests", "matrix", "book"}
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
    assert cli.TOP.parse_args(["matrix"]).stacks == "pinned,floor,newest"


def test_what_runs_foreign_packages_may_not_write(workflows):
    for workflow in workflows.values():
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            installs = any("make" in step.get("run", "") for step in job["steps"])
            assert "timeout-minutes" in job
            assert not (installs and "permissions" in job)
            found = [s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")]
            assert found == job["steps"][:1] or not any("run" in step for step in job["steps"])
            assert all(step["with"]["persist-credentials"] is False for step in found)
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
    assert f"recorded on {versions[-1]}" in (ROOT / "README.md").read_text()
