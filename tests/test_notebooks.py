"""Every notebook of the collection: its style, its links, and one whole run in the tiny profile."""

import json

import pytest

from pefthelpers import isolated, lint, notebooks, runner
from pefthelpers.paths import data_dir

NOTEBOOKS = notebooks.find([])
STEMS = [path.stem for path in NOTEBOOKS]
ROOT = notebooks.notebooks_dir().parent


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_style(path):
    assert lint.problems(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_outputs_are_recorded(path):
    notebook = notebooks.read(path)
    shown = [cell for cell in notebook.cells if cell.get("outputs")]
    assert len(shown) > 10, f"run pefthelpers record {path.stem}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_the_readme_links_it(path):
    assert f"notebooks/{path.name}" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Run the whole collection once, two notebooks at a time, as ``make run`` does."""
    out = tmp_path_factory.mktemp("runs")
    with runner.local_pool(2) as pool:
        results = runner.run(
            NOTEBOOKS, out, {"PROFILE": "tiny"}, executor=pool, threads=1, cell_timeout_s=300
        )
    return {result.notebook: result for result in results}


@pytest.mark.notebook
@pytest.mark.parametrize("stem", STEMS)
def test_it_runs(runs, stem):
    assert runs[stem].status == "passed", runs[stem].reason


@pytest.mark.notebook
@pytest.mark.parametrize("stem", STEMS)
def test_it_measures_what_was_recorded(runs, stem):
    if stem == "05b_adapterhub" and isolated.adapterhub_python() is None:
        pytest.skip("only `make adapterhub` and .ci/run build the environment that it measures in")
    recorded = json.loads((data_dir() / "baselines" / f"{stem}.tiny.json").read_text())["metrics"]
    measured = runs[stem].metrics
    assert set(measured) == set(recorded)
    for name, metric in recorded.items():
        assert measured[name]["unit"] == metric["unit"], name
        if metric["unit"] in ("parameters", "bytes"):
            assert measured[name]["value"] == metric["value"], name
        if metric["unit"] == "share":
            assert measured[name]["value"] == pytest.approx(metric["value"], abs=0.1), name


def test_checksums_are_fresh():
    import subprocess
    import sys

    script = data_dir() / "scripts" / "checksums.py"
    command = [sys.executable, script, "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
