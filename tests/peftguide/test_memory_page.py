"""The memory calculator: its answers, and moved in a browser, with a kernel and without."""

import nbformat
import pytest

import peftmemory
from peftguide.pages import memory_page
from peftguide.pages.memory import controls, memory_calculator
from peftguide.pages.memory_answer import answer
from support.browser import browser, screenshot, voila

CHOICES = {
    "model": "llama-3.1-8b",
    "method": "lora",
    "rank": 16,
    "targets": "all linear",
    "virtual_tokens": 30,
    "batch": 2,
    "seq": 1024,
    "precision": "bf16",
    "optimizer": "adamw_torch_fused",
    "checkpointing": False,
    "loss": "plain",
    "attention": "sdpa",
    "card": 24,
}


def test_the_answer_is_the_estimate():
    method = peftmemory.method("lora", r=16, target_modules="all-linear")
    step = {"batch": 2, "seq": 1024, "optimizer": "adamw_torch_fused"}
    found = peftmemory.estimate("llama-3.1-8b", method, **step)
    text = answer(CHOICES)
    assert f'data-peak-gib="{found.peak / peftmemory.GIB:.3f}"' in text
    assert "It does not fit a card of 24 GB" in text and "It would fit with" in text
    assert 'alt="frozen weights 14.96 GiB' in text and "Largest model here that fits" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"rank": -4}, "r must be at least 1"),
        ({"rank": 100_000}, "choose a rank of at most"),
        ({"method": "prefix", "checkpointing": True}, "turn one of the two off"),
        ({"method": "prompt", "virtual_tokens": 0}, "num_virtual_tokens must be at least 1"),
        ({"method": "full", "precision": "nf4"}, "4-bit weights cannot be trained"),
    ],
)
def test_bad_input_is_a_sentence(change, sentence):
    text = answer({**CHOICES, **change})
    assert sentence in text and text.startswith('<p class="memory-refusal"')
    assert "Traceback" not in text


def test_a_control_changes_the_answer():
    box = controls("llama-3.1-8b", 24)
    grid, out = box.children
    parts = {part.description: part for part in grid.children}
    before = out.value
    parts["checkpointing"].value = True
    assert out.value != before and "memory-answer" in out.value
    parts["method"].value = "prefix"
    assert "turn one of the two off" in out.value
    assert parts["rank r"].disabled and not parts["virtual tokens"].disabled


def test_the_page_holds_the_packages_numbers():
    found = memory_page.numbers()
    last = peftmemory.estimate(
        memory_page.MODELS[-1],
        memory_page.EVERYWHERE,
        batch=1,
        seq=memory_page.TOKENS[-1],
        optimizer="adamw_torch_fused",
        precision="nf4",
        checkpointing=True,
        loss="chunked",
    )
    assert sum(found["rows"][-1]) / 100 == pytest.approx(last.peak / peftmemory.GIB, abs=0.04)
    choices = [len(found[name]) for name in ("models", "methods", "tokens")]
    assert len(found["rows"]) == choices[0] * choices[1] * choices[2] * 4
    assert any("turn one of the two off" in row for row in found["rows"] if isinstance(row, str))


def test_without_a_kernel_there_are_a_figure_and_a_page(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda thing, raw=False: shown.append(thing))
    assert memory_calculator() is None
    figure, page = shown[0]["text/html"], shown[1].data
    assert figure.startswith('<img alt="Peak memory of one step of llama-3.1-8b')
    assert "http" not in page and len(page) < 60_000


@browser
def test_moved_in_voila_it_changes_figure_and_numbers(tab, tmp_path):
    with voila(tmp_path) as address:
        tab.goto(address, wait_until="domcontentloaded")
        shown = tab.locator(".memory-answer")
        shown.wait_for(timeout=120_000)
        peak = float(shown.get_attribute("data-peak-gib"))
        figure = shown.locator("img").get_attribute("src")
        screenshot(tab, "voila-before")
        tab.locator(".noUi-handle").first.focus()
        tab.keyboard.press("ArrowRight")
        changed = f"document.querySelector('.memory-answer').dataset.peakGib > {peak}"
        tab.wait_for_function(changed, timeout=30_000)
        assert shown.locator("img").get_attribute("src") != figure
        screenshot(tab, "voila-after")
        tab.get_by_label("batch").fill("-3")
        tab.keyboard.press("Enter")
        refusal = tab.locator(".memory-refusal")
        refusal.wait_for(timeout=30_000)
        assert "batch must be a whole number of at least 1, not -3." in refusal.inner_text()
        screenshot(tab, "voila-refusal")


@browser
def test_moved_in_exported_html_it_changes_figure_and_numbers(tab, tmp_path):
    from nbconvert import HTMLExporter

    output = nbformat.v4.new_output(
        "display_data", {"text/html": memory_page.page("llama-2-7b", 24)}
    )
    cell = nbformat.v4.new_code_cell("", id="calculator", outputs=[output])
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "page.html").write_text(body)
    tab.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    root, sentence = tab.locator("#memory-page"), tab.locator("#memory-page .sentence")
    before, words = root.get_attribute("data-peak-gib"), sentence.inner_text()
    assert "It does not fit a card of 24 GB" in words and "It would fit with" in words
    bar = tab.locator("#memory-page .bar").inner_html()
    screenshot(tab, "page-before")
    tab.get_by_label("gradient checkpointing").check()
    assert float(root.get_attribute("data-peak-gib")) < float(before)
    assert sentence.inner_text().startswith("It fits a card of 24 GB")
    assert tab.locator("#memory-page .bar").inner_html() != bar
    screenshot(tab, "page-after")
    tab.get_by_label("method").select_option(label="prefix, 30 tokens")
    assert "turn one of the two off" in sentence.inner_text()
