"""The set-up cell of every notebook, run by IPython as Colab runs it: `google.colab` and pip's findings are stand-ins."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from nbregress import lint

RELEASE = version("pefthelpers")
# What is installed before and after pip comes as two arguments; what pip and the shell are asked is noted.
PROGRAM = """
import importlib.metadata, json, sys, types
from IPython.core.interactiveshell import InteractiveShell
if "colab" in sys.argv[2:]:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
before, after, cell = json.loads(sys.argv[1])
have, asked, shell = list(before), [], InteractiveShell.instance()
def distributions(name):
    assert name == "pefthelpers"
    return [types.SimpleNamespace(version=each) for each in have]
importlib.metadata.distributions = distributions
def pip(line):
    asked.append(line)
    have[:] = after
shell.register_magic_function(pip, magic_name="pip")
shell.system = asked.append
result = shell.run_cell(cell)
print()
print(json.dumps([asked, repr(result.error_in_exec or result.error_before_exec)]))
"""


def run(before, after, *where):
    """Return what pip and the shell were asked, the cell's error, and what a reader saw."""
    arguments = json.dumps([before, after, lint.setup()]), *where
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    *seen, last = done.stdout.strip().splitlines()
    return *json.loads(last), "\n".join(seen)


def test_elsewhere_than_on_colab_it_installs_nothing():
    assert run([RELEASE], [])[:2] == ([], "None")
    assert run(["9.9"], [])[:2] == ([], "None")  # a clone that is ahead of its installation


def test_on_colab_it_installs_the_release_and_keeps_what_the_image_is_built_around():
    asked, error, _ = run([], [RELEASE], "colab")
    assert error == "None" and len(asked) == 2
    assert "grep" in asked[0] and asked[0].endswith("> kept.txt")
    assert all(name in asked[0] for name in ("torch", "transformers", "numpy"))
    assert asked[1] == f'install -q -c kept.txt "pefthelpers @ git+{lint.repository()}@v{RELEASE}"'


def test_on_colab_it_installs_nothing_twice():
    assert run([RELEASE], [], "colab")[:2] == ([], "None")


@pytest.mark.parametrize("after", [[], ["0.0.1"], ["9.9"]], ids=["nothing", "older", "newer"])
def test_an_address_that_gives_nothing_or_something_else_ends_in_a_sentence(after):
    _, error, seen = run([], after, "colab")
    assert error.replace(chr(39), chr(34)).startswith(
        f'SystemExit("pefthelpers {RELEASE} was not installed: pip says why above'
    )
    assert "Traceback" not in seen


def test_it_is_short():
    lines = lint.setup().splitlines()
    assert len(lines) <= 8 and max(map(len, lines)) <= 100
