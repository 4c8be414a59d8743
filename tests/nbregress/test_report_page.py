"""The report of a real failure, in a browser: what broke stands on the first screen, at any width."""

import json
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree as xml

import nbformat
import pytest

from nbregress import notebooks, report
from nbregress.result import Result
from support.axe import violations
from support.browser import CHROMIUM

SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}
# What a stranger's notebook may show: scripts of every kind, and pictures from elsewhere.
STRANGER = """from IPython.display import HTML, display
display(HTML("<script>document.title = 'taken'</script><img src=x onerror='document.title = 1'>"))
display(HTML("<img src='https://example.org/spy.png'><iframe src='https://example.org'></iframe>"))"""
ERROR = "TypeError: SFTTrainer.__init__() got an unexpected keyword argument 'tokenizer'"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Run a copy of 02 with the keyword that trl removed, and a good notebook; return the folder."""
    from nbregress import schedule
    from nbregress.plan import Plan

    folder = tmp_path_factory.mktemp("broken")
    source = (notebooks.notebooks_dir() / "02_lora.ipynb").read_text(encoding="utf-8")
    assert source.count("processing_class=tokenizer)\\n") == 1
    old = source.replace("processing_class=tokenizer)\\n", "tokenizer=tokenizer)\\n")
    (folder / "02_lora.ipynb").write_text(old, encoding="utf-8")
    good = notebooks.parse(old, "good")
    good.cells = [cell for cell in good.cells if "parameters" in notebooks.tags(cell)]
    good.cells.append(nbformat.v4.new_code_cell(STRANGER))
    (folder / "98_good.ipynb").write_text(json.dumps(good), encoding="utf-8")
    paths = [folder / "02_lora.ipynb", folder / "98_good.ipynb"]
    with ThreadPoolExecutor(2) as pool:
        store = schedule.run(paths, folder / "out", Plan(timeout_s=600), executor=pool)
    assert [row.status for row in store.rows] == ["failed", "passed"]
    return folder / "out"


def test_a_removed_keyword_is_named_with_notebook_and_cell(broken):
    row = json.loads((broken / "metrics.json").read_text())["notebooks"][0]
    assert row["cell_id"] == "train"
    assert row["reason"].startswith(f"cell {row['cell']} [train]") and ERROR in row["reason"]
    failure = xml.parse(broken / "junit.xml").find(".//failure")
    assert ERROR in failure.get("message") and ERROR in failure.text


@pytest.fixture(params=SCREENS)
def page(request, broken):
    """Open the report in headless Chromium, on a desktop's and on a phone's screen."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: nothing to look at")
    width, height = SCREENS[request.param]
    size = {"width": width, "height": height}
    page = request.getfixturevalue("chromium").new_page(viewport=size)
    page.asked = []
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.goto(f"file://{broken}/report.html")
    yield page
    page.close()


def test_the_first_screen_says_what_broke(page):
    fault = page.locator(".fault").first
    assert "02_lora failed at cell" in fault.inner_text() and "[train]" in fault.inner_text()
    assert "train_dataset=dataset, tokenizer=tokenizer" in fault.locator("pre").first.inner_text()
    error = fault.locator(".error")
    assert error.inner_text() == ERROR
    box = error.bounding_box()
    assert box["y"] + box["height"] < page.viewport_size["height"]
    assert box["x"] + box["width"] <= page.viewport_size["width"]


def test_nothing_keeps_people_out(page):
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = violations(page, apart_from=['[id="98_good"]'])  # pictures of a stranger, without words
    # The corner above a pandas table's index is an empty header: minor, and not ours.
    assert [each for each in found if each[0] != "empty-table-header"] == []


def test_the_page_needs_nothing_else_and_never_scrolls_sideways(page):
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert page.title() == "1 of 2 notebooks good (tiny)"  # no script of a notebook runs


ARROW = "Cell In[3], line {0}\n----> {0} {1}\n\nTypeError: no"


@pytest.mark.parametrize(
    ("source", "line", "shown"),
    [
        ("x = 1\ny = f(\n    a,\n)", 2, "y = f(\n    a,\n)"),
        ("if x:\n    y = f(\n        a,\n    )", 3, "y = f(\n    a,\n)"),
        ("%matplotlib inline\nf(a)", 2, "f(a)"),
        ("f(" + ",\n".join("abcdefghij") + ")", 3, "c,"),
        ("", 1, "gone"),
    ],
)
def test_the_failing_statement_is_shown_whole_if_it_is_short(source, line, shown):
    lines = source.splitlines()
    pointed = lines[line - 1] if lines else "gone"
    row = Result("x", "failed", source=source, traceback=ARROW.format(line, pointed))
    assert report.failing_call(row) == shown
    assert report.failing_call(Result("x", "failed", source=source)) == ""
