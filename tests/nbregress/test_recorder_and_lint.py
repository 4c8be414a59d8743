"""Recording outputs, and the checks of a notebook file."""

import json
import subprocess
import sys

import nbformat
import pytest

from nbregress import lint, notebooks, recorder
from pefthelpers.errors import UserError

ROOT = notebooks.notebooks_dir().resolve().parent
CELLS = (
    "from pefthelpers.record import record\nrecord('loss', 0.5, unit='nats')",
    "print('hello')",
)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Keep what a recording writes out of the repository."""
    monkeypatch.setattr(recorder, "data_dir", lambda: tmp_path / "data")
    return tmp_path / "data"


def test_outputs_are_copied_by_cell_id_and_normalised(make_notebook, data):
    path = make_notebook(*CELLS)
    before = [cell.id for cell in notebooks.read(path).cells]
    recorder.record(path, "tiny")
    notebook = notebooks.read(path)
    assert [cell.id for cell in notebook.cells] == before  # no injected cell
    assert notebook.cells[2].outputs[0].text == "hello\n"
    assert all(cell.execution_count is None for cell in notebook.cells)
    assert "papermill" not in json.dumps(notebook)
    assert not lint.stale(notebook)
    baseline = json.loads((data / "baselines" / "99_made.tiny.json").read_text())
    assert baseline["metrics"] == {"loss": {"value": 0.5, "unit": "nats"}}
    assert {"date", "versions", "processor", "seconds"} <= set(baseline)


def test_a_failing_notebook_keeps_its_file(make_notebook, data):
    path = make_notebook("1 / 0")
    before = path.read_bytes()
    with pytest.raises(UserError, match="ZeroDivisionError"):
        recorder.record(path, "tiny")
    assert path.read_bytes() == before and not (data / "baselines").exists()


def test_a_changed_cell_makes_outputs_stale_and_fix_strips_them(make_notebook, data):
    path = make_notebook(*CELLS)
    recorder.record(path, "tiny")
    notebook = notebooks.read(path)
    notebook.cells[2].source = "print('changed')"
    nbformat.write(notebook, path)
    assert any("outputs are stale" in problem for problem in lint.problems(path))
    lint.fix(path)
    assert not any(cell.get("outputs") for cell in notebooks.read(path).cells)
    assert not any("stale" in problem for problem in lint.problems(path))


def test_fix_writes_the_set_up_cell(make_notebook):
    path = make_notebook("import sys")
    notebook = notebooks.read(path)
    notebook.cells[1].metadata["tags"] = ["setup"]
    nbformat.write(notebook, path)
    lint.fix(path)
    assert not any("set-up" in problem for problem in lint.problems(path))
    assert lint.repository() in notebooks.read(path).cells[1].source


def found(make_notebook, change, *sources):
    path = make_notebook(*sources)
    notebook = notebooks.read(path)
    change(notebook)
    nbformat.write(notebook, path)
    return " | ".join(lint.problems(path))


def nothing(notebook):
    pass


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("\n".join(f"x{i} = {i}" for i in range(26)), "26 lines of code, more than 25"),
        ("try:\n    x = 1\nexcept ValueError:\n    x = 2", "a try block"),
        ("!pip install torch", "a pip call"),
        ("open('/home/chef/notes.txt')", "a path of a machine"),
    ],
)
def test_code_cells_are_checked(make_notebook, source, problem):
    assert problem in found(make_notebook, nothing, source)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x = '" + "y " * 60 + "'", "E501"),
        ("from torch import *", "F403"),
        ("import logging", "TID251 `logging` is banned: A notebook prints."),
        ("import argparse", "TID251"),
        ("from nbregress import lint", "no notebook imports it"),
        ("def f():\n    import studies.engine", "Nothing imports the studies"),
        ("x = = 1", "invalid-syntax"),
        ("import math", "F401"),
        ("import pefthelpers", ""),
    ],
)
def test_ruff_checks_code_cells(make_notebook, source, problem):
    """With the rules of pyproject.toml, as a notebook of the collection."""
    path = make_notebook(source)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    name = ["--stdin-filename", str(ROOT / "notebooks" / path.name), "-"]
    done = subprocess.run(
        ruff + name, check=False, input=path.read_text(), capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == (1 if problem else 0), done.stdout
    assert problem in done.stdout


def markdown(text):
    return lambda notebook: notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (markdown("word " * 131), "131 words, more than 130"),
        (markdown("LoRA needs 17.4 GiB here."), "types a number into prose"),
        (lambda n: n.metadata.update(widgets={}), "widget state is committed"),
        (lambda n: n.metadata.pop("language_info"), "language_info is missing"),
        (lambda n: n.metadata.update(kernelspec={"name": "x"}), "kernelspec must be python3"),
        (lambda n: n.cells[0].metadata.clear(), "exactly one cell tagged parameters"),
        (nothing, "the Colab badge does not follow pyproject.toml"),
        (nothing, "the set-up cell is missing or differs"),
        (nothing, "fewer than three cells tagged exercise"),
        (nothing, "words of prose; the guide is"),
    ],
)
def test_notebooks_are_checked(make_notebook, change, problem):
    assert problem in found(make_notebook, change, "x = 1")


@pytest.mark.parametrize(
    ("name", "may_be_short"),
    [("02_lora", False), ("02b_lora_in_depth", True), ("00_start_here", True), ("10_out", False)],
)
def test_a_companion_and_the_page_to_start_with_may_be_short(make_notebook, name, may_be_short):
    problems = lint.problems(make_notebook("x = 1", name=f"{name}.ipynb"))
    said = ("words of prose; the guide is", "fewer than three cells tagged exercise")
    assert all(any(each in problem for problem in problems) is not may_be_short for each in said)


def shows(page, *after):
    """Return a change: a cell that shows a page, and what follows it."""

    def change(notebook):
        output = nbformat.v4.new_output("display_data", {"text/html": page})
        notebook.cells.append(nbformat.v4.new_code_cell("show()", outputs=[output]))
        notebook.cells.extend(after)

    return change


FIGURE = '<img alt="A curve." src="data:,">'
CAPTION = nbformat.v4.new_markdown_cell("**Figure.** Look at the end of the curve.")
CODE = nbformat.v4.new_code_cell("y = 2")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda n: n.cells.extend(nbformat.v4.new_markdown_cell() for _ in range(80)),
            "82 cells, more than 80",
        ),
        (nothing, "0 words of prose per code cell, fewer than 50"),
        (markdown("word " * 99), "fewer than 50"),
        (
            lambda n: n.cells.extend([CODE, nbformat.v4.new_code_cell()]),
            "cell 3 is code number 3 without a word between",
        ),
        (shows(FIGURE), "cell 2 shows a figure, and no caption follows"),
        (shows(FIGURE, CODE, CAPTION), "cell 2 shows a figure, and no caption follows"),
        (shows("<svg></svg>"), "cell 2 shows a figure, and no caption follows"),
        (shows(FIGURE.replace("A curve.", ""), CAPTION), "a figure without alt text"),
        (shows("<table></table>"), "cell 2 shows a table, and no text follows"),
        (nothing, "0 headings of the first level, not one"),
        (markdown("# One\n\n# Two"), "2 headings of the first level, not one"),
        (markdown("# One\n\n### Three"), "a level is left out above the heading 'Three'"),
        (markdown("## Two"), "a level is left out above the heading 'Two'"),
    ],
)
def test_a_reader_is_led(make_notebook, change, problem):
    assert problem in found(make_notebook, change, "x = 1")


def test_a_telling_that_leads_is_welcome(make_notebook):
    def change(notebook):
        markdown("word " * 130)(notebook)
        notebook.cells[1].metadata["tags"] = [
            "parameters"
        ]  # which does not count: the opening cells need no words
        shows(FIGURE + "<table></table>", CAPTION)(notebook)
        notebook.cells.insert(3, nbformat.v4.new_markdown_cell("word " * 30))

    said = found(make_notebook, change, "x = 1")
    for rule in ("cells, more", "per code cell", "in a row", "figure", "table", "without a word"):
        assert rule not in said


def test_headings_in_order_are_welcome(make_notebook):
    text = "# One\n\n## Two\n\n### Three\n\n```python\n# a comment\n```\n\n## Two again"
    said = found(make_notebook, markdown(text), "x = 1")
    assert "heading" not in said


def test_a_cited_number_is_welcome(make_notebook):
    text = "The paper reports a 25 % speed-up (Hu et al. 2021, section 4.2)."
    assert "types a number" not in found(make_notebook, markdown(text), "x = 1")


def test_a_stamp_names_the_stack_and_the_processor():
    from nbregress.stamp import stamp

    found = stamp()
    assert {"torch", "transformers", "peft"} <= set(found["versions"])
    assert found["processor"] and len(found["date"]) == 10
