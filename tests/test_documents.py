"""README, CONTRIBUTING and data/README: every file and every name that they mention is there."""

import importlib
import re

import pytest

from pefthelpers.paths import data_dir

ROOT = data_dir().parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "data/README.md")
PACKAGES = (
    "pefthelpers",
    "peftmemory",
    "peftbottleneck",
    "peftguards",
    "peftruns",
    "peftguide",
    "nbregress",
)
PACKAGES += ("studies",)
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./*{},-]+(?:/|\.(?:py|md|json|jsonl|yaml|yml|toml|txt|tsv|svg|csv|cff|ini))")
OTHERS = (  # files of other projects, named as sources
    "movieReviewSnippets_GroundTruth.txt",
    "nytEditorialSnippets_GroundTruth.txt",
    "method_comparison/",
)
MADE_BY_A_RUN = ("runs/", "report.html", "metrics.json", "junit.xml", "config.json", "lora.py")


def mentioned(document):
    """Return the code words of a document, each with the folder that its paths start from."""
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return CODE.findall(text), (ROOT / document).parent


def is_there(name, folder):
    """Tell whether a path or a pattern names something below the document or the checkout."""
    options = re.search(r"\{([\w,]+)\}", name)
    names = [name.replace(options[0], one) for one in options[1].split(",")] if options else [name]
    return all(any(list(base.glob(n.rstrip("/"))) for base in (folder, ROOT)) for n in names)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_it_names_is_there(document):
    words, folder = mentioned(document)
    paths = [
        word
        for word in words
        if FILE.fullmatch(word) and not word.startswith(MADE_BY_A_RUN + OTHERS)
    ]
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text(encoding="utf-8"))
    assert paths
    # A path may leave the document's folder, as in ../studies/sweep.py.
    outside = [n for n in paths + links if n.startswith("../") and not (folder / n).exists()]
    inside = [n for n in paths + links if not n.startswith("../") and not is_there(n, folder)]
    assert outside + inside == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_it_uses_is_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    found = set(re.findall(rf"(?<![\w/.-])((?:{'|'.join(PACKAGES)})(?:\.\w+)+)", text))
    lost = []
    for name in sorted(found):
        if name.endswith((".py", ".json")):
            continue
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                place = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for attribute in parts[cut:]:
                place = getattr(place, attribute, None)
            break
        if place is None:
            lost.append(name)
    assert lost == []


def test_a_lost_file_is_noticed():
    assert not is_there("src/pefthelpers/gone.py", ROOT)
    assert is_there("data/published/{qlora,torchtune}.json", ROOT)
