"""Run a notebook's cells on the simulated card, in this process, to the end whatever fails.

``python -m support.simulated_cuda.notebook 02_lora gpu [FILE.json]``, with the stand-ins' cache in ``HF_HUB_CACHE``.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

os.environ |= {"PEFTHELPERS_HEADLESS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}

from support.simulated_cuda import A100, MEMORY, simulated  # noqa: I001 - before transformers

from nbregress import notebooks
from studies import gpu_notebooks
from support.simulated_cuda.shorten import shorten
from support.simulated_cuda.watch import Watch


def run(stem: str, profile: str) -> dict:
    """Run a notebook of the collection under a profile on an A100 of 40 GiB.

    Returns:
        Failed cells, misplaced models, bases alive at most, the card's peak in bytes, seconds.
    """
    start, folder = time.monotonic(), notebooks.notebooks_dir()
    found = notebooks.read(folder / f"{stem}.ipynb")
    os.chdir(folder)
    shorten()
    warnings.simplefilter("ignore")
    with simulated(A100):
        watch = Watch()
        failed = []
        for cell, error, _ in gpu_notebooks.executed(found.cells, f"PROFILE = {profile!r}"):
            failed += [error] if error else []
            watch.look(cell.id)
    return {
        "failed": failed,
        "misplaced": watch.misplaced,
        "bases": watch.peak[0] or watch.peak[1],
        "bases_after": watch.peak[2],
        "card_bytes": MEMORY.peak,
        "seconds": round(time.monotonic() - start, 1),
    }


if __name__ == "__main__":
    result = run(*sys.argv[1:3])
    text = json.dumps(result, indent=1, ensure_ascii=False)
    if sys.argv[3:]:
        Path(sys.argv[3]).write_text(text, encoding="utf-8")
    print(text)
