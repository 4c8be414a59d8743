"""The documents: every file and every name that they mention is there; the README's numbers are the records'."""

import importlib
import re

import numpy as np
import pandas as pd
import pytest

from nbregress import lint, notebooks
from pefthelpers import results
from pefthelpers.paths import data_dir
from studies import readme_figure

ROOT = data_dir().parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "TEACHING.md", "data/README.md")
DOCUMENTS += ("docs/tools.md", "docs/room.md", "docs/pages.md", "docs/accessibility.md")
PACKAGES = (
    "pefthelpers",
    "peftmemory",
    "peftbottleneck",
    "peftguards",
    "peftruns",
    "peftguide",
    "nbregress",
    "peftroom",
)
PACKAGES += ("studies",)
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./*{},-]+(?:/|\.(?:py|md|json|jsonl|yaml|yml|toml|txt|tsv|svg|csv|cff|ini))")
OTHERS = (  # files of other projects, named as sources
    "movieReviewSnippets_GroundTruth.txt",
    "nytEditorialSnippets_GroundTruth.txt",
    "method_comparison/",
)
MADE_BY_A_RUN = (
    "runs/",
    "grades/",
    "report.html",
    "metrics.json",
    "junit.xml",
    "config.json",
    "lora.py",
    "names.txt",
    "manifest.json",
    "passwords.tsv",
    "install.",
)


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


README = (ROOT / "README.md").read_text(encoding="utf-8")
ONE_LINE = " ".join(README.split())
ROWS = dict(re.findall(r"^\|.*?\(notebooks/(\w+)\.ipynb\) \|(.*)\|$", README, re.MULTILINE))


def says(*sentences):
    """Return those of the sentences that the README does not hold."""
    return [sentence for sentence in sentences if sentence not in ONE_LINE]


def percent(share):
    return f"{100 * share:.0f} %"


def best_rates(rows):
    """Return LoRA's and full fine-tuning's best rate on seed 0, as notebook 07 takes it; of equals the lower loss."""
    rows = rows[(rows["seed"] == 0) & rows["validation"].notna()]
    rows = rows.sort_values(["validation", "validation_loss"], ascending=[False, True])
    return rows.groupby("method")["learning_rate"].first()[["lora", "full"]]


def test_the_readme_has_a_row_for_every_notebook_with_its_badge_s_address():
    there = {path.stem for path in notebooks.find([])}
    assert there == ROWS.keys()
    for stem, row in ROWS.items():
        address = lint.badge(notebooks.notebooks_dir() / f"{stem}.ipynb").rsplit("](", 1)[1]
        assert f"[Colab]({address}" in row, stem


def test_its_minutes_are_the_recorded_ones():
    """A busy machine takes longer: a half is near enough; studies.readme_figure writes them anew."""
    for stem in ROWS:
        for said, recorded in zip(
            ROWS[stem].split("|")[-2:], readme_figure.minutes(stem), strict=True
        ):
            both = [re.sub(r"\D", "", text) for text in (said, recorded)]
            assert said.strip()[-3:] == recorded[-3:] or both[0], stem
            assert both[0] == both[1] or 0.5 < int(both[0]) / int(both[1]) < 2, (
                stem,
                said,
                recorded,
            )


def test_what_looks_unable_may_be_slow():
    rows = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    mean, seeds = (
        getattr(rows.groupby(["cell", "steps"])["test"], name)() for name in ("mean", "size")
    )
    share = lambda cell, steps: percent(mean[cell, steps])
    assert (seeds.loc[["lora q,v r=4", "prefix", "prompt"]] == 3).all()
    other = rows.groupby(["cell", "steps"])["general_loss"].mean()
    base = (
        results.rows("kitchen_gates")
        .query("base == 'decoder' and task == 'base'")["documents_loss"]
        .iloc[0]
    )
    slow, prefix, prompt = "lora q,v r=4", "prefix", "prompt"
    assert (
        says(
            f"knew {share(slow, 200)} of the new facts after 200 training steps, and {share(slow, 2000)} after 2,000",
            f"Prefix tuning went from {share(prefix, 200)} to {share(prefix, 2000)}.",
            f"Prompt tuning, eight trained vectors, stayed at {share(prompt, 2000)}.",
            f"LoRA on all layers had {share('lora all r=8', 200)} after 200.",
            f"rose from {base:.2f} to {other[slow, 2000]:.1f} (LoRA on query and value) and "
            f"{other[prefix, 2000]:.1f} nats a token (prefix).",
        )
        == []
    )


def kept(record, target, column):
    """Return what is left, by method and replay, where trainings pass a target: mean, and how many seeds."""
    rows = results.rows(record)
    base, runs = rows[rows["method"] == "base"].iloc[0], rows[rows["method"] != "base"]
    runs = runs.astype({"replay": bool})
    seeds = runs.groupby(["method", "replay", "learning_rate"])["seed"].transform("nunique")
    found = {}
    for run in runs[seeds == 3].itertuples():
        path = pd.DataFrame(run.path)
        after = int((path["target"] >= target).to_numpy().argmax())
        pair = path.iloc[[after - 1, after]]
        if path["target"].max() >= target:
            value = np.interp(target, pair["target"], pair[column])
            found.setdefault((run.method, run.replay), []).append(value)
    return base[column], {key: (np.mean(values), len(values)) for key, values in found.items()}


def test_lora_alone_did_not_protect_what_the_model_knew_and_replay_did():
    _, facts = kept("retention_curves", 0.85, "facts")
    base, right = kept("retention_smollm2", 0.8, "general_right")
    for found in (facts, right):
        assert {found[method, replay][1] for method in ("full", "lora") for replay in (0, 1)} == {3}
        assert found["full", False][0] > found["lora", False][0] + 0.05
    _, tasks = kept("retention_curves", 0.85, "tasks")
    done = {key: percent(mean) for key, (mean, _) in tasks.items()}
    assert tasks["full", True][0] > 0.9 < tasks["lora", True][0]
    said = {key: percent(mean) for key, (mean, _) in facts.items()}
    real = {key: percent(mean) for key, (mean, _) in right.items()}
    assert said["full", True] == said["lora", True]
    assert (
        says(
            f"full fine-tuning had kept {said['full', False]} of the old ones and LoRA {said['lora', False]}.",
            f"(Of the old tasks, such as finding the fish in a list, they still did {done['full', False]} and "
            f"{done['lora', False]}.)",
            f"both kept {said['lora', True]} of the facts and {done['lora', True]} of the tasks or more.",
            f"It answered {percent(base)} of general questions right.",
            f"it answered {real['full', False]} after full fine-tuning and {real['lora', False]} after LoRA. With a "
            f"quarter of each batch replayed (questions of the measured kind): {real['full', True]} and "
            f"{real['lora', True]}.",
        )
        == []
    )


def test_lora_wants_a_learning_rate_of_its_own():
    sweep, seq2seq = results.rows("sweep_decoder"), results.rows("sweep_seq2seq")
    settings = [sweep[sweep["task"] == task] for task in ("elicit", "learn")]
    settings += [seq2seq[seq2seq["task"] == "elicit"], results.rows("encoder_study")]
    arms = {"LoRA r=8 alpha=16": "lora", "full": "full"}
    pizza = results.rows("qlora_smollm2")
    pizza = pizza[pizza["arm"].isin(arms) & pizza["test_loss"].notna()]
    settings += [pizza.assign(method=pizza["arm"].map(arms))]
    ratios = [best_rates(rows)["lora"] / best_rates(rows)["full"] for rows in settings]
    tenfold = sum(9.9 < ratio < 20.1 for ratio in ratios)
    said = f"In {tenfold} of {len(ratios)} settings its best rate was ten to twenty times"
    assert says(said) == []


def test_the_picture_s_alt_text_says_what_its_panels_show():
    steps = {
        name: readme_figure.estimate(readme_figure.MODEL, how, **readme_figure.STEP, **more).peak
        for name, (how, more) in readme_figure.STEPS.items()
    }
    gib = {name: peak / readme_figure.GIB for name, peak in steps.items()}
    assert gib["full fine-tuning, 16 bits"] > readme_figure.CARDS["a6000"] > 40
    assert gib["QLoRA, checkpointing,\nchunked loss"] < readme_figure.CARDS["t4"]
    asked = {"model": readme_figure.MODEL, "card_gib": readme_figure.CARD_GIB}
    assert readme_figure.peftguide.choose("learn", **asked).method == "lora"
    assert readme_figure.PICTURE.is_file() and "](data/results/readme.png)" in README


def test_the_two_commands_are_easy_to_find():
    head = README.index("## Two commands")
    assert (
        "\nmake run " in README[head : head + 200] and "\nmake test " in README[head : head + 300]
    )
    order = (
        "## Who it is for",
        "## What you can do",
        "## Three findings",
        "## The notebooks",
        "## Two",
    )
    places = [README.index(heading) for heading in order]
    assert places == sorted(places) and len(README.split()) < 2800
