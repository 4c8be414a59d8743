"""What keeps people out: axe-core on recorded notebooks as pages, and the keyboard on what moves in them."""

import re

import pytest

from nbregress import notebooks, report
from support.axe import violations
from support.browser import browser

# Drawings, a quiz, plots, exercises, the chooser.
SHOWN = ["00_start_here", "02_lora", "07_comparison"]
# What moves: the notebook that shows it, the id of its page.
MOVING = {
    "01_full_finetuning_memory": "memory-page",
    "07_comparison": "chooser-page",
    "07b_claims_ledger": "claims-ledger",
}
# Of no grave impact and not ours: the corner above a pandas table's index is an empty header.
KNOWN = {"empty-table-header"}
PAGE = "<!doctype html><html lang=en><meta charset=utf-8><title>{0}</title><main>{1}</main>"


def outputs(cell):
    """Yield what a cell shows as HTML."""
    for output in cell.get("outputs", []):
        yield "".join(output.get("data", {}).get("text/html", ""))


@pytest.fixture
def opened(tab, tmp_path):
    """Return a function that opens a recorded notebook as a page, or what of it has an id alone."""

    def open_(stem, part=None):
        path = notebooks.notebooks_dir() / f"{stem}.ipynb"
        if part:
            found = [page for cell in notebooks.read(path).cells for page in outputs(cell)]
            body = f"<h1>{stem}</h1><h2>{part}</h2>"
            body += next(page for page in found if f'id="{part}"' in page)
        else:
            body = report.rendered(path.read_text(encoding="utf-8"))
        (tmp_path / "page.html").write_text(PAGE.format(stem, body), encoding="utf-8")
        tab.goto((tmp_path / "page.html").as_uri())
        return tab

    return open_


@browser
@pytest.mark.parametrize("stem", SHOWN)
def test_nothing_keeps_people_out_of_a_notebook(opened, stem):
    page = opened(stem)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    # Code has no colours here; without the thousands of words that it is made of, axe is done in seconds.
    page.evaluate(
        "document.querySelectorAll('pre').forEach(e => { e.textContent = e.textContent })"
    )
    assert [each for each in violations(page) if each[0] not in KNOWN] == []


@browser
@pytest.mark.parametrize(("stem", "part"), MOVING.items())
def test_what_moves_is_named_and_reached_by_the_keyboard_visibly(opened, stem, part):
    page = opened(stem, part)
    assert violations(page) == []
    inside = page.locator(f"#{part}")
    controls = inside.locator("select, input, button, [tabindex='0']")
    focused = "e => e === document.activeElement && getComputedStyle(e).outlineStyle !== 'none'"
    controls.first.focus()
    reached = set()
    for _ in range(controls.count() + inside.locator("a[href]").count()):
        now = controls.evaluate_all(f"all => all.map({focused})")
        reached |= {place for place, here in enumerate(now) if here}
        if len(reached) == controls.count():
            break
        page.keyboard.press("Tab")
    assert len(reached) == controls.count() >= 3
    assert all(inside.locator("select, input").evaluate_all("all => all.map(e => e.labels.length)"))


@browser
def test_choices_are_made_by_the_keyboard_alone(opened):
    page = opened("07_comparison", "chooser-page")
    answer = page.locator("#chooser-page .answer")
    before = answer.inner_text()
    page.locator("#chooser-page select").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert answer.inner_text() != before and answer.get_attribute("aria-live") == "polite"


@pytest.mark.parametrize(
    "path", sorted(notebooks.notebooks_dir().glob("*.ipynb")), ids=lambda p: p.stem
)
def test_headings_that_outputs_bring_follow_those_around_them(path):
    depth = 0
    for cell in notebooks.read(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
            found = [len(signs) for signs in re.findall(r"^(#+) ", text, re.MULTILINE)]
        else:
            found = [int(level) for level in re.findall(r"<h([1-6])\b", "".join(outputs(cell)))]
        for level in found:
            assert level <= depth + 1, f"{cell.id}: level {level} under level {depth}"
            depth = level
