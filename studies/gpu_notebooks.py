"""Run a notebook's cells on this machine's GPU, to the end whatever fails, and say what each took.

    python -m studies.gpu_notebooks 02 gpu FILE.json [MODEL=FOLDER ...]

The runner stops at a notebook's first failure, and a borrowed GPU leaves no time for a second try. Writes the
failed cells, seconds, and the allocator's peak after each cell to FILE.json. ``ONLY``, a regular expression
in the environment, picks cells by their id. ``data/results/gpu_notebooks.json`` holds what was seen so far.
"""

import json
import linecache
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"PEFTHELPERS_HEADLESS": "1", "MPLBACKEND": "agg"}

import torch
from IPython.core.interactiveshell import InteractiveShell

from nbregress import notebooks


def parameters(profile: str, given: list[str]) -> str:
    """Return the lines that papermill would inject; every value given is a text."""
    pairs = [("PROFILE", profile), *(each.split("=", 1) for each in given)]
    return "\n".join(f"{name} = {value!r}" for name, value in pairs)


def describe(error: BaseException) -> dict:
    """Say what stopped a cell, and at which line of a cell."""
    trace, line = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<ipython-input"):
            line = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()
        trace = trace.tb_next
    said = (str(error).strip().splitlines() or [""])[-1]
    return {"error": type(error).__name__, "says": said[:200], "line": line}


def executed(cells: list, injected: str) -> Iterator[tuple]:
    """Run code cells in order, whatever fails, ``injected`` after the parameters.

    Yields:
        A cell, what went wrong in it or None, and its seconds.
    """
    shell = InteractiveShell.instance()
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        start, failed = time.perf_counter(), None
        outcome = shell.run_cell(cell.source, store_history=False)
        if error := outcome.error_before_exec or outcome.error_in_exec:
            failed = {"cell": cell.id} | describe(error)
        if "parameters" in cell.metadata.get("tags", []):
            shell.run_cell(injected, store_history=False)
        # A traceback would keep a failed cell's models alive.
        del outcome
        error = sys.last_value = sys.last_traceback = sys.last_exc = None
        yield cell, failed, time.perf_counter() - start


def main() -> None:
    """Run the cells and write FILE.json after each."""
    number, profile, out, *given = sys.argv[1:]
    (path,) = notebooks.find([number])
    out, only = Path(out).resolve(), os.environ.get("ONLY", ".*")
    cells = [cell for cell in notebooks.read(path).cells if re.fullmatch(only, cell.id)]
    os.chdir(path.parent)
    gpu = torch.cuda.is_available()
    found = {"notebook": path.stem, "profile": profile, "failed": [], "seconds": 0.0, "peak_gib": 0}
    for cell, failed, seconds in executed(cells, parameters(profile, given)):
        peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
        found["failed"] += [failed] if failed else []
        found |= {"last": cell.id, "seconds": round(found["seconds"] + seconds, 1)}
        found["peak_gib"] = round(max(found["peak_gib"], peak), 3)
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "failed"}))
    sys.exit(bool(found["failed"]))


if __name__ == "__main__":
    main()
