"""Every notebook on a machine with a GPU, simulated: in its default profile, and in ``gpu``.

Shortened are trainings (four steps), measurements (eight examples) and answers (six tokens); the ``gpu``
profile's models have two layers and random weights. Kernels are the CPU's: an assert that a GPU's own
rounding would break is not found here.
"""

import json
import os
import subprocess
import sys

import pytest

from nbregress import notebooks
from support.simulated_cuda import stand_ins

from .conftest import ROWS

STEMS = [path.stem for path in notebooks.find([])]
SCENARIOS = ("tiny", "gpu")

# Of a number's notebook or its companion, cells that assert, or divide by, what a whole training learns: what they
# raise then is set aside.
LEARNED = {("07", "slice-check")}
# What is compared with another interpreter stays on the CPU, where that one computes.
ON_THE_CPU = {"05b_adapterhub"}
# 01 and 01b count what the CPU's kernels keep: a GPU's keep other tensors (data/results/gpu_notebooks.json). The cells
# of 02, 04, 05, 06, 07, 09 and 10 that stand alone know no profile: they take the GPU that there is.
MEANT = {
    "01": ("on cpu, not on cuda, since saved", "on cpu, not on cuda, since models"),
    "02": "on cuda, not on cpu, since stand-alone",
    "04": "on cuda, not on cpu, since recipe-seq2seq",
    "05": "on cuda, not on cpu, since home",
    "06": "on cuda, not on cpu, since alone",
    "07": "on cuda, not on cpu, since alone",
    "09": "on cuda, not on cpu, since alone",
    "10": "on cuda, not on cpu, since stand-alone",
}
# Copies of the base alive at most at the end of a cell, where the profile's model is a real one.
BASES = 6


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Fill a hub's cache with stand-ins of the gpu profile's models."""
    stand_ins.fill(cache := tmp_path_factory.mktemp("hub"))
    return cache


@pytest.mark.every_device
@pytest.mark.notebook
@pytest.mark.parametrize("profile", SCENARIOS)
@pytest.mark.parametrize("stem", STEMS)
def test_it_runs_on_a_machine_with_a_gpu(stem, profile, hub, tmp_path, pytestconfig):
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "support.simulated_cuda.notebook", stem, profile, str(out)]
    env = os.environ | {"HF_HUB_CACHE": str(hub), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    assert out.exists(), f"{stem} did not run to its end: {done.stderr[-2000:]}"
    found = json.loads(out.read_text(encoding="utf-8"))
    pytestconfig.stash.setdefault(ROWS, {})[stem, profile] = found
    failed = [cell for cell in found["failed"] if (stem[:2], cell["cell"]) not in LEARNED]
    assert failed == []
    misplaced = [each for each in found["misplaced"] if not each.endswith(MEANT.get(stem[:2], "!"))]
    assert stem in ON_THE_CPU or misplaced == []
    assert profile == "tiny" or found["bases"] <= BASES
