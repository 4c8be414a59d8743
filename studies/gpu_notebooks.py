"""Run a notebook's cells on this machine's GPU, to the end whatever fails, and say what each took.

    python -m studies.gpu_notebooks 02 gpu FILE.json [MODEL=FOLDER ...]

The runner stops at a notebook's first failure, and a borrowed GPU leaves no time for a second try. Writes the
failed cells, seconds, and the allocator's peak after each cell to FILE.json. ``ONLY``, a regular expression
in the environment, picks cells by their id. ``data/results/gpu_notebooks.json`` holds what was seen so far.
"""

import json
import os
import re
import sys
import time
import traceback
from pathlib import Path

os.environ |= {"PEFTHELPERS_HEADLESS": "1", "MPLBACKEND": "agg"}

import torch
from IPython.core.interactiveshell import InteractiveShell

from nbregress import notebooks


def parameters(profile: str, given: list[str]) -> str:
    """Return the lines that papermill would inject; every value given is a text."""
    pairs = [("PROFILE", profile), *(each.split("=", 1) for each in given)]
    return "\n".join(f"{name} = {value!r}" for name, value in pairs)


def run_cell(shell, cell) -> tuple[dict | None, float]:
    """Run a cell; return what went wrong, if anything did, and its seconds."""
    start = time.perf_counter()
    outcome = shell.run_cell(cell.source, store_history=False)
    error, failed = outcome.error_before_exec or outcome.error_in_exec, None
    if error:
        said = "".join(traceback.format_exception(error))[-1200:]
        failed = {"cell": cell.id, "error": type(error).__name__, "trace": said}
    sys.last_value = sys.last_traceback = sys.last_exc = None  # they would keep the models alive
    return failed, time.perf_counter() - start


def main() -> None:
    """Run the cells and write FILE.json after each."""
    number, profile, out, *given = sys.argv[1:]
    (path,) = notebooks.find([number])
    out, only = Path(out).resolve(), os.environ.get("ONLY", ".*")
    cells = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    os.chdir(path.parent)
    shell, gpu = InteractiveShell.instance(), torch.cuda.is_available()
    found = {"notebook": path.stem, "profile": profile, "failed": [], "seconds": 0.0, "peak_gib": 0}
    for cell in (cell for cell in cells if re.fullmatch(only, cell.id)):
        failed, seconds = run_cell(shell, cell)
        if "parameters" in cell.metadata.get("tags", []):
            shell.run_cell(parameters(profile, given), store_history=False)
        peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
        found["failed"] += [failed] if failed else []
        found |= {"last": cell.id, "seconds": round(found["seconds"] + seconds, 1)}
        found["peak_gib"] = round(max(found["peak_gib"], peak), 3)
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "failed"}))
    sys.exit(bool(found["failed"]))


if __name__ == "__main__":
    main()
