"""The set-up cell with the real pip, in a fresh environment without this package; git's address leads nowhere."""

import os
import subprocess
import sys
import sysconfig
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest

from nbregress import lint

PROGRAM = """
import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
outcome = shell.run_cell({cell!r})
print("RAISED:", repr(outcome.error_in_exec))
import importlib.metadata
print("TORCH:", importlib.metadata.version("torch"))
"""


@pytest.fixture
def colab(tmp_path):
    """Return a fresh environment that has all that Colab's image has, by links, but not this package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    image, scripts = tmp_path / "image", tmp_path / "env" / "bin"
    image.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "pefthelpers" not in entry.name and entry.suffix != ".pth":
            (image / entry.name).symlink_to(entry)
    own = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    (own / "image.pth").write_text(f"{image}\n", encoding="utf-8")
    pip = scripts / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{scripts / "python"}" -m pip "$@"\n', encoding="utf-8")
    pip.chmod(0o755)
    return scripts, own


@pytest.mark.skipif(os.name == "nt", reason="Colab is Linux")
def test_where_the_address_cannot_be_reached_it_ends_in_the_sentence_and_torch_stays(
    colab, tmp_path
):
    scripts, own = colab
    nowhere = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": "https://github.com/"}
    nowhere |= {"GIT_CONFIG_KEY_0": f"url.{(tmp_path / 'nowhere').as_uri()}/.insteadOf"}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env = clean | nowhere | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    program = tmp_path / "colab.py"
    program.write_text(textwrap.dedent(PROGRAM).format(cell=lint.setup()), encoding="utf-8")
    command = [scripts / "python", program]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8"
    )
    said = done.stdout + done.stderr
    assert "RAISED: SystemExit('pefthelpers" in said and "was not installed" in said, said
    assert f"TORCH: {version('torch')}" in said
    assert f"torch=={version('torch')}" in (tmp_path / "kept").read_text(encoding="utf-8")
    assert sorted(entry.name for entry in own.iterdir()) == ["image.pth"]  # nothing was installed
