"""``pefthelpers grade FOLDER``: a table of all learners' exercises; their code runs in ``sandbox`` alone."""

import argparse
import csv
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import groupby
from pathlib import Path

import jinja2

from nbregress import notebooks
from nbregress.cli import FROM_1, command, option
from nbregress.isolation import kill_tree
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path
from peftmemory.command import reads
from peftroom import hand_ins, sandbox
from peftroom.hand_ins import Exercise, HandIn, Official

SIGNS = {"correct": "✓", "not yet": "✗", "not attempted": "○", "broken": "!", "no notebook": "–"}
STARTUP_S = 900  # for our own cells of a notebook, on a slow machine
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


@dataclass
class Row:
    """A learner's mark in an exercise, and why."""

    learner: str
    notebook: str
    exercise: int
    name: str
    mark: str = "no notebook"
    why: str = ""


@cache
def collection() -> list[Official]:
    """Return our notebooks that have exercises."""
    return [found for path in notebooks.find([]) if (found := Official.of(path)).exercises]


def notebook_of(hand_in: HandIn) -> Official | None:
    """Tell which of our notebooks a file is: by its cells, or, where they do not tell, by its name."""
    best = max(collection(), key=lambda one: one.shared(hand_in.cells))
    if best.shared(hand_in.cells) >= hand_ins.SHARED:
        return best
    stem = Path(hand_in.file).stem
    named = [
        one
        for one in collection()
        if re.match(rf"{one.stem}\b|{one.stem}[ _(-]|{one.stem.split('_')[0]}(?![0-9a-z])", stem)
    ]
    return max(named, key=lambda one: len(one.stem)) if named else None


def table_of(found: list[HandIn]) -> tuple[list[Row], list[tuple[Row, Exercise, dict]], list[str]]:
    """Return a row for each learner and exercise, those whose code is to be run, and what else to say."""
    kept: dict[tuple[str, str], HandIn] = {}
    notes = []
    for hand_in in found:
        official = notebook_of(hand_in)
        if official is None:
            said = hand_in.problem or "none of our notebooks with exercises"
            notes.append(f"{hand_in.file}: {said}")
        if official and (official.stem, hand_in.learner) in kept:
            notes.append(
                f"{hand_in.file}: graded instead of {kept[official.stem, hand_in.learner].file}"
            )
        if official:
            kept[official.stem, hand_in.learner] = hand_in
    rows, runs = [], []
    wanted = [one for one in collection() if any(one.stem == stem for stem, _ in kept)]
    unknown = {
        each.learner: each.problem for each in found if each.problem and not notebook_of(each)
    }
    for learner in sorted({each.learner for each in found}):
        for official in wanted:
            hand_in = kept.get((official.stem, learner))
            for exercise in official.exercises:
                row = Row(learner, official.stem, exercise.number, exercise.name)
                rows.append(row)
                if hand_in is None:
                    if learner in unknown:
                        row.mark, row.why = "broken", unknown[learner]
                elif hand_in.problem:
                    row.mark, row.why = "broken", hand_in.problem
                elif (to_run := hand_in.of(exercise, official)) is None:
                    row.mark, row.why = "broken", "the exercise's cell is not there"
                elif not to_run["cells"]:
                    row.mark = "not attempted"
                else:
                    runs.append((row, exercise, to_run))
    return rows, runs, notes


def job(official: Official, runs: list, held: str, timeout_s: float) -> str:
    """Return what the grader's process of one notebook is to do."""
    rows = [
        {
            **to_run,
            "held": held,
            "official": e.source,
            "check": e.check,
            "name": e.name,
            "answer": e.answer,
        }
        for _, e, to_run in runs
    ]
    folder = str(notebooks.notebooks_dir().resolve())
    return json.dumps(
        {
            "cells": official.cells,
            "rows": rows,
            "held": held,
            "timeout_s": timeout_s,
            "folder": folder,
        }
    )


def lines_of(process: subprocess.Popen, text: str, each_s: float) -> Iterator[dict]:
    """Give the grader's process its job; yield what it says, until it ends or is silent for too long."""
    limit_s = STARTUP_S
    with suppress(OSError), process.stdin:
        process.stdin.write(text)
    while True:
        timer = threading.Timer(limit_s, kill_tree, [process.pid])
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            return
        yield json.loads(line)
        limit_s = each_s


def grade_notebook(
    official: Official, runs: list, held: str, timeout_s: float, hidden: Path
) -> float:
    """Fill in the rows of one notebook; return the seconds that our own cells took.

    A grader's process that a learner ended is started again for the learners after that one.
    """
    seconds, left = 0.0, [row for row, *_ in runs]
    while left:
        runs = runs[-len(left) :]
        with tempfile.TemporaryDirectory(prefix="pefthelpers-grade-") as scratch:
            home = sandbox.SCRATCH if held == "bubblewrap" else scratch
            before = sandbox.bubblewrap(hidden) if held == "bubblewrap" else []
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "peftroom.host"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=sandbox.environment(home),
                encoding="utf-8",
                start_new_session=True,
            )
            try:
                lines = lines_of(
                    process, job(official, runs, held, timeout_s), 50 * timeout_s + 120
                )
                head = next(lines, {"failed": "the grader's process was ended before it was ready"})
                for row in left if "failed" in head else ():
                    row.mark, row.why = "broken", head["failed"]
                if "failed" in head:
                    return seconds
                seconds += head["prepared"]
                while left:
                    said = next(lines, None)
                    row = left.pop(0)
                    row.mark, row.why = "broken", "it ended the grader's process"
                    if said is None:
                        break
                    row.mark, row.why = said["mark"], CONTROL.sub(" ", said["why"])[:400]
            finally:
                kill_tree(process.pid)
                process.wait()
                process.stdout.close()
    return seconds


def terminal(rows: list[Row], notes: list[str]) -> str:
    """Return the table as text, and below it why an exercise is not correct."""
    columns = list(dict.fromkeys((row.notebook, row.exercise) for row in rows))
    heads = [f"{stem.split('_')[0]}.{number}" for stem, number in columns]
    width = max(7, *(len(row.learner) for row in rows)) if rows else 7
    lines = ["  ".join([f"{'learner':{width}}", *heads, "correct"])]
    for learner, own in by_learner(rows).items():
        signs = [f"{SIGNS[row.mark]:^{len(head)}}" for row, head in zip(own, heads, strict=True)]
        right = sum(row.mark == "correct" for row in own)
        lines.append("  ".join([f"{learner:{width}}", *signs, f"{right} of {len(own)}"]))
    legend = "   ".join(f"{sign} {mark}" for mark, sign in SIGNS.items())
    why = groupby((r for r in rows if r.why), lambda r: (r.learner, r.notebook, r.mark, r.why))
    said = [
        f"{who}, {stem} {', '.join(f'{r.exercise} ({r.name})' for r in own)}: {SIGNS[mark]} {reason}"
        for (who, stem, mark, reason), own in why
    ]
    return "\n".join([*lines, "", legend, "", *said, *notes]).rstrip()


def by_learner(rows: list[Row]) -> dict[str, list[Row]]:
    """Return each learner's rows."""
    return {
        name: [row for row in rows if row.learner == name]
        for name in dict.fromkeys(r.learner for r in rows)
    }


def spreadsheet(rows: list[Row]) -> str:
    """Return the rows as CSV; a text that a spreadsheet would compute gets a quotation mark in front."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(Row)])
    for row in rows:
        cells = map(str, asdict(row).values())
        table.writerow([f"'{cell}" if cell[:1] in "=+-@" and cell else cell for cell in cells])
    return text.getvalue()


def page(rows: list[Row], notes: list[str], held: str) -> str:
    """Return the table as one HTML page that needs nothing else."""
    template = jinja2.Environment(loader=jinja2.PackageLoader("peftroom"), autoescape=True)
    columns = list(dict.fromkeys((row.notebook, row.exercise, row.name) for row in rows))
    given = {"learners": by_learner(rows), "columns": columns, "signs": SIGNS, "notes": notes}
    return template.get_template("grade.html.jinja").render(**given, promise=sandbox.PROMISES[held])


@command(
    option("folder", type=Path, help="with a subfolder, notebook or zip file a learner"),
    option("--out", type=Path, default=Path("grades"), help="for grades.csv, .json, .html"),
    option("--jobs", type=FROM_1, default=1, help="notebooks at a time; default: 1"),
    option(
        "--timeout",
        type=reads(float, "a number of seconds from 1", least=1),
        default=20.0,
        metavar="SECONDS",
        help="of a learner's code, for an exercise; default: 20",
    ),
    option("--unprotected", action="store_true", help="run learners' code without a sandbox too"),
)
def grade(options: argparse.Namespace) -> int:
    """Check the exercises of all learners' notebooks in a sandbox; 1 if a notebook of ours failed."""
    found = hand_ins.collect(options.folder)
    held = sandbox.choose(options.unprotected)
    rows, runs, notes = table_of(found)
    start = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        started = [
            pool.submit(grade_notebook, one, own, held, options.timeout, options.folder.resolve())
            for one in collection()
            if (own := [run for run in runs if run[0].notebook == one.stem])
        ]
    ours = sum(each.result() for each in started)
    told = {"rows": [*map(asdict, rows)], "notes": notes, "sandbox": held}
    files = {
        "csv": spreadsheet(rows),
        "html": page(rows, notes, held),
        "json": json.dumps(told, indent=1),
    }
    for kind, text in files.items():
        with atomic_path(options.out / f"grades.{kind}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(terminal(rows, notes), "", sandbox.PROMISES[held], sep="\n")
    learners, seconds = len(by_learner(rows)), time.monotonic() - start
    print(
        f"{learners} learners in {seconds:.0f} s, {ours:.0f} s of it in our own cells; {options.out}/grades.html"
    )
    return int(any(row.why.startswith(sandbox.OURS) for row in rows))
