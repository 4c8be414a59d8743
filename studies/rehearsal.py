"""Rehearse the 90-minute course of TEACHING.md: every step, in the guide's order; what it asks of the machine is noted.

    python -m studies.rehearsal

The steps stand in ``studies/courses.yaml``. Cells run in a kernel a notebook, as a learner's do; an exercise is run as
its stub, with an answer that its check must refuse, and with its solution; ``grade`` checks three made-up learners' files.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
import yaml
from nbclient import NotebookClient

from nbregress import answers, notebooks
from nbregress.isolation import environment
from nbregress.result import Job
from nbregress.stamp import stamp
from pefthelpers import results
from pefthelpers.paths import data_dir

COURSES = Path(__file__).with_name("courses.yaml")
RECORD = data_dir() / "results" / "rehearsal.json"
# Beside stub and solution, an answer that a learner may well give, and that the check must refuse.
WRONG = {
    ("00", 1): '["prompt", "fine-tuning", "fine-tuning", "fine-tuning"]',
    ("02", 2): "[-100] * len(prompt) + answer + [pad] * (length - len(prompt) - len(answer))",
}


class Desk:
    """A learner's desk: a kernel for each notebook that is opened, its cells run as the guide says."""

    def __init__(self) -> None:
        """Sit down; nothing is open."""
        self.open: dict[str, NotebookClient] = {}

    def notebook(self, name: str) -> NotebookClient:
        """Return a notebook's client, its kernel started at first."""
        if name not in self.open:
            (path,) = notebooks.find([name])
            for variable, value in environment(Job("", "", "", {}), Path()).items():
                os.environ[variable] = value
            book = notebooks.read(path)
            for cell in notebooks.code_cells(book):
                cell.outputs, cell.execution_count = [], None
            client = NotebookClient(
                book, timeout=1200, resources={"metadata": {"path": path.parent}}
            )
            client.reset_execution_trackers()
            client.km = client.create_kernel_manager()
            client.start_new_kernel()
            client.start_new_kernel_client()
            self.open[name] = client
        return self.open[name]

    def run(self, name: str, first: str, end: str) -> int:
        """Run the cells of code from one id up to, without, another; return how many."""
        client = self.notebook(name)
        ids = [cell.id for cell in client.nb.cells]
        numbers = range(ids.index(first), ids.index(end))
        code = [n for n in numbers if client.nb.cells[n].cell_type == "code"]
        for number in code:
            client.execute_cell(client.nb.cells[number], number)
        return len(code)

    def exercise(self, name: str, number: int) -> dict[str, str]:
        """Run an exercise as its stub, wrong and right; return what its check said of each."""
        client, said = self.notebook(name), {}
        ids = [cell.id for cell in client.nb.cells]
        at = ids.index(f"exercise-{number}")
        cell = client.nb.cells[at]
        stub, book = cell.source, notebooks.read(notebooks.find([name])[0])
        answers.solve(book)
        tries = {"stub": stub, "wrong": stub.replace("...", WRONG[name, number])}
        for kind, source in (tries | {"solution": book.cells[at].source}).items():
            cell.source = source
            client.execute_cell(cell, at)
            said[kind] = answers.verdicts(client.nb)[cell.id]
        return said

    def cpu_s(self) -> float:
        """Return the processor seconds of all kernels so far."""
        pids = [psutil.Process(client.km.provisioner.pid) for client in self.open.values()]
        return sum(sum(process.cpu_times()[:2]) for process in pids)

    def leave(self) -> None:
        """Shut all kernels down."""
        for client in self.open.values():
            client._cleanup_kernel()


def command(*words: str) -> str:
    """Run a command of pefthelpers; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "peftroom.cli", *words],
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return done.stdout


def grade() -> dict:
    """Grade three files of notebook 00, as learners hand them in; return the marks."""
    with tempfile.TemporaryDirectory() as name:
        room = Path(name, "room")
        room.mkdir()
        (path,) = notebooks.find(["00"])
        for learner in ("solved", "wrong", "untouched"):
            book = notebooks.read(path)
            cell = next(each for each in book.cells if each.id == "exercise-1")
            if learner == "solved":
                answers.solve(book)
            elif learner == "wrong":
                cell.source = cell.source.replace("...", WRONG["00", 1])
            nbformat.write(book, room / f"{learner}.ipynb")
        command("grade", str(room), "--out", f"{name}/grades")
        rows = json.loads(Path(name, "grades", "grades.json").read_text(encoding="utf-8"))["rows"]
    return {row["learner"]: row["mark"] for row in rows}


def do(step: dict, desk: Desk) -> dict:
    """Do one step; return what is worth noting."""
    if "command" in step:
        command(step["command"])
        return {"did": f"`pefthelpers {step['command']}`"}
    if "cells" in step:
        return {"did": f"{desk.run(*step['cells'])} cells run"}
    if "exercise" in step:
        return {"did": "stub, wrong answer, solution", "said": desk.exercise(*step["exercise"])}
    if "grade" in step:
        return {"did": "three files graded", "said": grade()}
    if "shown" in step:
        name, first = step["shown"]
        assert first in [cell.id for cell in notebooks.read(notebooks.find([name])[0]).cells]
        return {"did": "shown as recorded, nothing run"}
    return {"did": "nothing run"}


def main() -> None:
    """Do all steps and write the record."""
    desk, rows = Desk(), []
    course = yaml.safe_load(COURSES.read_text(encoding="utf-8"))["ninety"]
    try:
        for step in course["steps"]:
            start, before = time.monotonic(), desk.cpu_s()
            children = os.times()
            noted = do(step, desk)
            spent = os.times()
            cpu_s = desk.cpu_s() - before + sum(spent[2:4]) - sum(children[2:4])
            seconds = {"wall_s": round(time.monotonic() - start, 1), "cpu_s": round(cpu_s, 1)}
            rows.append({"step": step["step"], "minutes": step["minutes"], **noted, **seconds})
            print(json.dumps(rows[-1]), flush=True)
    finally:
        desk.leave()
    results.write(RECORD, {"about": stamp(), "rows": rows})


if __name__ == "__main__":
    main()
