"""What keeps people out: axe-core on recorded notebooks as pages, and the keyboard on what moves in them."""

import re

import pytest

from nbregress import notebooks, report
from support.axe import violations
from support.browser import browser

# A drawing and a quiz; the calculator; exercises and many plots; the chooser; a table that filters.
SHOWN = [
    "00_start_here",
    "01_full_finetuning_memory",
    "02_lora",
    "07_comparison",
    "07b_claims_ledger",
]
# Of no grave impact and not ours: the corner above a pandas table's index is an empty header.
KNOWN = {"empty-table-header"}
PAGE = "<!doctype html><html lang=en><meta charset=utf-8><title>{0}</title><main>{1}</main>"


@pytest.fixture
def opened(tab, tmp_path):
    """Return a function that opens a recorded notebook as a page, of the markup that a report has too."""

    def open_(stem):
        path = notebooks.notebooks_dir() / f"{stem}.ipynb"
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
    page.evaluate("document.querySelectorAll('pre').forEach(e => { e.textContent = e.textContent })")
    found = [each for each in violations(page) if each[0] not in KNOWN]
    assert found == []


@browser
@pytest.mark.parametrize(
    ("stem", "root"),
    [
        ("01_full_finetuning_memory", "#memory-page"),
        ("07_comparison", "#chooser-page"),
        ("07b_claims_ledger", "#claims-ledger"),
    ],
)
def test_every_control_has_a_name_and_is_reached_by_the_keyboard_visibly(opened, stem, root):
    page = opened(stem)
    controls = page.locator(root).locator("select, input, button, a[href], [tabindex='0']").all()
    controls = [each for each in controls if each.is_visible()]
    assert controls
    controls[0].focus()
    for control in controls:
        assert control.evaluate("e => e === document.activeElement")
        ring = control.evaluate("e => getComputedStyle(e).outlineStyle")
        assert ring != "none"
        page.keyboard.press("Tab")
    for control in page.locator(root).locator("select, input").all():
        assert control.evaluate("e => e.labels.length || e.ariaLabel")


@browser
def test_choices_are_made_by_the_keyboard_alone(opened):
    page = opened("07_comparison")
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
            shown = "".join(str(o.get("data", {}).get("text/html", "")) for o in cell.outputs)
            found = [int(level) for level in re.findall(r"<h([1-6])\b", shown)]
        for level in found:
            assert level <= depth + 1, f"{cell.id}: level {level} under level {depth}"
            depth = level
