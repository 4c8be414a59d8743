"""Write the tables of TEACHING.md from ``studies/courses.yaml``, the rehearsal's record and the baselines.

python -m studies.teaching_guide
"""

import re

import yaml

from nbregress import notebooks
from pefthelpers import results
from pefthelpers.paths import atomic_path, data_dir
from studies.rehearsal import COURSES

GUIDE = data_dir().parent / "TEACHING.md"


def stem(number: str) -> str:
    """Return the stem of a notebook's recorded baseline, by its number."""
    (path,) = (data_dir() / "baselines").glob(f"{number}_*.tiny.json")
    return path.stem.removesuffix(".tiny")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rehearsed() -> str:
    """Return what each step of the 90-minute course asks of the machine, and what the checks said."""
    found, rows, clock = results.read("rehearsal"), [], 0
    for row in found["rows"]:
        said = "; ".join(f"{kind}: *{word}*" for kind, word in row.get("said", {}).items())
        done = ": ".join(filter(None, [row["did"], said]))
        seconds = [f"{row[key]:.0f}" for key in ("cpu_s", "wall_s")]
        rows.append([f"{clock}", row["step"], f"{row['minutes']}", done, *seconds])
        clock += row["minutes"]
    total = [f"{sum(row[key] for row in found['rows']):.0f}" for key in ("cpu_s", "wall_s")]
    rows.append([f"{clock}", "**end**", "", "", *total])
    heads = ["at minute", "step", "minutes, *estimated*", "what the rehearsal did"]
    heads += ["processor seconds, *measured*", "seconds by the clock, *measured*"]
    late = [row["step"] for row in found["rows"] if row["wall_s"] > 60 * row["minutes"]]
    note = (
        f"Rehearsed on {found['about']['date']}, two cores ({found['about']['processor']}) that other work kept busy: "
        "processor seconds say what the "
        "step costs, seconds by the clock what it took there. Of the grading the processor seconds are the command's own; its "
        "sandbox, which runs notebook 00 once, is not counted."
        f" Longer by the clock than its minutes: {', '.join(late).lower() or 'no step'}."
    )
    return f"{table(heads, rows)}\n\n{note}"


def headings(cells: list) -> list[str]:
    """Return the headings below the title, as the notebook writes them."""
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(r"^###? (.+)$", text, re.MULTILINE)


def where(step: dict) -> str:
    """Return where in its notebook a step of the 90-minute course stands: headings, or an exercise."""
    kind = next((each for each in ("cells", "shown", "exercise", "quiz") if each in step), None)
    if kind is None:
        return ""
    number, *rest = [step[kind]] if kind == "quiz" else step[kind]
    cells = notebooks.read(notebooks.find([number])[0]).cells
    if kind == "quiz":
        assert any("quiz" in notebooks.tags(cell) for cell in cells)
        return "below the last exercise"
    if kind == "exercise":
        text = "\n".join(cell.source for cell in cells)
        return f"*Your turn*, {re.search(rf'^[*][*]({rest[0]} [(].*?[)])', text, re.MULTILINE)[1]}"
    first, *end = ([cell.id for cell in cells].index(name) for name in rest)
    return " · ".join(f"*{each}*" for each in headings(cells[first : end[0] if end else first + 1]))


def course(name: str) -> str:
    """Return a course's table: minutes, machine seconds where notebooks run whole, what to say, what goes wrong."""
    found, rows, clock = yaml.safe_load(COURSES.read_text(encoding="utf-8"))[name], [], 0
    whole = "notebook" in found["steps"][0]
    for step in found["steps"]:
        row = [f"{clock}", step["step"], f"{step['minutes']}"]
        if whole:
            number = step["notebook"]
            row.append(f"{results.read(f'{stem(number)}.tiny')['seconds']:.0f}" if number else "")
        else:
            row[1] = "<br>".join(filter(None, (f"**{step['step']}**", where(step))))
        row += [step["say"], step["wrong"], step["skip"]]
        rows.append(row + ([step["exercises"], step["quiz"]] if whole else []))
        clock += step["minutes"]
    heads = ["at minute", "section" if whole else "section, *its headings in the notebook*"]
    heads += ["minutes, *estimated*"] + (["run all, seconds, *measured*"] if whole else [])
    heads += ["say", "goes wrong", "skip if late"] + (["exercises", "quiz"] if whole else [])
    return table(heads, rows)


def rendered() -> dict[str, str]:
    """Return the generated parts of the guide by their names."""
    return {"rehearsal": rehearsed()} | {
        name: course(name) for name in ("ninety", "half_day", "two_days")
    }


def filled(text: str) -> str:
    """Return the guide's text with each part between its marks."""
    for name, part in rendered().items():
        mark = f"<!-- {name} -->"
        inside = lambda _, m=mark, p=part: f"{m}\n{p}\n{m}"
        text = re.sub(f"{mark}.*?{mark}", inside, text, flags=re.DOTALL)
    return text


def main() -> None:
    """Write the guide."""
    text = filled(GUIDE.read_text(encoding="utf-8"))
    with atomic_path(GUIDE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
