"""Every notebook of the collection: its style, its links, and one whole run in the tiny profile."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from nbregress import answers, lint, notebooks, schedule
from nbregress.plan import Plan

NOTEBOOKS = notebooks.find([])
STEMS = [path.stem for path in NOTEBOOKS]
ROOT = notebooks.notebooks_dir().parent


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_style(path):
    assert lint.problems(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_outputs_are_recorded(path):
    notebook = notebooks.read(path)
    code = notebooks.code_cells(notebook)
    shown = [cell for cell in code if cell.outputs]
    assert len(shown) > len(code) / 3, f"run pefthelpers record {path.stem}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_the_readme_links_it(path):
    assert f"notebooks/{path.name}" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Run the whole collection once, two notebooks at a time, as ``make run`` does."""
    plan = Plan(timeout_s=600)
    with ThreadPoolExecutor(2) as pool:
        return schedule.run(NOTEBOOKS, tmp_path_factory.mktemp("runs"), plan, executor=pool)


@pytest.fixture(scope="session")
def runs(store):
    """Return each notebook's result."""
    return store.results


@pytest.mark.notebook
@pytest.mark.parametrize("stem", STEMS)
def test_it_runs_and_measures_what_was_recorded(runs, stem):
    assert runs[stem].status == "passed", runs[stem].reason
    if runs[stem].left_out:
        pytest.skip(runs[stem].left_out)  # .ci/run builds what is missing here
    assert runs[stem].notes == [], f"run pefthelpers record {stem}"


@pytest.mark.notebook
@pytest.mark.parametrize("stem", STEMS)
def test_every_exercise_is_a_stub_that_its_check_calls_not_attempted(store, stem):
    said = answers.verdicts(notebooks.parse(store.executed[stem], stem))
    solutions = [
        c
        for c in notebooks.read(NOTEBOOKS[STEMS.index(stem)]).cells
        if "solution" in notebooks.tags(c)
    ]
    assert set(said.values()) <= {"not attempted"} and len(said) == len(solutions)


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("stem", "name", "least", "most"),
    [
        ("02_lora", "article_steps", 18, 18),  # one epoch before the cut, one after
        ("04_prefix_tuning", "article_rouge1", 0.05, 1),
        ("05_adapters", "article_accuracy_0.001", 0.75, 1),
        ("05_adapters", "article_reload_difference", 0, 0),
        ("06_qlora", "article_model_ratio", 0.95, 1.25),
        ("06_qlora", "article_last_loss", 0.1, 6.3),  # below the logarithm of the vocabulary
    ],
)
def test_the_article_s_runs_went_to_their_end(runs, stem, name, least, most):
    assert least <= runs[stem].metrics[name]["value"] <= most


def test_checksums_are_fresh():
    import subprocess
    import sys

    command = [sys.executable, "-m", "studies.checksums", "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
