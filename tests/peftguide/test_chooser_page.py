"""The method chooser: its answers, and moved in a browser, with a kernel and without."""

import json
import re
from itertools import product

import nbformat

import peftguide
from peftguide import pages
from peftguide.pages import chooser
from support.browser import browser, screenshot, voila

ASKED = {"task": "learn", "model": "llama-3.1-8b", "card_gib": 16, "tasks": 1}


def test_a_control_changes_the_answer():
    box = chooser.controls("llama-3.1-8b", 80)
    parts = {part.description: part for part in box.kwargs_widgets}
    first = peftguide.choose("learn", model="llama-3.1-8b", card_gib=80)
    assert f'data-method="{first.method}"' in box.result.data
    parts["card"].value = 16
    assert 'data-method="qlora"' in box.result.data and "<pre" in box.result.data
    parts["model"].value = "roberta-base"
    assert "roberta-base is for task" in box.result.data and "Traceback" not in box.result.data


def test_the_answer_holds_method_reasons_rows_and_cell():
    choice, text = peftguide.choose(**ASKED), chooser.answer(**ASKED)
    assert f'data-method="{choice.method}"' in text and "LoraConfig(" in text
    assert text.count("<tr>") == 1 + len(choice.arms)
    assert text.count("<li>") == len(choice.why) + len(choice.alternatives)
    assert "http" not in text.replace("https://", "") and 'role="alert"' not in text


def test_what_is_shown_is_text_and_no_markup():
    choice = peftguide.Choice(peftguide.Requirements("learn"), None, "<b>", ["a < b"], {"<i>": "&"})
    text = choice._repr_html_()
    assert "&lt;b&gt;" in text and "a &lt; b" in text and "&lt;i&gt;: &amp;" in text


def test_the_page_holds_the_answer_to_every_combination_of_its_choices():
    found, options = chooser.numbers(), chooser.fields()
    names = [name for name, _ in found["fields"]]
    assert names == list(options)
    asked = product(*([options[name][word] for word in words] for name, words in found["fields"]))
    for place, values in zip(found["places"], asked, strict=True):
        parts = [found["parts"][part] for part in found["answers"][place]]
        text = "\n<h3>".join("\n".join(found["lines"][line] for line in part) for part in parts)
        assert text == chooser.answer(**dict(zip(names, values, strict=True)))


def test_without_a_kernel_there_is_a_page(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    assert pages.method_chooser() is None
    (page,) = (thing.data for thing in shown)
    assert "http" not in page and len(page.encode()) < 95_000
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

    page = {"text/html": chooser.page("llama-3.1-8b", 80)}
    output = nbformat.v4.new_output("display_data", page)
    cell = nbformat.v4.new_code_cell("", id="chooser", outputs=[output])
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "page.html").write_text(body)
    tab.set_viewport_size({"width": 1200, "height": 900})
    tab.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    root = tab.locator("#chooser-page")
    screenshot(tab, "chooser-page")
    tab.get_by_label("card").select_option(label="16 GB")
    assert root.locator(".chooser-answer").get_attribute("data-method") == "qlora"
    assert "load_in_4bit=True" in root.locator("pre").inner_text()
    root.get_by_role("button", name="copy").click()
    assert root.locator("button").inner_text() in ("copied", "press Ctrl+C")
    tab.get_by_label("model").select_option(label="roberta-base")
    assert "roberta-base is for task" in root.get_by_role("alert").inner_text()
    tab.locator("select[name=task]").select_option(value="3")
    assert root.locator("h3").count() == 3
    tab.set_viewport_size({"width": 500, "height": 900})
    assert tab.evaluate("document.getElementById('chooser-page').scrollWidth") <= 500
    screenshot(tab, "chooser-page-narrow")
