"""Each minimal recipe, executed as it stands on the kitchen decoder: trained, reloaded, asked."""

import gc
import runpy
import time

import pytest
import torch
import yaml

import peftbottleneck  # noqa: F401 - takes a while: not part of a recipe's time
import peftguide
from pefthelpers import methods
from pefthelpers.paths import data_dir

CPU_SECONDS = 15


@pytest.fixture(scope="module", autouse=True)
def lean():
    """Spare what costs more than a recipe's own work: threads, and collecting old modules."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Return a function that writes a recipe for the kitchen decoder into an empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(method):
        text = peftguide.recipe(method)
        assert text.count('MODEL = "data/kitchen/decoder"') == 1
        decoder = (data_dir() / "kitchen" / "decoder").as_posix()
        path = tmp_path / f"{method}.py"
        path.write_text(text.replace("data/kitchen/decoder", decoder))
        return path

    return write


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", methods.LABELS)
def test_a_recipe_trains_saves_reloads_and_answers(method, script, capsys):
    path = script(method)
    start = time.process_time()
    ran = runpy.run_path(str(path))
    assert time.process_time() - start < CPU_SECONDS
    assert any((path.parent / f"tuned-{method}").glob("*.safetensors"))
    assert ran["PAIR"]["prompt"] in capsys.readouterr().out
    trained = [p for p in ran["tuned"].parameters() if p.requires_grad]
    assert trained and ran["trainer"].state.global_step == ran["steps"]["max_steps"]


def test_there_is_one_recipe_a_method():
    for method in methods.METHODS:
        assert f'"tuned-{method}"' in peftguide.recipe(method)
    noted = yaml.safe_load((data_dir() / "recipes.yaml").read_text(encoding="utf-8"))
    assert list(noted) == list(methods.METHODS)


@pytest.mark.parametrize("method", methods.LABELS)
def test_a_recipe_is_short_and_names_its_source(method):
    lines = peftguide.recipe(method).splitlines()
    code = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", '"""'))]
    assert len(code) <= 34 and len(lines) <= 42
    cell = peftguide.configuration(method)
    assert "(20" in cell or ", 20" in cell, "the learning rate names author and year"
