"""The article's runs: what is pinned, what fits a card, and rows of the same columns wherever they are from."""

import re

import pytest

import peftmemory
import peftruns
from nbregress import notebooks, plan
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir
from peftmemory import GIB, load_config
from peftmemory.cards import CARDS
from peftruns import sizes
from peftruns.sheet import MODELS, RUNS, TABLE, way_options
from studies import article_fixtures

COLUMNS = {
    "alpaca": {"instruction", "input", "output"},
    "cnn_dailymail": {"article", "highlights", "id"},
    "sst2": {"idx", "sentence", "label"},
}


@pytest.mark.parametrize("name", [*MODELS, *(s["path"] for s in TABLE["datasets"].values())])
def test_every_name_is_pinned_to_a_commit(name):
    paths = {source["path"]: source for source in TABLE["datasets"].values()}
    revision = (MODELS | paths)[name]["revision"]
    assert re.fullmatch(r"[0-9a-f]{40}", revision)


@pytest.mark.parametrize("name", RUNS)
def test_every_listed_model_has_a_committed_shape(name):
    sizes_of = [load_config(MODELS[model]["shape"]) for model in RUNS[name]["models"]]
    widths = [(config.hidden_size, config.layers) for config in sizes_of]
    assert widths == sorted(widths, reverse=True)  # the largest first: the first that fits is taken


@pytest.mark.parametrize("name", RUNS)
def test_ways_are_one_effective_batch(name):
    products = {way["batch"] * way["accumulation"] for way in RUNS[name]["ways"]}
    assert len(products) == 1


@pytest.mark.parametrize(
    "make", [article_fixtures.alpaca, article_fixtures.cnn_dailymail, article_fixtures.sst2]
)
def test_fixtures_are_what_their_script_makes(make):
    file = data_dir() / "article" / f"{make.__name__}.jsonl"
    rows = make()
    assert article_fixtures.text(rows) == file.read_text(encoding="utf-8")
    assert 60 <= len(rows) <= 200
    assert {*rows[0]} == COLUMNS[make.__name__]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("profile", ["tiny", "gpu"])
def test_rows_have_the_columns_of_the_original(name, profile, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refused)
    rows = peftruns.load_rows(name, profile)
    assert {*rows.column_names} == COLUMNS[RUNS[name]["dataset"]]
    said = capsys.readouterr().out
    assert ("cannot be had (ConnectionError)" in said) == (profile == "gpu")


def refused(*_, **__):
    """Answer as the hub's client does without a network."""
    raise ConnectionError


CANDIDATES = [
    {"model": "large", "batch": 4, "peak_bytes": 20 * GIB},
    {"model": "large", "batch": 1, "peak_bytes": 11 * GIB},
    {"model": "small", "batch": 4, "peak_bytes": 5 * GIB},
]


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        (80, ("large", 4, "fits")),
        (21.5, ("large", 1, "fits")),
        (13, ("small", 4, "fits")),  # large may fit, small does
        (6.2, ("small", 4, "uncertain")),
    ],
)
def test_the_largest_that_fits_is_taken(gib, expected):
    best = sizes.choose(CANDIDATES, gib)
    assert (best["model"], best["batch"], best["verdict"]) == expected


def test_where_nothing_fits_a_sentence_says_what_to_do():
    with pytest.raises(
        UserError, match=r"small needs 5\.0 GiB .* this card has 4\.0: take a smaller"
    ):
        sizes.choose(CANDIDATES, 4.0)


@pytest.mark.parametrize("name", RUNS)
def test_the_record_holds_every_way(name):
    found = sizes.recorded(name)
    assert len(found) == len(RUNS[name]["models"]) * len(RUNS[name]["ways"])
    # Six operations a parameter and token at most, of which the heads and the attention are a part.
    tokens = {row["model"]: row["batch"] * RUNS[name]["length"] for row in found}
    assert all(row["flops"] > tokens[row["model"]] * 1e8 for row in found)


@pytest.mark.parametrize("name", RUNS)
def test_every_card_of_the_table_takes_a_listed_model(name):
    shown = peftruns.by_card(name)
    table = shown.data
    assert [*table.index] == [*TABLE["cards"]] and {*TABLE["cards"]} <= {*CARDS}
    said = {word for word in sizes.SETTING if word in shown.caption}
    assert said | {*table.columns} >= {*sizes.SETTING} and not said & {*table.columns}
    minutes = table["minutes (estimated)"]
    assert (minutes > 0).all() and minutes["h100"] < minutes["t4"]
    assert (table["peak, GiB"] + 1 < table["GiB"]).all()


@pytest.mark.parametrize("model", ["", "llama-3.1-8b"])
def test_small_form_runs_on_the_cpu_on_what_it_is_told(model):
    run = peftruns.plan("lora", "tiny", model=model)
    assert (run.device, run.dtype, run.verdict) == ("cpu", "float32", "")
    assert run.model == (model or str(data_dir() / "kitchen" / "decoder"))


def test_a_step_of_a_run_is_a_setting_that_can_be_asked_for():
    options = way_options("qlora", RUNS["qlora"]["ways"][1])
    assert options["batch"] == 1 and options["accumulation"] and options["prepare_kbit"]


def test_a_model_out_of_reach_is_refused_before_it_loads(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refused)
    with pytest.raises(UserError, match=r"^some/model cannot be had here \(ConnectionError\): "):
        sizes.refuse_out_of_reach("some/model", "main")


@pytest.mark.parametrize("stem", ["02_lora", "06_qlora"])
@pytest.mark.parametrize(
    ("values", "profiles"), [({}, {"tiny", "gpu"}), ({"MODEL": "x"}, {"tiny"})]
)
def test_with_a_model_of_the_reader_s_own_no_other_large_one_is_asked_for(stem, values, profiles):
    path = notebooks.notebooks_dir() / f"{stem}.ipynb"
    needed = plan.check_notebook(path, plan.Plan(profile="gpu", values=values))
    assert {profile for _, profile in needed} | {"tiny"} == profiles


@pytest.mark.parametrize("model", ["", "meta-llama/Llama-3.2-3B"])
@pytest.mark.parametrize(("free", "batch", "checkpointing"), [(78, 4, False), (12, 4, True)])
def test_the_card_decides_batch_and_checkpointing(monkeypatch, model, free, batch, checkpointing):
    monkeypatch.setattr(sizes, "free_gib", lambda: free)
    monkeypatch.setattr(sizes, "refuse_out_of_reach", lambda *_: None)
    monkeypatch.setattr(sizes.models, "place", lambda profile: "cuda")
    monkeypatch.setattr(sizes.models, "dtype_on", lambda *_: "torch.bfloat16")
    run = peftruns.plan("lora", "gpu", model=model)
    assert run.model == (model or "unsloth/Llama-3.2-3B")
    assert run.revision == MODELS[run.model]["revision"]
    assert (run.batch, run.checkpointing) == (batch, checkpointing)
    assert f"the card has {free:.1f} free: it fits." in run.verdict


def test_a_folder_of_the_reader_s_own_is_sized_by_its_shape(monkeypatch):
    monkeypatch.setattr(sizes, "free_gib", lambda: 2.0)
    monkeypatch.setattr(sizes.models, "place", lambda profile: "cuda")
    monkeypatch.setattr(sizes.models, "dtype_on", lambda *_: "torch.float16")
    folder = str(data_dir() / "kitchen" / "decoder")
    method = peftmemory.method("lora", r=16, target_modules=("q_proj", "v_proj"))
    run = peftruns.plan("lora", "gpu", model=folder, method=method)
    assert (run.model, run.revision, run.dtype, run.batch) == (folder, "main", "float16", 4)
    assert 0 < run.peak_gib < 0.5
    shorter = sizes.peak_gib("lora", run, method, seq=64)
    assert 0 < shorter < run.peak_gib
