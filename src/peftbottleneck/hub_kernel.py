"""Run notebook cells in another Python: for the one library that does not run on transformers 5.

AdapterHub's library has an environment of its own, built by ``make adapterhub``. A cell that begins
with ``%%adapterhub`` runs there, in one process that keeps its names from cell to cell. Where the
environment is missing, such a cell says so and the notebook goes on.
"""

import contextlib
import json
import os
import subprocess
from pathlib import Path

from peftbottleneck.errors import AdapterError

WORKER = Path(__file__).with_name("hub_worker.py")
MISSING = (
    "AdapterHub's environment is not here, so this notebook shows its code but does not run it: "
    "`make adapterhub` in a clone of the repository builds it."
)


def adapterhub_python() -> Path | None:
    """Return the interpreter of AdapterHub's environment, None where there is none.

    It is ``$ADAPTERHUB_PYTHON``, or the one that ``make adapterhub`` builds in the checkout.
    """
    roots = (Path.cwd(), Path(__file__).resolve().parents[2])
    built = [root / ".venv-adapterhub" / "bin" / "python" for root in roots]
    chosen = os.environ.get("ADAPTERHUB_PYTHON")
    return next((path for path in ([Path(chosen)] if chosen else built) if path.is_file()), None)


class Interpreter:
    """Another Python process that runs cells.

    Args:
        python: its interpreter; None makes every cell a sentence.

    Attributes:
        value: what the last cell ended on.
        ready: whether there is a process to run cells in.
    """

    def __init__(self, python: Path | None) -> None:
        """Start the process; ``-I`` keeps this environment's modules out of it."""
        self.value: object = None
        self.ready = python is not None
        if self.ready:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
            command = [str(python), "-I", str(WORKER)]
            self._process = subprocess.Popen(command, **pipes, stderr=subprocess.DEVNULL)

    def run(self, cell: str) -> object:
        """Run a cell, show what it prints, and return its last expression, also kept in ``value``.

        Numbers, strings, lists come over as they are, anything else as Python would show it.

        Raises:
            AdapterError: the cell raised an error, or the process died.
        """
        if not self.ready:
            print("Not run: AdapterHub's environment is not here.")
            return None
        line = ""
        with contextlib.suppress(OSError):  # a pipe that nobody reads any more
            print(json.dumps(cell), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        if not line.endswith("\n"):
            code = self._process.wait(timeout=30)
            raise AdapterError(
                f"AdapterHub's process died (exit code {code}): run the notebook from its start; "
                "if it dies again, build its environment with `make adapterhub`."
            )
        answer = json.loads(line)
        print(answer["printed"], end="")
        if answer["error"]:
            raise AdapterError(f"The cell failed in AdapterHub's environment: {answer['error']}")
        self.value = answer["value"]
        return self.value

    def close(self) -> None:
        """End the process."""
        if self.ready:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait(timeout=30)
            self._process.stdout.close()
            self.ready = False


def start() -> Interpreter:
    """Start AdapterHub's interpreter and make ``%%adapterhub`` send cells to it."""
    from IPython import get_ipython

    interpreter = Interpreter(adapterhub_python())
    run = lambda line, cell: interpreter.run(cell)
    get_ipython().register_magic_function(run, "cell", "adapterhub")
    return interpreter
