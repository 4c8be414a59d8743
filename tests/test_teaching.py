"""The teacher's guide: its tables are those of the course and the records, its commands and sections are there."""

import re
import shlex

import pytest
import yaml

from nbregress import cli, notebooks
from pefthelpers import results
from peftroom import cli as whole  # noqa: F401 - registers the room's commands
from studies import rehearsal, teaching_guide

TEXT = teaching_guide.GUIDE.read_text(encoding="utf-8")
COURSES = yaml.safe_load(rehearsal.COURSES.read_text(encoding="utf-8"))
RECORD = results.read("rehearsal")["rows"]
COMMANDS = re.findall(r"`(pefthelpers [^`\n]+)`|^(pefthelpers .*)$", TEXT, re.MULTILINE)
STEPS = [(name, step) for name, course in COURSES.items() for step in course["steps"]]


def test_its_tables_are_written_anew_from_the_records():
    assert teaching_guide.filled(TEXT) == TEXT, "run python -m studies.teaching_guide"


@pytest.mark.parametrize("name", COURSES)
def test_a_course_takes_the_minutes_that_it_promises(name):
    assert sum(step["minutes"] for step in COURSES[name]["steps"]) == COURSES[name]["minutes"]


@pytest.mark.parametrize(
    "words", [shlex.split(one or other)[1:] for one, other in COMMANDS], ids=" ".join
)
def test_each_command_is_there_with_its_options(words):
    parser = cli.COMMANDS.choices[words[0]]
    for option in (word for word in words if word.startswith("--")):
        assert option in parser._option_string_actions, option


@pytest.mark.parametrize(("name", "step"), STEPS, ids=lambda value: str(value)[:24])
def test_each_step_names_what_is_in_the_notebooks(name, step):
    for key in ("cells", "shown"):
        if key in step:
            number, *ids = step[key]
            (path,) = notebooks.find([number])
            assert set(ids) <= {cell.id for cell in notebooks.read(path).cells}
    if number := step.get("notebook"):
        (path,) = notebooks.find([number])
        cells = notebooks.read(path).cells
        text = "\n".join(cell.source for cell in cells)
        for exercise in filter(None, step["exercises"].split(", ")):
            assert f"**{exercise} (" in text
        for heading in re.findall(r"\*([^*]+)\*", step["say"] + step["skip"]):
            assert heading in teaching_guide.headings(cells)
        assert not step["quiz"] or any("quiz" in notebooks.tags(cell) for cell in cells)


def test_the_rehearsal_did_every_step_in_the_guide_s_order():
    steps = COURSES["ninety"]["steps"]
    assert [row["step"] for row in RECORD] == [step["step"] for step in steps]
    assert [row["minutes"] for row in RECORD] == [step["minutes"] for step in steps]
    said = [
        row["said"] for row in RECORD if set(row.get("said", {})) == {"stub", "wrong", "solution"}
    ]
    assert len(said) == sum("exercise" in step for step in steps)
    assert all(
        one == {"stub": "not attempted", "wrong": "not yet", "solution": "correct"} for one in said
    )
    (marks,) = (row["said"] for row in RECORD if "solved" in row.get("said", {}))
    assert marks == {"solved": "correct", "wrong": "not yet", "untouched": "not attempted"}
    for row, step in zip(RECORD, steps, strict=True):
        assert row["cpu_s"] < 60 * step["minutes"], "the machine needs longer than the step has"
