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

from pefthelpers.errors import UserError
from pefthelpers.paths import notebooks_dir

WORKER = Path(__file__).with_name("adapterhub_worker.py")
MISSING = (
    "AdapterHub's environment is not here, so this notebook shows its code but does not run it: "
    "`make adapterhub` in a clone of the repository builds it."
)


def adapterhub_python() -> Path | None:
    """Return the interpreter of AdapterHub's environment, None where there is none.

    It is ``$ADAPTERHUB_PYTHON``, or the one that ``make adapterhub`` builds in the checkout.
    """
    try:
        built = notebooks_dir().parent / ".venv-adapterhub" / "bin" / "python"
    except UserError:  # not in a clone: on Colab, for instance
        built = Path(".venv-adapterhub/bin/python")
    python = Path(os.environ.get("ADAPTERHUB_PYTHON") or built)
    return python if python.is_file() else None


class Interpreter:
    """Another Python process that runs cells.

    Args:
        python: its interpreter; None makes every cell a sentence.

    Attributes:
        value: what the last cell ended on.
    """

    def __init__(self, python: Path | None) -> None:
        """Start the process; ``-I`` keeps this environment's modules out of it."""
        self.value: object = None
        self._process = None
        if python is not None:
            self._process = subprocess.Popen(
                [str(python), "-I", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    @property
    def ready(self) -> bool:
        """Say whether there is a process to run cells in."""
        return self._process is not None

    def run(self, cell: str) -> object:
        """Run a cell, show what it prints, and return its last expression, also kept in ``value``.

        Numbers, strings, lists come over as they are, anything else as Python would show it.

        Raises:
            UserError: the cell raised an error, or the process died.
        """
        if not self.ready:
            print("Not run: AdapterHub's environment is not here.")
            return None
        line = ""
        with contextlib.suppress(OSError):  # a pipe that nobody reads any more
            self._process.stdin.write(json.dumps(cell) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise UserError(
                "AdapterHub's process died: build its environment again with `make adapterhub`."
            )
        answer = json.loads(line)
        print(answer["printed"], end="")
        if answer["error"]:
            raise UserError(f"The cell failed in AdapterHub's environment: {answer['error']}")
        self.value = answer["value"]
        return self.value

    def close(self) -> None:
        """End the process."""
        if self.ready:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait(timeout=30)
            self._process.stdout.close()
            self._process = None


def start() -> Interpreter:
    """Start AdapterHub's interpreter and make ``%%adapterhub`` send cells to it."""
    from IPython import get_ipython

    interpreter = Interpreter(adapterhub_python())
    get_ipython().register_magic_function(
        lambda line, cell: interpreter.run(cell), "cell", "adapterhub"
    )
    return interpreter
