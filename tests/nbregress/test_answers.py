"""Exercises filled with their solutions and held against what the checks say; a learner's copy without solutions."""

import json

import pytest

from nbregress import answers, notebooks

ALL = [
    path
    for path in notebooks.find([])
    if any("exercise" in notebooks.tags(c) for c in notebooks.read(path).cells)
]
STUB = "from pefthelpers.checks import start as check\nanswer = ...\ncheck.first_try(answer)"
RIGHT = STUB.replace("...", "['prompt', 'retrieval', 'fine-tuning', 'fine-tuning']")
WRONG = STUB.replace("...", "['prompt', 'prompt', 'fine-tuning', 'fine-tuning']")


@pytest.fixture
def with_exercise(make_notebook):
    """Return a function: the path of a notebook whose one exercise has this stub and this solution."""

    def make(stub, solution):
        path = make_notebook(stub)
        book = json.loads(path.read_text())
        book["cells"][1]["metadata"]["tags"] = ["exercise"]
        text = f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n</details>\n\nGo on."
        folded = {
            "cell_type": "markdown",
            "id": "solution-1",
            "source": text,
            "metadata": {"tags": ["solution"]},
        }
        book["cells"].append(folded)
        path.write_text(json.dumps(book))
        return path

    return make


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_stub_has_a_solution_and_a_learner_s_copy_has_none(path):
    book = notebooks.read(path)
    count = answers.solve(book)
    assert count and all(
        "..." not in c.source for c in book.cells if "exercise" in notebooks.tags(c)
    )
    bare = notebooks.read(path)
    before = [cell.source for cell in notebooks.code_cells(bare)]
    assert answers.strip(bare) == count
    assert not any("<summary>Solution" in cell.source for cell in bare.cells)
    assert [cell.source for cell in notebooks.code_cells(bare)] == before
    kept = "\n".join(cell.source for cell in bare.cells)
    assert all(f"**{number + 1} (" in kept for number in range(count))


@pytest.mark.parametrize(
    ("stub", "solution", "wanted", "code", "sentence"),
    [
        (STUB, RIGHT, "solutions", 0, "1 passed"),
        (STUB, RIGHT, "stubs", 0, "1 passed"),
        (STUB, WRONG, "solutions", 1, "its check says 'not yet', not 'correct'"),
        (RIGHT, RIGHT, "stubs", 1, "its check says 'correct', not 'not attempted'"),
        ("answer = ...", RIGHT, "stubs", 1, "its check says 'nothing', not 'not attempted'"),
    ],
)
def test_a_run_with_answers_reads_the_verdicts_back(
    stub, solution, wanted, code, sentence, with_exercise, run, tmp_path
):
    ended, text = run(with_exercise(stub, solution), "--answers", wanted, "--out", tmp_path / "out")
    assert ended == code and sentence in text


def test_solve_writes_a_teacher_s_and_a_learner_s_copy(with_exercise, run, tmp_path):
    path, out = with_exercise(STUB, RIGHT), tmp_path / "out.ipynb"
    code, text = run(path, "--out", out, command="solve")
    assert (
        code == 0
        and "1 solutions filled in" in text
        and notebooks.read(out).cells[1].source == RIGHT
    )
    code, text = run(path, "--out", out, "--strip", command="solve")
    cells = notebooks.read(out).cells
    assert code == 0 and "1 solutions taken out" in text
    assert [cell.source for cell in cells[1:]] == [STUB, "Go on."]
    code, text = run(path, "--out", path, command="solve")
    assert code == 2 and "choose another file" in text
