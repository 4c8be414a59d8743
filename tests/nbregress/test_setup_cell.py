"""The set-up cell of every notebook, as IPython reads it: `google.colab` and pip's findings are stand-ins."""

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from nbregress import lint

RELEASE = importlib.metadata.version("pefthelpers")
CELL = TransformerManager().transform_cell(lint.setup())


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the cell; it returns what the shell and pip were asked."""

    def execute(before, after, *, colab):
        have, asked = list(before), []

        def pip(magic, line):
            asked.append(f"{magic} {line}")
            have[:] = after

        found = lambda name: [SimpleNamespace(version=each) for each in have]
        monkeypatch.setattr(importlib.metadata, "distributions", found)
        if colab:
            monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        shell = SimpleNamespace(run_line_magic=pip, system=asked.append)
        exec(CELL, {"get_ipython": lambda: shell})  # noqa: S102 - our own cell
        return asked

    return execute


@pytest.mark.parametrize("version", [RELEASE, "9.9"])  # a clone may be ahead of its installation
def test_elsewhere_than_on_colab_it_installs_nothing(run, version):
    assert run([version], [], colab=False) == []


def test_on_colab_it_installs_the_release_and_keeps_what_the_image_is_built_around(run):
    keep, install = run([], [RELEASE], colab=True)
    assert keep.startswith("pip list --format=freeze") and keep.endswith("> kept")
    assert "(torch|transformers|numpy)==" in keep
    assert install == f'pip install -q -c kept "pefthelpers @ git+{lint.repository()}@v{RELEASE}"'


def test_on_colab_it_installs_nothing_twice(run):
    assert run([RELEASE], [], colab=True) == []


@pytest.mark.parametrize("after", [[], ["0.0.1"], ["9.9"]], ids=["nothing", "older", "newer"])
def test_an_address_that_gives_nothing_or_something_else_ends_in_a_sentence(run, after):
    with pytest.raises(SystemExit, match=f"^pefthelpers {RELEASE} was not installed: pip says why"):
        run([], after, colab=True)


def test_it_is_short():
    lines = lint.setup().splitlines()
    assert len(lines) <= 8 and max(map(len, lines)) <= 100
