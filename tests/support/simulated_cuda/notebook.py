"""Run a notebook's cells on the simulated card, in this process, to the end whatever fails.

``python -m support.simulated_cuda.notebook 02_lora gpu [FILE.json]``, with the stand-ins' cache in ``HF_HUB_CACHE``.
"""

import json
import linecache
import os
import sys
import time
import warnings
from pathlib import Path

os.environ |= {"PEFTHELPERS_HEADLESS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}

from support.simulated_cuda import A100, MEMORY, simulated  # noqa: I001 - before transformers

from IPython.core.interactiveshell import InteractiveShell

from nbregress import notebooks
from support.simulated_cuda.shorten import shorten
from support.simulated_cuda.watch import Watch


def describe(error: BaseException) -> dict:
    """Say what stopped a cell, and at which line of a cell."""
    trace, line = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<ipython-input"):
            line = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()
        trace = trace.tb_next
    said = (str(error).strip().splitlines() or [""])[-1]
    return {"error": type(error).__name__, "says": said[:200], "line": line}


def run_cells(cells, profile: str, watch: Watch) -> list[dict]:
    """Run code cells in order; return the failed ones."""
    shell, failed = InteractiveShell.instance(), []
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        outcome = shell.run_cell(cell.source, store_history=False)
        if error := outcome.error_before_exec or outcome.error_in_exec:
            failed.append({"cell": cell.id} | describe(error))
        if "parameters" in cell.metadata.get("tags", []):
            shell.run_cell(f"PROFILE = {profile!r}", store_history=False)
        # A traceback would keep a failed cell's models alive.
        del outcome
        error = sys.last_value = sys.last_traceback = sys.last_exc = None
        watch.look(cell.id)
    return failed


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
        failed = run_cells(found.cells, profile, watch)
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
