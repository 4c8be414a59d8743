"""Package stacks: environments built once, kept by the hash of what they hold."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nbregress import notebooks
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path, cache_dir

FILES = {
    "pinned": "requirements.txt",
    "floor": "requirements-floor.txt",
    "newest": "pyproject.toml",
}


class BuildError(Exception):
    """An environment that cannot be built; the message is pip's own last error."""


@dataclass(frozen=True)
class Stack:
    """A set of packages to run under.

    Attributes:
        name: ``pinned``, ``floor`` or ``newest``.
        requirements: one requirement a line, torch among them by its exact version.
        python: the Python that its environment is made of.
    """

    name: str
    requirements: tuple[str, ...]
    python: str = sys.executable

    @property
    def torch(self) -> str:
        """Return torch's requirement."""
        return next(line for line in self.requirements if line.startswith("torch=="))


def root() -> Path:
    """Return the checkout's folder."""
    return notebooks.notebooks_dir().resolve().parent


def lines_of(path: Path) -> list[str]:
    """Return the requirements of a file: no comments, no blank lines."""
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def newest_lines() -> list[str]:
    """Return what the package depends on, by name alone."""
    from packaging.requirements import Requirement

    text = (root() / FILES["newest"]).read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE).group(1)
    names = [Requirement(one).name for one in re.findall(r'"([^"]+)"', block)]
    return [name for name in names if name != "torch"]


def named(name: str, python: str = sys.executable) -> Stack:
    """Return a stack.

    torch is the pinned one in every stack: asked for in any other way, pip brings gigabytes of CUDA.

    Args:
        name: ``pinned``, ``floor`` or ``newest``.
        python: the Python that its environment is made of; for another version than the running one's
            the CPU build of torch has to be at hand too.

    Raises:
        UserError: no such stack, or this is no checkout.
    """
    if name not in FILES:
        raise UserError(f"Unknown stack {name!r}: choose from {', '.join(FILES)}.")
    if not (root() / FILES[name]).is_file():
        raise UserError("The matrix needs a clone of the repository: requirements.txt is missing.")
    pins = lines_of(root() / FILES["pinned"])
    torch = [line for line in pins if line.startswith("torch==")]
    own = newest_lines() if name == "newest" else lines_of(root() / FILES[name])
    others = [line for line in own if not line.startswith("torch==")]
    return Stack(name, (*torch, *others), python)


def pythons(texts: list[str]) -> dict[str, str]:
    """Turn ``STACK=PROGRAM`` texts into programs by stack.

    Raises:
        UserError: no such stack, or the program is not there or does not start.
    """
    found = {}
    for text in texts:
        name, _, program = text.partition("=")
        if name not in FILES:
            raise UserError(f"--python takes STACK=PROGRAM, STACK one of {', '.join(FILES)}.")
        try:
            python_version(program)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"{program!r} does not start: give --python a Python's path."
            ) from error
        found[name] = program
    return found


def installed_here(stack: Stack) -> bool:
    """Tell whether the running environment holds exactly the stack's pins."""
    for line in stack.requirements:
        name, _, pin = line.partition("==")
        try:
            if not pin or version(name).split("+")[0] != pin.split("+")[0]:
                return False
        except PackageNotFoundError:
            return False
    return True


def python_version(python: str) -> str:
    """Return the version of a Python: 3.11.7."""
    asked = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def pip(python: str, *arguments: str) -> None:
    """Run this environment's pip for a Python, which need not have one.

    Raises:
        BuildError: it failed.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    command += arguments
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(why(done.stdout + "\n" + done.stderr))


def why(said: str) -> str:
    """Return what pip says went wrong, in one line: the conflicting requirements or its last error."""
    conflict = re.search(r"The conflict is caused by:\n((?:    .*\n)+)", said)
    if conflict:
        return "; ".join(line.strip() for line in conflict.group(1).splitlines())
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    return (errors or said.strip().splitlines() or ["pip failed"])[-1]


def resolved(stack: Stack) -> list[str]:
    """Return every package of a stack with the version that pip would install now.

    Raises:
        BuildError: the stack's requirements contradict each other, or a version is not to be had.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        wanted = ["--dry-run", "--ignore-installed", "--report", str(report)]
        pip(stack.python, "install", *wanted, *stack.requirements)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    pins = {one["metadata"]["name"]: one["metadata"]["version"] for one in found}
    return sorted(f"{name}=={pin}" for name, pin in pins.items())


def folder_of(stack: Stack, pins: list[str]) -> Path:
    """Return where an environment of these pins is kept."""
    text = "\n".join([python_version(stack.python), *pins])
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return cache_dir() / "stacks" / f"{stack.name}-{digest}"


def python_of(stack: Stack) -> str:
    """Return the Python of a stack's environment; build it if no such one is kept.

    The running environment serves the pinned stack if it holds its pins.

    Raises:
        BuildError: it cannot be built.
    """
    if stack.python == sys.executable and installed_here(stack):
        return sys.executable
    pins = resolved(stack)
    folder = folder_of(stack, pins)
    python = str(folder / "bin" / "python")
    if (folder / "pins.txt").exists():
        return python
    subprocess.run([stack.python, "-m", "venv", "--clear", str(folder)], check=True)
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    pip(python, "install", "--quiet", torch.split("+")[0])  # first and alone: the CPU build
    pip(python, "install", "--quiet", "--no-deps", *pins)
    with atomic_path(folder / "pins.txt") as temporary:  # last: without it, it is built again
        temporary.write_text("\n".join(pins) + "\n")
    return python
