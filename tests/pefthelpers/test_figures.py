"""The drawings: whole SVG files with alt text, legible at any size of numbers; one of them moves."""

import html
import re
import string
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pefthelpers import figures
from pefthelpers.record import METRIC_MIME, record
from support.browser import browser, tab  # noqa: F401 - a fixture

NAMES = sorted(path.stem for path in figures.DRAWINGS.glob("*.svg"))
SMALL = {"d_in": 192, "d_out": 512, "r": 8, "layers": 4, "d_model": 384, "m": 24}
LARGE = {"d_in": 14336, "d_out": 14336, "r": 64, "layers": 80, "d_model": 4096, "m": 256}
BLOCKS = {"block": 64, "group": 256, "dishes": 65, "pizzas": 24, "parameters": "1,685,184"}
BLOCKS |= {"base": "1,685,184", "adapter": "108,544", "head": 193}  # of staff
PALETTE = {figures.FROZEN, figures.TRAINED, *figures.CYCLE, "#333333", "#777777"}
PALETTE |= {"#ffffff", "#f7deab", "#e3c47a", "#9fc5e8"}  # paper, computed, merged, constants


def source(name):
    return (figures.DRAWINGS / f"{name}.svg").read_text(encoding="utf-8")


def places(name):
    return string.Template(source(name)).get_identifiers()


@pytest.fixture
def shown(monkeypatch):
    """Return a function that shows a drawing and returns what the notebook would display."""
    displays = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: displays.append(data))

    def show(name, numbers=SMALL):
        values = numbers | BLOCKS
        figures.drawing(name, **{place: values[place] for place in places(name)})
        return displays.pop()

    return show


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_is_a_small_image_with_alt_text(shown, name):
    data = shown(name)
    alt = data["text/plain"]
    assert set(data) == {"text/html", "text/plain"}
    assert f'alt="{html.escape(alt)}"' in data["text/html"]
    assert len(alt.split()) > 20 and "$" not in alt
    assert len(data["text/html"]) < 9_000
    root = ElementTree.fromstring(source(name))
    assert root.get("role") == "img" and root[0].tag.endswith("title") and root[0].text
    assert set(re.findall(r"#[0-9a-fA-F]{6}", source(name))) <= PALETTE
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", source(name)) == []


def test_numbers_stand_in_the_alt_text_and_a_missing_one_is_an_error(shown):
    assert "a vector x of 192 numbers" in shown("lora")["text/plain"].lower()
    with pytest.raises(KeyError, match="d_in"):
        figures.drawing("lora", d_out=1, r=1)


def test_a_plot_keeps_its_alt_text(monkeypatch):
    displays = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: displays.append(data))
    figure, axis = figures.axes()
    axis.plot([1, 2])
    figures.show(figure, 'A line, "rising".')
    assert 'alt="A line, &quot;rising&quot;."' in displays[0]["text/html"]
    assert displays[0]["text/plain"] == 'A line, "rising".'


def test_dots_say_every_value_in_the_alt_text(monkeypatch):
    displays = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: displays.append(data))
    table = pd.DataFrame(
        {"ours": {"full": 0.952, "LoRA": 1.022}, "theirs": {"full": 1.0, "LoRA": 1.1}}
    )
    figures.dots(
        table, {"ours": (figures.BLUE, "o"), "theirs": (figures.ORANGE, "D")}, xlabel="ratio", at=1
    )
    assert displays[0]["text/plain"] == "ratio (ours, theirs). full: 0.95, 1.0; LoRA: 1.02, 1.1"


def test_a_silent_metric_is_kept_and_not_seen(monkeypatch):
    displays = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: displays.append(data))
    record("exact_match", 0.5, unit="share")
    record("hidden_one", 2, unit="bytes", silent=True)
    assert [data["text/plain"] for data in displays] == ["exact match: 0.5 share", ""]
    assert displays[1][METRIC_MIME] == {"name": "hidden_one", "value": 2, "unit": "bytes"}


INSIDE = """() => {
  const box = e => e.getBBox(), out = [], canvas = document.querySelector('svg').viewBox.baseVal
  const rects = [...document.querySelectorAll('rect')].map(box)
  const holds = (r, t) => r.x <= t.x && t.x + t.width <= r.x + r.width && r.y <= t.y
    && t.y + t.height <= r.y + r.height
  for (const e of document.querySelectorAll('text')) {
    const t = box(e), x = t.x + t.width / 2, y = t.y + t.height / 2
    const r = rects.find(r => r.x < x && x < r.x + r.width && r.y < y && y < r.y + r.height)
    if (!holds(r || canvas, t)) out.push(e.textContent)
  }
  const texts = [...document.querySelectorAll('text')].map(e => [box(e), e.textContent])
  texts.forEach(([a, one], i) => texts.slice(i + 1).forEach(([b, other]) => {
    const gap = 3  // a line of text is higher than its letters
    if (a.x < b.x + b.width && b.x < a.x + a.width && a.y + gap < b.y + b.height - gap
        && b.y + gap < a.y + a.height - gap) out.push(one + ' / ' + other)
  }))
  return out
}"""


@browser
def test_no_text_leaves_its_box_or_meets_another(tab):  # noqa: F811
    for name in NAMES:
        for numbers in (SMALL, LARGE):
            svg = string.Template(source(name)).substitute(numbers | BLOCKS)
            tab.set_content(f"<body style='margin:0'>{svg}</body>")
            assert tab.evaluate(INSIDE) == [], name


def linear(colour):
    """Return red, green and blue as amounts of light, of a colour such as #005A96."""
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(colour, paper="#ffffff"):
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""
    dark, light = sorted(linear(each) @ [0.2126, 0.7152, 0.0722] for each in (colour, paper))
    return (light + 0.05) / (dark + 0.05)


# How red, green and blue look without one kind of cone (Machado et al. 2009, severity 1).
SEEN = {
    "all cones": np.eye(3),
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(light):
    """Return CIE L*a*b* of amounts of red, green and blue light."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(to_xyz @ np.clip(light, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colour", [*figures.CYCLE, "#777777"])
def test_a_line_of_each_colour_is_seen_on_white(colour):
    assert contrast(colour) >= 3


@pytest.mark.parametrize("colour", ["#333333", "#000000"])
@pytest.mark.parametrize(
    "paper", ["#ffffff", figures.FROZEN, figures.TRAINED, "#f7deab", "#e3c47a"]
)
def test_words_are_read_on_every_part_of_a_drawing(colour, paper):
    assert contrast(colour, paper) >= 4.5


@pytest.mark.parametrize("cones", SEEN)
def test_two_colours_stay_apart_for_colour_blind_eyes(cones):
    seen = [lab(np.array(SEEN[cones]) @ linear(colour)) for colour in figures.CYCLE]
    assert min(np.linalg.norm(one - two) for one, two in combinations(seen, 2)) > 14


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_s_words_are_dark(name):
    words = re.findall(r"<text\b[^>]*>", source(name))
    assert words and all("opacity" not in each for each in words)
    assert set(re.findall(r'fill="(#\w+)"', " ".join(words))) <= {"#333333", "#000000"}
