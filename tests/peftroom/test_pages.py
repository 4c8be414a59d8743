"""Book, slides and exported pages of four notebooks: built and seen without a network."""

import re
import socket
from pathlib import Path

import nbformat
import pytest

from pefthelpers.errors import UserError
from peftroom import links, prepared, slides
from peftroom.cli import main
from support import seen
from support.browser import browser

ROOT = Path(__file__).resolve().parents[2]
# Formulas, captions, links in tables, figures, a quiz and the chooser.
FOUR = ["04", "06b", "07", "07b"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Build each kind of page of four notebooks while every address but this machine's is refused."""
    out, asked = tmp_path_factory.mktemp("pages"), []
    connect = socket.socket.connect

    def refused(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            asked.append(address)
            raise OSError(f"refused: {address}")
        return connect(self, address)

    socket.socket.connect = refused
    try:
        for kind in ("book", "slides", "export"):
            assert main([kind, *FOUR, "--out", str(out / kind)]) == 0, kind
    finally:
        socket.socket.connect = connect
    assert asked == []
    return out


@pytest.fixture(scope="module")
def started():
    with seen.browser() as chromium:
        yield chromium


def tables_and_figures(notebook):
    """Count the outputs of a recorded notebook that are tables, and those that are figures."""
    pages = [
        output.get("data", {}).get("text/html", "")
        for cell in nbformat.read(notebook, 4).cells
        for output in cell.get("outputs", [])
    ]
    return sum("<table" in page for page in pages), sum("<img alt" in page for page in pages)


@pytest.mark.parametrize("page", ["book/notebooks/07_comparison", "export/07_comparison"])
def test_every_table_and_figure_of_the_record_is_on_the_page(made, page):
    text = (made / f"{page}.html").read_text(encoding="utf-8")
    tables, figures = tables_and_figures(ROOT / "notebooks" / "07_comparison.ipynb")
    assert tables > 3 and text.count("<table") >= tables
    assert figures > 3 and len(re.findall("<img alt=", text)) >= figures
    assert text.count('<p class="caption">') >= figures


@browser
@pytest.mark.parametrize("phone", [False, True])
def test_pages_are_whole_without_a_network(made, started, phone):
    faults = []
    for kind in ("book/notebooks", "export"):
        for file in sorted((made / kind).glob("*.html")):
            found, page = seen.look(started, file.as_uri(), phone=phone, dark=phone)
            formulas = page.evaluate("document.querySelectorAll('mjx-container svg').length")
            page.close()
            wide = max(0, found.wider)
            bad = [found.elsewhere, found.failed, found.errors, found.serious(), wide]
            faults += [(file, bad)] if any(bad) or not formulas else []
    assert faults == []


@browser
def test_chooser_and_quiz_answer_on_an_exported_page(made, started):
    _, page = seen.look(started, (made / "export/07_comparison.html").as_uri(), check_axe=False)
    before = page.inner_text("#chooser-page .answer")
    page.select_option("#chooser-page select[name=task]", index=3)
    assert page.inner_text("#chooser-page .answer") != before
    page.locator(".quiz-07 .MCButton").first.click()
    assert page.locator(".quiz-07 .Feedback").first.inner_text().strip()
    page.close()


@browser
def test_slides_can_be_read_from_the_last_row(made, started):
    for file in sorted((made / "slides").glob("*.html")):
        found, page = seen.look(started, file.as_uri())
        page.close()
        assert not any([found.elsewhere, found.failed, found.errors, found.serious()]), found
        assert len(found.slides) > 15
        for high, wide, letters, lines, inner in found.slides:
            assert high <= 720 and wide <= 1280 and letters >= 24 and lines <= 15 and not inner


@browser
@pytest.mark.parametrize("where", ["served", "from a disk"])
def test_the_search_finds_a_word(made, started, where):
    with seen.served(made / "book") as address:
        base = address if where == "served" else (made / "book").as_uri()
        found, page = seen.look(started, f"{base}/search.html?q=adapter", check_axe=False)
        page.wait_for_selector("ul.search li a")
        page.close()
    assert found.errors == [] and found.failed == []


@pytest.fixture
def clone(tmp_path):
    """Make a clone whose README names one small notebook."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("# Read me\n\n[One](notebooks/01_one.ipynb)\n")
    return tmp_path


def notebook(clone, text):
    cells = [nbformat.v4.new_markdown_cell(text, id="text")]
    path = clone / "notebooks" / "01_one.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# One\n\n[gone](02_gone.ipynb)", "02_gone.ipynb"),
        ("# One\n\n[no such place](#nowhere)", "nowhere"),
        ("# One\n\n![a plot](plot.png)", "plot.png"),
        ('# One\n\n<img src="plot.png" alt="">', "plot.png"),
        ('# One\n\n<img src="https://example.org/plot.png" alt="">', "would ask the network"),
    ],
)
def test_a_book_with_a_fault_is_not_made(clone, capsys, text, said):
    code = main(["book", str(notebook(clone, text)), "--out", str(clone / "out")])
    error = capsys.readouterr().err
    assert code == 2 and said in error and error.count("\n") == 1


def test_a_book_without_a_fault_is_made(clone, capsys):
    path = notebook(
        clone, "# One\n\n$x^2$, [here](#one), [home](../README.md), [all](../notebooks)"
    )
    assert main(["book", str(path), "--out", str(clone / "out")]) == 0, capsys.readouterr().err
    page = (clone / "out/notebooks/01_one.html").read_text()
    assert 'href="../index.html"' in page and "tree/main/notebooks" in page


@pytest.mark.parametrize(
    ("target", "page"),
    [
        ("00_start_here.ipynb#The-words", "00.html#The-words"),
        ("02_lora.ipynb", f"{prepared.repository()}/blob/main/notebooks/02_lora.ipynb"),
        ("../src/peftbottleneck", f"{prepared.repository()}/tree/main/src/peftbottleneck"),
        ("https://example.org/a", "https://example.org/a"),
        ("#here", "#here"),
    ],
)
def test_where_a_link_leads(target, page):
    pages = {ROOT / "notebooks/00_start_here.ipynb": "00.html"}
    to = prepared.leads(ROOT / "notebooks/01_full_finetuning_memory.ipynb", pages)
    assert to(target) == page
    assert prepared.linked(f"`[a]({target})` [b]({target})", to) == f"`[a]({target})` [b]({page})"
    script = f'<script><a href="{target}"></script>'
    assert (
        prepared.output_linked(f'{script}<a href="{target}">', to) == f'{script}<a href="{page}">'
    )


def test_a_link_to_nothing_is_refused():
    with pytest.raises(UserError, match="mend the link"):
        prepared.leads(ROOT / "notebooks/02_lora.ipynb", {})("../src/gone.py")


def test_links_are_looked_up_in_pages(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y">b</a><a href="#x">x</a>')
    (tmp_path / "b.html").write_text('<p id="y"><img src="c.png">')
    (tmp_path / "c.png").write_bytes(b"")
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    links.check(pages)
    (tmp_path / "c.png").unlink()
    with pytest.raises(UserError, match=r"c\.png"):
        links.check(pages)


def test_a_cell_s_own_word_wins_over_the_rule():
    text = lambda source, **metadata: nbformat.v4.new_markdown_cell(source, metadata=metadata)
    kind = lambda name: {"slide_type": name}
    ready = nbformat.v4.new_notebook(
        cells=[
            text("# One\n\nFirst sentence. Second one.\n\n**Predict** it."),
            text("Not here.", slideshow=kind("skip")),
            text("Only said.", slideshow=kind("notes")),
        ]
    )
    slides.rule(ready)
    assert [(slides.kind_of(cell), cell.source) for cell in ready.cells] == [
        ("slide", "# One\n\n**Predict** it."),
        ("notes", "First sentence. Second one.\n\n**Predict** it."),
        ("notes", "Only said."),
    ]


def test_a_machine_without_the_packages_gets_one_sentence(monkeypatch):
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'pefthelpers\[book\]'"):
        prepared.mathjax()
