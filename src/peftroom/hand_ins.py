"""What learners handed in: a folder's files, whatever they hold, matched with our notebooks and their exercises."""

import ast
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nbregress import notebooks
from pefthelpers.errors import UserError

LARGEST = 30 * 2**20  # bytes of a notebook
SHARED = 5  # cells of code that make a file one of our notebooks, whatever its name


@dataclass(frozen=True)
class Exercise:
    """An exercise of one of our notebooks: ``check.name(answer, …)`` ends its stub."""

    number: int
    id: str
    source: str
    check: str
    name: str
    answer: str

    def called_in(self, source: str) -> bool:
        """Tell whether a cell calls this exercise's check."""
        return bool(re.search(rf"\b{self.check}\s*\.\s*{self.name}\s*\(", source))


@dataclass
class Official:
    """One of our notebooks: the cells before its last exercise, and its exercises."""

    stem: str
    cells: list[str] = field(default_factory=list)
    exercises: list[Exercise] = field(default_factory=list)
    known: set[str] = field(default_factory=set)  # ids and sources of all its cells of code

    @classmethod
    def of(cls, path: Path) -> "Official":
        """Read a notebook of the collection."""
        found = cls(path.stem)
        for cell in notebooks.code_cells(notebooks.read(path)):
            found.known |= {cell.id, cell.source.strip()}
            if "exercise" in notebooks.tags(cell):
                call = ast.parse(cell.source).body[-1].value
                named = call.func.value.id, call.func.attr, call.args[0].id
                number = len(found.exercises) + 1
                found.exercises.append(Exercise(number, cell.id, cell.source, *named))
            else:
                found.cells.append(cell.source)
        return found

    def shared(self, cells: list[tuple[str, str]]) -> int:
        """Return how many of a learner's cells are ours, unchanged."""
        return len({source.strip() for _, source in cells} & self.known)


@dataclass
class HandIn:
    """A learner's file: its cells of code as ``(id, source)``, or why it has none."""

    learner: str
    file: str
    cells: list[tuple[str, str]] = field(default_factory=list)
    problem: str = ""

    def of(self, exercise: Exercise, official: Official) -> dict | None:
        """Return what is to be run for an exercise: its cells, and the learner's own ones before them.

        Returns:
            None where the exercise is not there; no cells where its stub was left as it is.
        """
        at = [i for i, (name, source) in enumerate(self.cells) if exercise.called_in(source)]
        at = at or [i for i, (name, _) in enumerate(self.cells) if name == exercise.id]
        if not at:
            return None
        changed = [i for i in at if self.cells[i][1].strip() != exercise.source.strip()]
        own: list[str] = []
        for name, source in self.cells[: changed[-1]] if changed else []:
            ours = name in official.known or source.strip() in official.known
            others = any(each.called_in(source) for each in official.exercises)
            own = [] if ours or others else [*own, source]
        return {"own": own, "cells": [self.cells[i][1] for i in changed]}


def read(path: Path, name: str, learner: str) -> HandIn:
    """Read a file of a learner's, or of a zip of theirs, whatever it holds."""
    found = HandIn(learner, name)
    try:
        how = path.lstat()
        if not stat.S_ISREG(how.st_mode):
            found.problem = "a link, which is not followed" if path.is_symlink() else "no file"
        elif how.st_size > LARGEST:
            found.problem = f"{how.st_size / 2**20:.0f} MiB: too large"
        elif not how.st_size:
            found.problem = "an empty file"
        else:
            found.cells = cells_of(path.read_bytes())
    except (UserError, OSError) as error:
        found.problem = re.sub(r"^.* is not a notebook", "not a notebook", str(error))[:200]
    return found


def cells_of(data: bytes) -> list[tuple[str, str]]:
    """Return a notebook's cells of code.

    Raises:
        UserError: the bytes are no notebook.
    """
    try:
        book = notebooks.parse(data.decode("utf-8-sig"), "It")
    except UnicodeDecodeError as error:
        raise UserError("It is not a notebook: its bytes are no text") from error
    return [(str(cell.id), cell.source) for cell in notebooks.code_cells(book)]


def zipped(path: Path, learner: str) -> Iterator[HandIn]:
    """Read the notebooks of a zip file; nothing is unpacked onto the disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            for item in sorted(archive.infolist(), key=lambda each: each.filename)[:200]:
                found = HandIn(learner, f"{path.name}/{item.filename}")
                if not re.search(r"^(?!__MACOSX|\.)(?!.*/\.).*\.ipynb$", item.filename):
                    continue
                if item.file_size > LARGEST:
                    found.problem = f"{item.file_size / 2**20:.0f} MiB: too large"
                else:
                    member = archive.open  # gives bytes
                    with member(item) as file:
                        try:
                            found.cells = cells_of(file.read(LARGEST))
                        except UserError as error:
                            found.problem = str(error).removeprefix("It is ")[:200]
                yield found
    except Exception as error:  # noqa: BLE001 - zipfile raises what its decoders raise
        yield HandIn(learner, path.name, problem=f"not a zip that can be read: {error}"[:200])


def collect(folder: Path) -> list[HandIn]:
    """Read what lies in a folder: a subfolder or a file (notebook or zip) a learner.

    Raises:
        UserError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder: grade takes one with a subfolder or file a learner."
        )
    found: list[HandIn] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        before = len(found)
        files = [entry] if not entry.is_dir() or entry.is_symlink() else inside(entry)
        for file in files:
            learner = entry.name if file != entry else entry.stem
            if file.suffix == ".zip" and not file.is_symlink():
                found += zipped(file, learner)
            elif file.suffix == ".ipynb" or file.is_symlink():
                found.append(read(file, str(file.relative_to(folder)), learner))
        if len(found) == before:
            found.append(HandIn(entry.name, entry.name, problem="no notebook and no zip file"))
    if all(each.file == each.learner for each in found):  # nothing but what holds no notebook
        raise UserError(f"{folder} holds no notebook: it takes a subfolder or file a learner.")
    return found


def inside(folder: Path) -> list[Path]:
    """Return a folder's files, hidden ones left out, no link followed."""
    found = []
    for at, folders, files in os.walk(folder):
        linked = [name for name in folders if (Path(at) / name).is_symlink()]
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in linked
        )
        found += [Path(at) / name for name in sorted(files + linked) if not name.startswith(".")]
    return found[:500]
