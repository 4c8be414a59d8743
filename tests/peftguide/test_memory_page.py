"""The memory calculator: its answers, and moved in a browser, with a kernel and without."""

import json
import re
from collections import Counter
from itertools import product

import nbformat
import pytest

import peftmemory
from peftguide.pages import memory
from peftguide.pages.memory import as_html, controls, memory_calculator
from pefthelpers.figures.memory import KINDS
from peftmemory.errors import EstimateError
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
    "card_gib": 24,
}


def test_the_answer_is_the_estimate():
    method = peftmemory.method("lora", r=16, target_modules="all-linear")
    step = {"batch": 2, "seq": 1024, "optimizer": "adamw_torch_fused"}
    found = peftmemory.estimate("llama-3.1-8b", method, **step)
    text = as_html(**CHOICES)
    assert f'data-peak-gib="{found.peak / peftmemory.GIB:.3f}"' in text
    assert "It does not fit a card of 24 GiB" in text and "It would fit with" in text
    assert 'alt="frozen weights 14.96 GiB' in text and "Largest model here that fits" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"rank": -4}, "r must be a whole number of at least 1"),
        ({"rank": 100_000}, "choose a rank of at most"),
        ({"method": "prefix", "checkpointing": True}, "turn one of the two off"),
        (
            {"method": "prompt", "virtual_tokens": 0},
            "num_virtual_tokens must be a whole number of at least 1",
        ),
        ({"method": "full", "precision": "nf4"}, "4-bit weights cannot be trained"),
    ],
)
def test_bad_input_is_a_sentence(change, sentence):
    text = as_html(**CHOICES | change)
    assert sentence in text and text.startswith('<p class="memory-refusal"')
    assert "Traceback" not in text


def test_a_control_changes_the_answer(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda thing: shown.append(thing.data))
    box = controls("llama-3.1-8b", 24)
    parts = {part.description: part for part in box.children[0].children}
    assert len(shown) == 1
    parts["checkpointing"].value = True
    assert len(shown) == 2 and shown[0] != shown[1] and "memory-answer" in shown[1]
    parts["method"].value = "prefix"
    assert "turn one of the two off" in shown[-1]
    assert parts["rank"].disabled and not parts["virtual tokens"].disabled


@pytest.fixture(scope="module")
def page():
    return memory.page("llama-2-7b", 24)


@pytest.fixture(scope="module")
def everything():
    """Every setting: its place in the page, the card, and what ``peftmemory`` says about it."""
    return list(everything_the_page_can_ask())


def everything_the_page_can_ask():
    chosen = product(memory.TOKENS, (False, True), ("plain", "chunked"))
    models = map(peftmemory.load_config, memory.MODELS)
    asked = product(models, memory.METHODS, chosen)
    for place, (model, method, choice) in enumerate(asked):
        step = memory.step_of(method, *choice)
        what = memory.METHODS[method][0]
        for card in peftmemory.CARDS_GIB:
            try:
                said = str(peftmemory.advise(model, what, card_gib=card, **step))
            except EstimateError as error:
                said = str(error)
            yield place, card, said


def sentence_in(data, place, card):
    """Return what the page's own data says about a setting."""
    row = data["rows"][place]
    if len(row) == 1:
        return data["sentences"][data["said"][row[0]][0]]
    cards = row[1 + len(data["kinds"]) - len(data["resting"][0]) :]
    verdict, remedy, changed = data["said"][cards[min(data["cards"].index(card), len(cards) - 1)]]
    said = f"{data['sentences'][verdict]} {data['sentences'][remedy]}".rstrip()
    for figure in (card, row[0] / 10, changed / 10):
        said = said.replace("#", str(figure), 1)
    return said


def data_of(page):
    """Return what stands in a page as its data."""
    return json.loads(re.search(r"const data = (.*);\n", page)[1])


def test_the_page_says_what_advise_says_in_every_setting(page, everything):
    data, found = data_of(page), Counter()
    for place, card, said in everything:
        assert sentence_in(data, place, card) == said
        found[said.split(" a card")[0]] += 1
    assert found["It does not fit"] > 2500 and found["It fits"] > 2500
    assert sum(found.values()) == 6 * 9 * 6 * 4 * 5


def test_the_page_draws_the_packages_numbers(page):
    data = data_of(page)
    last = peftmemory.estimate(
        memory.MODELS[-1],
        peftmemory.EVERYWHERE,
        batch=1,
        seq=memory.TOKENS[-1],
        optimizer="adamw_torch_fused",
        precision="nf4",
        checkpointing=True,
        loss="chunked",
    )
    row, resting = data["rows"][-1], data["resting"][-1]
    parts = [*resting, *row[1 : 1 + len(data["kinds"]) - len(resting)]]
    sizes = [last.kinds.get(kind, 0) / peftmemory.GIB for kind in KINDS]
    assert [part / 100 for part in parts] == pytest.approx(sizes, abs=0.006)
    assert row[0] / 10 == round(last.peak / peftmemory.GIB, 1)


def test_without_a_kernel_there_are_a_figure_and_a_page(page, monkeypatch):
    shown, numbers = [], data_of(page)
    del numbers["first"]
    monkeypatch.setattr(memory, "numbers", lambda: numbers)  # they depend on no argument
    monkeypatch.setattr("IPython.display.display", lambda thing, raw=False: shown.append(thing))
    assert memory_calculator() is None
    figure, text = shown[0]["text/html"], shown[1].data
    assert figure.startswith('<img alt="llama-3.1-8b, one sequence of 2,048 tokens')
    # 66,000 since a card that it may fit is followed by the one that it fits.
    assert "http" not in text and len(text) < 70_000


# Turn the page's controls through some settings, and collect its sentences.
TURN = """(settings) => {
    const root = document.getElementById("memory-page");
    const set = (name, value) => {
        const input = root.querySelector(`[name=${name}]`);
        input[input.type === "checkbox" ? "checked" : "value"] = value;
        input.onchange();
    };
    return settings.map((setting) => {
        for (const [name, value] of Object.entries(setting)) set(name, value);
        return root.querySelector(".sentence").textContent;
    });
}"""
SWITCHES = ("model", "method", "tokens", "checkpointing", "loss", "card")


def spread(everything):
    """Return settings by their controls, and what is said: every option of every control is among them."""
    sizes = (len(memory.MODELS), len(memory.METHODS), len(memory.TOKENS), 2, 2)
    for number, (place, card, said) in enumerate(everything):
        if number % 43 == 0:  # shares no factor with the number of any control's options
            yield dict(zip(SWITCHES, (*places(place, sizes), str(card)), strict=True)), said


def places(place, sizes):
    """Return the options that a row of the page's data stands for, as the controls know them."""
    found = []
    for size in reversed(sizes):
        place, option = divmod(place, size)
        found.append(bool(option) if size == 2 else str(option))
    return reversed(found)


def test_some_settings_hold_every_option(everything):
    chosen = [setting for setting, _ in spread(everything)]
    options = {name: {setting[name] for setting in chosen} for name in SWITCHES}
    assert len(chosen) == 151
    assert [len(found) for found in options.values()] == [6, 9, 6, 2, 2, 5]


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
def test_moved_in_exported_html_it_changes_figure_and_numbers(tab, tmp_path, page, everything):
    from nbconvert import HTMLExporter

    output = nbformat.v4.new_output("display_data", {"text/html": page})
    cell = nbformat.v4.new_code_cell("", id="calculator", outputs=[output])
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "page.html").write_text(body)
    tab.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    settings, said = zip(*spread(everything), strict=True)
    first = {"model": "3", "method": "4", "tokens": "2", "card": "24"}
    first |= {"checkpointing": False, "loss": False}
    assert tab.evaluate(TURN, [*settings, first])[:-1] == list(said)
    root, sentence = tab.locator("#memory-page"), tab.locator("#memory-page .sentence")
    before, words = root.get_attribute("data-peak-gib"), sentence.inner_text()
    assert "It does not fit a card of 24 GiB" in words and "It would fit with" in words
    bar = tab.locator("#memory-page .bar").inner_html()
    screenshot(tab, "page-before")
    tab.get_by_label("gradient checkpointing").check()
    assert float(root.get_attribute("data-peak-gib")) < float(before)
    assert sentence.inner_text().startswith("It fits a card of 24 GiB")
    assert tab.locator("#memory-page .bar").inner_html() != bar
    screenshot(tab, "page-after")
    tab.get_by_label("method").select_option(label="prefix, 30 tokens")
    assert "turn one of the two off" in sentence.inner_text()
