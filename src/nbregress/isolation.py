"""Give one notebook a process of its own, here or on a worker, and bring back all that came of it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import nbformat

from nbregress import answers, failures, notebooks, recorded
from nbregress.result import GOOD, Job, Outcome, Result
from pefthelpers.errors import UserError

MARK = "PEFTHELPERS_NOTEBOOK"
ROOM = 1 << 14  # bytes without which nothing can be written
GRACE_S = 300  # beyond the notebook's own limit, for two starts of a kernel and its end
_running: dict[subprocess.Popen, str] = {}  # and for which caller; each access is one atomic step


def caller() -> str:
    """Name this process among all that may ask a cluster's workers for notebooks."""
    return f"{socket.gethostname()}:{os.getpid()}"


def environment(job: Job, folder: Path) -> dict[str, str]:
    """Return the environment variables under which a notebook runs without a person watching.

    What it starts, and starts again, inherits ``MARK``. Only the models of the gpu profile come from a network.
    """
    offline = "0" if job.values.get("PROFILE") == "gpu" else "1"
    return {
        MARK: folder.name,
        "PEFTHELPERS_HEADLESS": "1",
        "OMP_NUM_THREADS": str(job.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", offline),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def kill_tree(process_id: int) -> None:
    """Kill a process and all that it started, the kernel too, which has a session of its own."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process_id)
        for process in [*first.children(recursive=True), first]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def kill_marked(mark: str) -> None:
    """Kill what a notebook started and let go of (a daemon with a session and a parent of its own)."""
    import psutil

    found = True
    while found:  # what is being started while others are ended is found the next time
        found = False
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                    process.kill()
                    process.wait(1)
                    found = True


def stop_running(wanted_by: str) -> None:
    """Kill every notebook that runs in this process for a caller."""
    for process, name in _running.copy().items():
        if name == wanted_by:
            kill_tree(process.pid)


def run_worker(folder: Path, job: Job) -> str:
    """Run a notebook's process to its end; return how it ended, empty if as it should."""
    with open(folder / "stderr", "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "nbregress.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=stderr,
            stderr=stderr,
            env=os.environ | environment(job, folder),
            start_new_session=True,  # Ctrl-C reaches the runner alone, which then stops it
        )
    _running[process] = job.caller
    try:
        code = process.wait(job.timeout_s + GRACE_S if job.timeout_s else None)
    except subprocess.TimeoutExpired:
        return f"stopped: it hung for {GRACE_S} s beyond its {job.timeout_s:g} s"
    finally:
        _running.pop(process)
        kill_tree(process.pid)
        process.stdin.close()
        process.wait()
        kill_marked(folder.name)
    if code == 0:
        return ""
    return how_it_ended(code, folder)


def how_it_ended(code: int, folder: Path) -> str:
    """Say how a notebook's process ended that did not end as it should; its last words may have had no room."""
    last = failures.last_line((folder / "stderr").read_text("utf-8", "replace"))
    if code > 0 and ("No space left" in last or shutil.disk_usage(folder).free < ROOM):
        return no_room(folder.parent)
    return f"its process {failures.ended(code)}{': ' + last if code > 0 and last else ''}"


def no_room(folder: Path | str) -> str:
    """Say that the disk of the temporary folder is full, and what helps."""
    return f"the disk where it runs is full: free some of {folder}, or set TMPDIR"


def execute(job: Job) -> Outcome:
    """Execute a notebook in a process of its own, which leaves nothing on this machine's disk."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pefthelpers-") as name:
        folder = Path(name)
        (folder / "notebook.ipynb").write_text(job.source, encoding="utf-8")
        (folder / "job.json").write_text(json.dumps(asdict(job) | {"source": ""}), "utf-8")
        problem, end = run_worker(folder, job), {}
        if not problem:
            end = json.loads((folder / "end.json").read_text("utf-8"))
        executed = executed_notebook(folder, job)
    metrics, texts, misrecorded = recorded.read(executed)
    failure = failures.find(executed, problem or end.pop("problem")) or misrecorded
    failure = failure or answers.misjudged(executed, job.answers)
    result = Result(
        notebook=job.notebook,
        status="failed" if failure else GOOD,
        seconds=round(time.perf_counter() - start, 1),
        metrics=metrics,
        left_out=texts.get("left_out", ""),
        source_hash=job.source_hash,
        values=job.values,
        **end,
        **(asdict(failure) if failure else {}),
    )
    return Outcome(result, nbformat.writes(executed))


def executed_notebook(folder: Path, job: Job):
    """Return the notebook as far as it was executed; unexecuted if nothing readable was left."""
    try:
        return notebooks.read(folder / "executed.ipynb")
    except UserError:  # never written, or cut off while it was written
        notebook = notebooks.parse(job.source, job.notebook)
        for cell in notebooks.code_cells(notebook):
            cell.outputs = []
        return notebook
