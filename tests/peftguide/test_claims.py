"""The claims ledger: complete, its evidence there, its numbers recorded, its table moved."""

import copy
import dataclasses
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import nbformat
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from nbregress import notebooks
from peftguide import claims
from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir
from support.browser import browser
from support.cells import Cells
from support.claims_form import LedgerForm, Topic

LEDGER = claims.load()
CITED = sorted({(e.notebook, e.cell) for claim in LEDGER for e in claim.evidence if e.cell})


@pytest.fixture
def entries():
    """Return the ledger as it is written, to be spoilt."""
    return copy.deepcopy(yaml.safe_load((data_dir() / "claims.yaml").read_text()))


@cache
def read(stem):
    """Return a notebook of the collection, read once."""
    return notebooks.read(notebooks.find([stem])[0])


def shown(stem, cell):
    """Return what a cell of a notebook shows, outputs as text; fail where there is no such cell."""
    found = [c for c in read(stem).cells if c.id == cell]
    assert found, f"{stem} has no cell {cell}"
    assert found[0].cell_type == "code"
    return json.dumps(found[0].outputs) if found[0].outputs else ""


def test_all_claims_have_a_verdict_and_evidence():
    assert [claim.claim for claim in LEDGER] == list(range(1, len(LEDGER) + 1))
    assert len(LEDGER) >= 77  # none is dropped
    assert {claim.verdict for claim in LEDGER} == set(claims.SIGNS)
    assert {claim.topic for claim in LEDGER} == set(get_args(Topic))
    assert all(claim.evidence and claim.says.endswith(".") for claim in LEDGER)


def test_forty_or_more_are_shown_by_an_executed_cell():
    assert sum(claim.executed for claim in LEDGER) >= 40


@pytest.mark.parametrize(("stem", "cell"), CITED)
def test_a_cited_cell_is_there_and_its_outputs_are_recorded(stem, cell):
    assert shown(stem, cell)


def test_a_notebooks_number_is_shown_by_a_cell_that_the_claim_cites():
    checked = 0
    for claim in LEDGER:
        for reference, _ in claims.REFERENCE.findall(claim.figure):
            stem, name = reference.split("/")[0], reference.split("/")[-1]
            if (notebooks.notebooks_dir() / f"{stem}.ipynb").exists():
                cells = [e.cell for e in claim.evidence if e.notebook == stem]
                assert any(name in shown(stem, cell) for cell in cells), (claim.claim, reference)
                checked += 1
    assert checked >= 30


@pytest.mark.parametrize("claim", LEDGER, ids=lambda claim: str(claim.claim))
def test_every_figure_is_words_and_numbers(claim):
    figure = claims.resolve(claim.figure)
    assert not re.search(r"[{}]|\bnan\b|\binf\b", figure)
    assert 10 < len(figure) < 420 and len(claim.says) < 110


def test_most_claims_are_worked_out_again():
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_claims_*.py")]
    again = {
        int(n) for text in sources for n in re.findall(r"^def claim_(\d+)\(", text, re.MULTILINE)
    }
    assert again <= {claim.claim for claim in LEDGER} and len(again) >= 65


def test_notebook_01b_shows_the_ledgers_verdicts_and_the_recorded_figures():
    displayed = []
    book = Cells("01b_memory_in_depth")
    book.namespace |= {"display": displayed.append, "ledger": claims, "pd": pd}
    book.namespace["claims"] = results.read("memory_claims")
    shown = book.run("claims")
    (page,) = (each.data for each in displayed)
    assert [claim.claim for claim in LEDGER[:14]] == list(range(1, 15))
    assert page == claims.table(LEDGER[:14]).data and page.count("<tr data-verdict=") == 14
    assert shown.loc[("2", "GPT-3 r=4 q,v"), "figure"] == "0.011 %"


def test_no_study_has_verdicts_of_its_own():
    assert "verdict" not in json.dumps(results.read("memory_claims"))


def drop(entries):
    del entries[6]


def repeat(entries):
    entries.append(entries[0])


def change(field, value):
    return lambda entries: entries[4].update({field: value})


def test_the_ledger_has_its_form(entries):
    LedgerForm.model_validate(entries)


@pytest.mark.parametrize(
    ("spoil", "place", "message"),
    [
        (drop, (), "Assertion failed"),
        (repeat, (), "Assertion failed"),
        (change("verdict", "maybe"), (4, "verdict"), "Input should be 'true', 'only if'"),
        (change("verdict", False), (4, "verdict"), "Input should be 'true', 'only if'"),
        (change("topic", "cooking"), (4, "topic"), "Input should be 'memory'"),
        (change("claim", 60), (), "Assertion failed"),
        (change("claim", 0), (4, "claim"), "greater than or equal to 1"),
        (change("claim", "5"), (4, "claim"), "valid integer"),
        (change("says", "No end"), (4, "says"), "match pattern"),
        (change("extra", 1), (4, "extra"), "Extra inputs are not permitted"),
        (change("evidence", []), (4, "evidence"), "at least 1 item"),
        (change("evidence", "a cell"), (4, "evidence"), "valid list"),
        (change("evidence", [{"how": "guess"}]), (4, "evidence", 0), "does not match any"),
        (
            change("evidence", [{"how": "cell", "notebook": "02_lora"}]),
            (4, "evidence", 0, "cell", "cell"),
            "Field required",
        ),
        (
            change("evidence", [{"how": "paper", "source": ""}]),
            (4, "evidence", 0, "paper", "source"),
            "at least 1 character",
        ),
        (change("figure", "{02_lora/no_such_metric}"), (4, "figure"), "02_lora/no_such_metric"),
    ],
)
def test_a_spoilt_ledger_is_refused_where_it_is_spoilt(entries, spoil, place, message):
    spoil(entries)
    with pytest.raises(ValidationError) as refused:
        LedgerForm.model_validate(entries)
    (error,) = refused.value.errors()
    assert error["loc"] == place and message in error["msg"]


@pytest.mark.parametrize(
    ("figure", "sentence"),
    [
        ("{02_lora/no_such_metric}", "refers to '02_lora/no_such_metric'"),
        ("{no_such_study/rows}", "refers to 'no_such_study/rows'"),
        ("{lora_study/rows/r=3/test}", "which is not recorded"),
        ("{peft_metamathqa/rows/99/peak_gb}", "which is not recorded"),
        ("{memory_claims/date:.2f}", "has a format that fits no number"),
    ],
)
def test_a_number_that_is_not_recorded_is_refused_in_a_sentence(figure, sentence):
    spoilt = dataclasses.replace(LEDGER[4], figure=figure)
    with pytest.raises(UserError) as refused:
        claims.table([spoilt])
    assert sentence in str(refused.value) and str(refused.value).endswith(".")


@pytest.mark.parametrize(
    "text", ["- claim: [", "just words", "", "- claim: 1", "- {evidence: [1]}"]
)
def test_a_file_that_is_no_ledger_is_refused(tmp_path, text):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(UserError, match="ledger"):
        claims.load(tmp_path / "claims.yaml")
    with pytest.raises(UserError, match="no ledger that can be read"):
        claims.load(tmp_path / "absent.yaml")


def test_a_reference_is_a_value_an_item_or_a_mean():
    assert results.look_up("memory_claims/seventy_billion/qlora_gb") == 41.7
    assert results.look_up("memory_claims/seventy_billion/full_mixed_precision_states_gb/0") == 1129
    rows = json.loads((data_dir() / "results" / "lora_study.json").read_text())["rows"]
    tests = [r["test"] for r in rows if r["r"] == 16 and r["task"] == "learn"]
    mean = results.look_up("lora_study/rows/task=learn/r=16/test")
    assert mean == pytest.approx(sum(tests) / len(tests)) and len(tests) > 3
    assert claims.resolve("{memory_claims/seventy_billion/qlora_gb:.0f} GB") == "42 GB"
    assert claims.resolve("{02b_lora_in_depth/adam8bit_saving_full:.0%}") == "74 %"


RATES = [(0.01, 0.99, 3), (0.02, 1.0, 3), (0.005, 0.985, 2), (0.001, 0.2, 3)]


def test_chosen_keeps_the_mildest_rate_that_ties_and_ran_on_three_seeds(monkeypatch):
    """0.005 ties as well, but only two seeds ran there."""
    rows = [
        {"learning_rate": rate, "seed": seed, "validation": validation, "test": 100 * rate + seed}
        for rate, validation, seeds in RATES
        for seed in range(seeds)
    ]
    monkeypatch.setattr(results, "_referred", lambda name: {"rows": rows})
    assert results.look_up("study/rows/chosen/test") == pytest.approx(2.0)
    assert results.look_up("study/rows/chosen/learning_rate") == pytest.approx(0.01)
    monkeypatch.setattr(results, "_referred", lambda name: {"rows": rows[:2]})
    with pytest.raises(UserError, match="which is not recorded"):
        results.look_up("study/rows/chosen/test")


def test_the_article_is_named_and_the_rule_of_the_verdicts_is_written_down():
    title = "The Story That Explains Parameter-Efficient Fine-Tuning"
    heads = [(data_dir() / name).read_text() for name in ("claims.yaml", "README.md")]
    for head in (" ".join(text.replace("\n# ", " ").split()) for text in heads):
        assert title in head and "no setting in its range makes it true" in head


def test_counts_add_up():
    found = claims.counts()
    assert found["verdict"].sum() == len(LEDGER) and found["verdict"].min() > 0
    assert found["evidence", "any cell"] >= found["evidence", "cell"] >= 40
    assert claims.counts(LEDGER[:3])["verdict"].to_dict()["true"] == 2


def test_importing_and_rendering_bring_no_torch():
    code = "import sys; from peftguide import claims; claims.table(); print('torch' in sys.modules)"
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.strip() == "False"


def test_the_table_has_every_claim_as_text_and_needs_nothing_from_elsewhere():
    page = claims.table().data
    assert len(page.encode()) < 70_000 and "http" not in page and "src=" not in page
    assert page.count("<tr data-verdict=") == len(LEDGER)
    assert f"{len(LEDGER)} statements of one article" in page and "no setting in its range" in page
    for claim in LEDGER:
        assert f"{claims.SIGNS[claim.verdict]} {claim.verdict}<td>" in page
    for target in set(re.findall(r'href="([^"#]+)', page)):
        assert re.fullmatch(r"\d\d\w?_\w+\.ipynb", target)


def test_links_lead_to_headings_that_are_there():
    for stem, cell in CITED:
        heading = claims.sections(stem).get(cell)
        text = "\n".join(c.source for c in read(stem).cells if c.cell_type == "markdown")
        lines = [line.lstrip("# ").replace("`", "") for line in text.splitlines()]
        assert heading and heading in lines, (stem, cell)


def test_without_notebooks_the_links_lead_to_the_files(monkeypatch):
    def none():
        raise UserError("none here")

    claims.sections.cache_clear()
    monkeypatch.setattr(claims, "notebooks_dir", none)
    page = claims.table(LEDGER[:1]).data
    claims.sections.cache_clear()
    assert '<a href="01b_memory_in_depth.ipynb">01b</a>, cell <code>claims</code>' in page


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the address of the table as nbconvert exports it."""
    from nbconvert import HTMLExporter

    output = nbformat.v4.new_output("display_data", {"text/html": claims.table().data})
    cell = nbformat.v4.new_code_cell("claims.table()", id="ledger", outputs=[output])
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    path = tmp_path_factory.mktemp("ledger") / "page.html"
    path.write_text(body)
    return path.as_uri()


@pytest.fixture(params=[1200, 500])
def ledger(request, tab, exported):
    """Open the exported table in a browser window of this width, without a network."""
    tab.route(re.compile(r"^https?://"), lambda route: route.abort())
    tab.set_viewport_size({"width": request.param, "height": 900})
    tab.goto(exported, wait_until="domcontentloaded")
    return tab


@browser
def test_filtered_in_exported_html_it_shows_what_fits(ledger):
    rows = ledger.locator("#claims-ledger tbody tr:visible")
    assert rows.count() == len(LEDGER)
    assert ledger.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ledger.get_by_label("verdict").select_option("outdated")
    expected = [claim.claim for claim in LEDGER if claim.verdict == "outdated"]
    assert [int(text) for text in rows.locator("th").all_inner_texts()] == expected
    assert (
        ledger.locator("#claims-ledger .count").inner_text()
        == f"{len(expected)} of {len(LEDGER)} claims"
    )
    ledger.get_by_label("verdict").select_option("all")
    ledger.get_by_label("topic").select_option("merge")
    assert rows.count() == sum(claim.topic == "merge" for claim in LEDGER)
    ledger.get_by_label("topic").select_option("all")


@browser
def test_the_keyboard_is_enough(ledger):
    ledger.get_by_label("verdict").focus()
    ledger.keyboard.press("ArrowDown")  # all, true
    rows = ledger.locator("#claims-ledger tbody tr:visible")
    assert rows.count() == sum(claim.verdict == "true" for claim in LEDGER)
    ledger.keyboard.press("Tab")
    ledger.keyboard.press("Tab")
    ledger.keyboard.type("rslora asserted")
    assert rows.locator("th").all_inner_texts() == ["18"]
    ledger.keyboard.press("Tab")
    assert ledger.evaluate("document.activeElement.className") == "scroll"
