"""The method chooser: its answers, and moved in a browser, with a kernel and without."""

import json
import re

import nbformat

import peftguide
from peftguide import pages
from peftguide.pages import chooser_page
from peftguide.pages.chooser import controls
from peftguide.pages.chooser_answer import answer
from support.browser import browser, screenshot, voila

ASKED = {"task": "learn", "model": "llama-3.1-8b", "card_gib": 16, "tasks": 1}


def test_a_control_changes_the_answer():
    box = controls("llama-3.1-8b", 80)
    parts = {part.description: part for part in box.children[0].children}
    out = box.children[1]
    assert (
        f'data-method="{peftguide.choose("learn", model="llama-3.1-8b", card_gib=80).method}"'
        in out.value
    )
    parts["card"].value = 16
    assert 'data-method="qlora"' in out.value and "<pre" in out.value
    parts["model"].value = "roberta-base"
    assert "roberta-base is for task" in out.value and "Traceback" not in out.value


def test_the_answer_holds_method_reasons_rows_and_cell():
    choice, text = peftguide.choose(**ASKED), answer(ASKED)
    assert f'data-method="{choice.method}"' in text and "LoraConfig(" in text
    assert text.count("<tr>") == 1 + len(choice.arms)
    assert text.count("<li>") == len(choice.why) + len(choice.alternatives)
    assert "http" not in text.replace("https://", "") and 'role="alert"' not in text


def test_the_page_holds_the_guides_answers():
    found = chooser_page.numbers()
    sizes = [len(options) for _, options in found["fields"]]
    asked = dict(ASKED, latency="small", tooling="any")
    values = [[value for _, value in options] for _, options in found["fields"]]
    place = 0
    for (name, _), options, size in zip(found["fields"], values, sizes, strict=True):
        place = place * size + options.index(asked[name])
    method, _, why, *_ = found["found"][found["answers"][place]]
    choice = peftguide.choose(**asked)
    assert method == choice.method and len(found["groups"][why]) == len(choice.why)


def test_without_a_kernel_there_is_a_page(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    assert pages.method_chooser() is None
    (page,) = (thing.data for thing in shown)
    assert "http" not in page and len(page.encode()) < 80_000
    json.loads(re.search(r"const data = (\{.*\});", page).group(1).replace("<\\/", "</"))


@browser
def test_moved_in_voila_it_changes_the_answer(tab, tmp_path):
    with voila(tmp_path, "method_chooser") as address:
        tab.goto(address, wait_until="domcontentloaded")
        shown = tab.locator(".chooser-answer")
        shown.wait_for(timeout=240_000)
        assert shown.get_attribute("data-method") == peftguide.choose("learn").method
        screenshot(tab, "chooser-voila")
        tab.get_by_label("model").select_option(label="llama-3.1-8b")
        tab.get_by_label("card").select_option(label="16 GB")
        changed = "document.querySelector('.chooser-answer').dataset.method === 'qlora'"
        tab.wait_for_function(changed, timeout=60_000)
        assert "BitsAndBytesConfig(" in tab.locator(".chooser-answer pre").inner_text()
        tab.set_viewport_size({"width": 500, "height": 900})
        width = "document.querySelector('.chooser-answer').getBoundingClientRect().right"
        tab.wait_for_function(f"{width} <= 500", timeout=30_000)
        screenshot(tab, "chooser-voila-narrow")


@browser
def test_moved_in_a_page_without_a_kernel_it_changes_the_answer(tab, tmp_path):
    from nbconvert import HTMLExporter

    page = {"text/html": chooser_page.page("llama-3.1-8b", 80)}
    output = nbformat.v4.new_output("display_data", page)
    cell = nbformat.v4.new_code_cell("", id="chooser", outputs=[output])
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "page.html").write_text(body)
    tab.set_viewport_size({"width": 1200, "height": 900})
    tab.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    root = tab.locator("#chooser-page")
    screenshot(tab, "chooser-page")
    tab.get_by_label("card").select_option(label="16 GB")
    assert root.get_attribute("data-method") == "qlora"
    assert "load_in_4bit=True" in root.locator("pre").inner_text()
    root.get_by_role("button", name="copy").click()
    assert root.locator("button").inner_text() in ("copied", "press Ctrl+C")
    tab.get_by_label("model").select_option(label="roberta-base")
    assert "roberta-base is for task" in root.get_by_role("alert").inner_text()
    tab.locator("select[name=task]").select_option(value="2")
    assert root.locator("h4").count() == 3
    tab.set_viewport_size({"width": 500, "height": 900})
    assert tab.evaluate("document.getElementById('chooser-page').scrollWidth") <= 500
    screenshot(tab, "chooser-page-narrow")
