"""Cells that run in another Python: here in this one, whose environment is sure to exist."""

import sys
from pathlib import Path

import pytest

from nbregress import cli, notebooks
from peftbottleneck import hub_kernel
from peftbottleneck.errors import AdapterError


@pytest.fixture
def other():
    """Return an interpreter of its own that is this environment's Python."""
    started = hub_kernel.Interpreter(Path(sys.executable))
    yield started
    started.close()


def test_names_are_kept_and_the_last_expression_comes_back(other, capsys):
    assert other.ready
    assert other.run("x = 2") is None
    assert other.run("print('warm')\nx * 21") == 42 == other.value
    assert capsys.readouterr().out == "warm\n"
    assert other.run("[1.5, 'a', None]") == [1.5, "a", None]
    assert other.run("object") == "<class 'object'>"


def test_what_bypasses_print_does_not_disturb_the_answers(other):
    assert other.run("import os\nos.write(1, b'noise') and os.system('echo noise')\n7") == 7


def test_the_process_is_free_of_this_environments_path(other, monkeypatch):
    here = Path(hub_kernel.__file__).parent
    assert other.run("import sys\nsys.path").count(str(here)) == 0


def test_an_error_names_itself_and_the_process_lives_on(other):
    with pytest.raises(AdapterError, match="failed in AdapterHub's environment: ZeroDivisionError"):
        other.run("1 / 0")
    with pytest.raises(AdapterError, match="SyntaxError"):
        other.run("x = = 1")
    assert other.run("3") == 3


DIED = r"process died \(exit code {}\): run the notebook from its start; .* `make adapterhub`"


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.write(3, b'{'), os._exit(0)", 0),  # cut off in its answer
        ("raise SystemExit(4)", 4),
    ],
)
def test_a_process_that_died_is_a_sentence_in_each_cell_after_it(other, ending, code):
    with pytest.raises(AdapterError, match=DIED.format(code)):
        other.run(f"import os\n{ending}")
    for cell in ("1", "x = '" + "long " * 50_000 + "'"):  # more than a pipe holds
        with pytest.raises(AdapterError, match=DIED.format(code)):
            other.run(cell)


def test_a_process_that_died_between_two_cells_is_a_sentence(other):
    assert other.run("1") == 1
    other._process.kill()
    with pytest.raises(AdapterError, match=DIED.format(-9)):
        other.run("2")


def test_without_an_interpreter_a_cell_says_so(capsys):
    missing = hub_kernel.Interpreter(None)
    assert not missing.ready
    assert missing.run("1 / 0") is None
    assert capsys.readouterr().out == "Not run: AdapterHub's environment is not here.\n"
    missing.close()


def test_the_environment_is_looked_for_where_make_builds_it(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTERHUB_PYTHON", str(tmp_path / "python"))
    assert hub_kernel.adapterhub_python() is None
    (tmp_path / "python").write_text("")
    assert hub_kernel.adapterhub_python() == tmp_path / "python"
    monkeypatch.delenv("ADAPTERHUB_PYTHON")
    found = hub_kernel.adapterhub_python()
    assert found in (None, notebooks.notebooks_dir().parent / ".venv-adapterhub/bin/python")


START = """from peftbottleneck import hub_kernel
hub = hub_kernel.start()
assert hub.ready or not REQUIRED, hub_kernel.MISSING
print(hub_kernel.MISSING)"""


@pytest.mark.parametrize(
    ("required", "code", "sentence"), [(False, 0, ""), (True, 1, hub_kernel.MISSING)]
)
def test_a_notebook_without_it_ends_green_unless_it_is_required(
    make_notebook, tmp_path, monkeypatch, capsys, required, code, sentence
):
    monkeypatch.setenv("ADAPTERHUB_PYTHON", str(tmp_path / "missing"))
    parameters = f'PROFILE = "tiny"\nSEED = 0\nREQUIRED = {required}'
    path = make_notebook(START, "%%adapterhub\n1 / 0", parameters=parameters)
    assert cli.main(["run", str(path), "--out", str(tmp_path / "out")]) == code
    assert sentence in capsys.readouterr().out
    assert hub_kernel.MISSING in (tmp_path / "out" / path.name).read_text()
