"""The process of one notebook: ``python -m nbregress.worker FOLDER`` runs papermill there.

The folder holds ``job.json`` and ``notebook.ipynb``; ``executed.ipynb`` and ``end.json`` are added.
"""

import errno
import json
import os
import shutil
import sys
import threading
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import ClassVar

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from nbregress.failures import ended, last_line
from nbregress.isolation import kill_marked, kill_tree, no_room
from nbregress.outputs import Room
from pefthelpers.session import STACK

PYTHON = {"kernel_name": "python3", "language": "python", "start_timeout": 120}
# Output may come after its cell has ended: a loaded machine is late, not stuck.
OUTPUT_S = 240
# A line for a shell that fails (!pip install …) is an error; kernels before ipykernel 7 pass over the request.
PYTHON |= {
    "iopub_timeout": OUTPUT_S,
    "extra_arguments": ["--InteractiveShell.system_raise_on_error=True"],
}


class Kernel(AsyncKernelManager):
    """A kernel whose exit code is remembered: papermill only says that it died."""

    exit_code = None

    async def _async_is_alive(self) -> bool:
        alive = await super()._async_is_alive()
        if not alive and self.has_kernel:
            Kernel.exit_code = await self.provisioner.poll()
        return alive

    is_alive = _async_is_alive


class Clock:
    """The seconds that a cell may take: its own limit, or what is left of the notebook's."""

    def __init__(self, timeout_s: float, cell_timeout_s: float) -> None:
        """Start the clock; 0 is no limit."""
        self.timeout_s, self.cell_s = timeout_s or float("inf"), cell_timeout_s or float("inf")
        self.end, self.exceeded = time.monotonic() + self.timeout_s, ""

    def __call__(self, cell) -> float | None:
        """Return the limit for the cell that starts now (nbclient asks), None if there is none."""
        left = max(self.end - time.monotonic(), 0.1)
        notebooks, cells = f"the notebook's {self.timeout_s:g} s", f"a cell's {self.cell_s:g} s"
        self.exceeded = f"it took longer than {notebooks if left < self.cell_s else cells}"
        limit = min(left, self.cell_s)
        return limit if limit < float("inf") else None


class Bounded:
    """Before papermill's client of a kernel: of a cell's outputs it keeps what there is room for."""

    rooms: ClassVar[dict[str, Room]] = {}  # by cell

    def process_message(self, msg: dict, cell, cell_index: int):
        """Hand a message of the kernel on, cut to the cell's room."""
        room = self.rooms.setdefault(cell.id, Room())
        shown = room.fit(msg["msg_type"], msg["content"])
        return super().process_message(msg, cell, cell_index) if shown else None


def write_compact(notebook, path: str) -> None:
    """Write a notebook whole or not at all; papermill does it twice a cell, pretty, at a sixth of the CPU."""
    part = Path(f"{path}.part")
    part.write_text(json.dumps(notebook), encoding="utf-8")
    os.replace(part, path)


def execute(job: dict, folder: Path, clock: Clock) -> tuple[str, bool]:
    """Execute the notebook once; return what ended it (empty: nothing) and whether a retry may help."""
    # For paths on HDFS alone papermill imports pyarrow: two thirds of its own import.
    sys.modules.setdefault("pyarrow", None)
    import papermill

    papermill.engines.write_ipynb = write_compact
    client = type("Client", (Bounded, papermill.clientwrap.PapermillNotebookClient), {})
    papermill.engines.PapermillNotebookClient = client
    notebook, executed = folder / "notebook.ipynb", folder / "executed.ipynb"
    home = job["folder"] if Path(job["folder"]).is_dir() else folder
    own = PYTHON | {"cwd": str(home), "timeout_func": clock, "kernel_manager_class": Kernel}
    paths = str(notebook), str(executed)
    try:
        papermill.execute_notebook(*paths, job["values"], progress_bar=False, **own)
    except papermill.PapermillExecutionError:
        pass  # the executed notebook says which cell and why
    except CellTimeoutError as error:
        late = f"its output still came {OUTPUT_S} s after the cell had ended"
        return f"stopped: {late if 'IOPub' in str(error) else clock.exceeded}", False
    except NoSuchKernel:
        return "there is no Jupyter kernel python3 here: pip install ipykernel", False
    except Exception as error:  # noqa: BLE001 - whatever ended it, the summary must say so
        never_started = isinstance(error, RuntimeError) and not any_cell_started(executed)
        return why(error, folder), never_started
    return "", False


def why(error: Exception, folder: Path) -> str:
    """Say what ended an execution that no cell and no limit ended."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        return no_room(folder.parent)
    if isinstance(error, DeadKernelError):
        left = (
            " (as quit() and exit() do it, here or a cell above)" if Kernel.exit_code == 0 else ""
        )
        return f"its kernel {ended(Kernel.exit_code)}{left}"
    return f"{type(error).__name__}: {last_line(str(error))}"


def any_cell_started(executed: Path) -> bool:
    """Tell whether the kernel came as far as a first cell."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"] if executed.exists() else []
    return any(cell["metadata"].get("papermill", {}).get("start_time") for cell in cells)


def used() -> dict[str, float]:
    """Return CPU seconds and peak resident memory of this process and its kernel.

    The kernel's peak is never reported lower than this process's own when it started it (0.1 GiB).
    """
    import resource  # Windows has none, and no notebook is executed there (nbregress.cli)

    own, kernel = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = own.ru_utime + own.ru_stime + kernel.ru_utime + kernel.ru_stime
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return {"cpu_s": round(cpu_s, 1), "peak_memory_gib": round(kernel.ru_maxrss / unit, 2)}


def follow_parent(folder: Path) -> None:
    """End this process and all that it started when the runner's end of the pipe closes: it died."""
    os.read(0, 1)
    kill_marked(folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    kill_tree(os.getpid())


def main(folder: Path) -> None:
    """Execute the job of a folder and leave there what came of it."""
    threading.Thread(target=follow_parent, args=(folder,), daemon=True).start()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    clock, starts, again = Clock(job["timeout_s"], job["cell_timeout_s"]), 0, True
    while again and starts < 2:
        starts += 1
        problem, again = execute(job, folder, clock)
    if again:  # the kernel's own last words are on stderr, with a comment by nbclient
        lines = (folder / "stderr").read_text("utf-8", "replace").splitlines()
        said = last_line("\n".join(line for line in lines if "Error occurred while" not in line))
        problem = f"the kernel never started, in two tries: {said or problem}"
    found = {name: list(distributions(name=name)) for name in STACK}  # what the numbers depend on
    versions = {name: here[0].version if here else "missing" for name, here in found.items()}
    cut = [name for name, room in Bounded.rooms.items() if room.cut]
    notes = [f"of what the cell [{name}] showed not all is kept" for name in cut]
    end = {"problem": problem, "notes": notes, "kernel_starts": starts, "versions": versions}
    (folder / "end.json").write_text(json.dumps(end | used()), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
