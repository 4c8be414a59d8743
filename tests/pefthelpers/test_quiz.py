"""The quizzes: their form, their cells in the notebooks, and one in a browser, with and without scripts."""

import re
from pathlib import Path

import pytest
import yaml

from nbregress import notebooks
from nbregress.lint import MEASURED
from pefthelpers import quiz
from pefthelpers.errors import UserError
from support.axe import violations
from support.browser import browser, screenshot

NUMBERS = sorted(path.stem for path in quiz.FOLDER.glob("*.yaml"))
BOOKS = {path.stem.split("_")[0]: path for path in notebooks.notebooks_dir().glob("*.ipynb")}
REFERENCE = re.compile(r"\{[^{}]*\}")


def texts(number):
    """Yield every text of a quiz as it stands in the file."""
    for each in yaml.safe_load((quiz.FOLDER / f"{number}.yaml").read_text("utf-8")):
        yield each["ask"]
        for option in each["options"]:
            yield from (option["say"], option["why"])


def cells(number):
    """Return the cells of a notebook that are tagged ``quiz``."""
    return [cell for cell in notebooks.read(BOOKS[number]).cells if "quiz" in notebooks.tags(cell)]


@pytest.mark.parametrize("number", NUMBERS)
def test_each_question_has_one_right_option_and_each_option_a_reason_of_its_own(number):
    questions = quiz.load(number)
    assert 4 <= len(questions) <= 6
    assert len({each["ask"] for each in questions}) == len(questions)
    for each in questions:
        assert {"ask", "options"} == each.keys() and each["ask"].endswith("?")
        options = each["options"]
        assert 3 <= len(options) <= 4
        assert all({"say", "why"} <= option.keys() <= {"say", "why", "right"} for option in options)
        for part in ("say", "why"):
            assert len({option[part] for option in options}) == len(options)
        assert all(len(option["why"].split()) >= 5 for option in options)
    # What YAML takes for a truth value or a number, such as a bare No, would be shown in another form.
    assert all(isinstance(text, str) and text == text.strip() for text in texts(number))
    assert not any("*" in text or text.count("`") % 2 for text in texts(number))


@pytest.mark.parametrize("number", NUMBERS)
def test_neither_the_place_nor_the_length_gives_the_right_option_away(number):
    right = [next(o for o in each["options"] if o.get("right")) for each in quiz.load(number)]
    pairs = list(zip(quiz.load(number), right, strict=True))
    places = [each["options"].index(one) for each, one in pairs]
    longest = [
        len(one["say"]) == max(len(o["say"]) for o in each["options"]) for each, one in pairs
    ]
    assert max(map(places.count, places)) <= len(places) / 2
    assert sum(longest) <= len(longest) / 2


@pytest.mark.parametrize("number", NUMBERS)
def test_no_measured_figure_is_typed(number):
    for text in texts(number):
        typed = REFERENCE.sub("", text)
        assert not MEASURED.search(typed), text
        # Rates and shares are references, or in words with their source; settings are not measured.
        settings = r"(?<![\w.])(0\.7|5\.24\.0)(?![\w.])"
        assert not re.search(r"\d\.\d", re.sub(settings, "", typed)), text


@pytest.mark.parametrize("number", NUMBERS)
def test_it_asks_nothing_of_a_network_and_stays_small(number):
    page = quiz.html(number)
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert len(page.encode()) < 25_000


@pytest.mark.parametrize("number", sorted({*NUMBERS, *BOOKS}))
def test_each_notebook_ends_on_its_quiz(number):
    assert number in NUMBERS, f"{number} has no quiz: see CONTRIBUTING, Change a quiz"
    assert number in BOOKS, f"{number}.yaml belongs to no notebook"
    (cell,) = cells(number)
    assert cell.id == "quiz" and cell.cell_type == "code"
    assert cell.source == f'from pefthelpers import quiz\n\nquiz.show("{number}")'
    ids = [each.id for each in notebooks.read(BOOKS[number]).cells]
    assert ids.count("quiz") == 1
    # Behind it stand closing words alone: no code, no exercise, no solution.
    closing = notebooks.read(BOOKS[number]).cells[ids.index("quiz") + 1 :]
    assert len(closing) <= 2
    assert all(each.cell_type == "markdown" and not notebooks.tags(each) for each in closing)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_notebook_shows_is_what_the_file_says(number):
    static = lambda page: page.split("<script>")[0].split()
    for cell in cells(number):
        for output in cell.outputs:
            shown = "".join(output["data"]["text/html"])
            assert static(shown) == static(quiz.html(number)), f"run `pefthelpers record {number}`"


@pytest.mark.parametrize(
    "content",
    ["", "[", "- ask: a", "- ask: a\n  options:\n  - say: b\n    why: c", "- ask: a\n  options: b"],
)
def test_a_damaged_file_is_one_sentence(content, tmp_path, monkeypatch):
    monkeypatch.setattr(quiz, "FOLDER", tmp_path)
    (tmp_path / "99.yaml").write_text(content)
    with pytest.raises(UserError, match="no quiz '99' that can be read"):
        quiz.load("99")
    with pytest.raises(UserError, match="no quiz 'nothing' that can be read"):
        quiz.load("nothing")


@pytest.fixture
def opened(tab, tmp_path):
    """Return a function that opens a quiz; what its page asks of a network or says in the console fails."""
    asked, said = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))

    def open_(*numbers):
        body = "".join(map(quiz.html, numbers))
        page = tmp_path / "quiz.html"
        head = "<!doctype html><html lang=en><meta charset=utf-8><title>q</title><main><h1>q</h1>"
        page.write_text(f"{head}{body}</main>")
        tab.goto(page.as_uri())
        return tab

    yield open_
    assert said == [] and all(url.startswith("file:") for url in asked)


@browser
def test_a_click_shows_the_option_s_own_reason(opened):
    page, questions = opened("02"), quiz.load("02")
    for each, asked in zip(questions, page.locator(".Quiz").all(), strict=True):
        for option in each["options"]:
            label = asked.locator("label", has_text=option["say"].replace("`", ""))
            label.click()
            told = asked.get_by_role("status").inner_text()
            begins = "Right." if option.get("right") else "Not so."
            assert told == f"{begins} {option['why'].replace('`', '')}"
            assert asked.locator(".correctButton").count() == bool(option.get("right"))
    assert page.locator("details").count() == 0
    screenshot(page, "quiz")


@browser
def test_the_keyboard_reaches_every_option(opened):
    page, questions = opened("02"), quiz.load("02")
    for each in questions:
        page.keyboard.press("Tab")
        heard = set()
        for _ in each["options"]:
            page.keyboard.press("ArrowDown")
            group = page.locator(".Quiz", has=page.locator(":focus"))
            outline = group.locator("label:focus-within").evaluate(
                "e => getComputedStyle(e).outlineStyle"
            )
            assert outline == "solid"
            heard.add(group.get_by_role("status").inner_text())
        assert len(heard) == len(each["options"])


@browser
def test_nothing_keeps_people_out_of_a_quiz(opened):
    page = opened("02")
    for option in page.locator("label:first-child").all():
        option.click()
    assert violations(page) == []


@browser
def test_two_quizzes_and_a_repeated_one_live_on_one_page(opened):
    page = opened("02", "03")
    assert page.locator(".Quiz").count() == len(quiz.load("02")) + len(quiz.load("03"))
    page = opened("02", "02")
    assert page.locator(".live").count() == 2


@browser
def test_without_scripts_the_answers_are_folded(chromium, tmp_path):
    page = chromium.new_context(java_script_enabled=False).new_page()
    (tmp_path / "quiz.html").write_text(f"<meta charset=utf-8>{quiz.html('02')}")
    page.goto((tmp_path / "quiz.html").as_uri())
    first = quiz.load("02")[0]
    answer = page.get_by_text(first["options"][0]["why"])
    assert page.get_by_text(first["options"][0]["say"]).is_visible() and not answer.is_visible()
    page.locator("summary").first.click()
    assert answer.is_visible()
    page.context.close()


def test_the_folder_travels_with_the_package():
    assert Path(quiz.FOLDER).parent == Path(quiz.__file__).parent
