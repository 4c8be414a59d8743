"""The largest batch and the longest sequence that fit, and what each switch is worth."""

import pytest

import peftmemory
from peftmemory.capacity import TOKENS, capacity, in_words
from peftmemory.cards import verdict
from peftmemory.errors import EstimateError
from peftmemory.sharding import per_device
from peftmemory.switches import COLUMNS, as_lines, switches
from support.memory_models import TOY

QLORA = {"precision": "nf4", "checkpointing": True, "loss": "chunked"}
STEP = {**QLORA, "optimizer": "adamw_torch_fused"}
EVERYWHERE = peftmemory.EVERYWHERE


def word(gib, **step):
    peak = peftmemory.estimate("llama-3.1-8b", EVERYWHERE, **STEP, **step).peak
    return verdict(peak, gib)


@pytest.mark.parametrize("gib", [12, 22.06, 48])
def test_one_more_than_the_largest_fits_no_longer(gib):
    found = capacity("llama-3.1-8b", EVERYWHERE, card_gib=gib, batch=2, seq=1024, **STEP)
    for key, good in (("fits", {"fits"}), ("may fit", {"fits", "uncertain"})):
        batch, seq = found["largest_batch"][key], found["longest_seq"][key]
        assert word(gib, batch=batch, seq=1024) in good
        assert word(gib, batch=batch + 1, seq=1024) not in good
        assert seq % TOKENS == 0 and word(gib, batch=2, seq=seq) in good
        assert word(gib, batch=2, seq=seq + TOKENS) not in good


def test_each_cell_is_the_estimates_own():
    found = capacity("llama-3.1-8b", EVERYWHERE, card_gib="a10g", **STEP)
    words = set()
    for row in found["rows"]:
        peak = peftmemory.estimate(
            "llama-3.1-8b", EVERYWHERE, batch=row["batch"], seq=row["seq"], **STEP
        ).peak
        words.add(row["verdict"])
        assert row["verdict"] == verdict(peak, 22.06)
        assert row["peak_gib"] in (None, peak / peftmemory.GIB)
    assert words == {"fits", "uncertain", "does not fit"} - {"uncertain"} | words


def test_what_is_no_smaller_than_a_misfit_is_not_asked_for():
    asked = []

    def ask(config, method, *, batch, seq):
        asked.append((batch, seq))
        return peftmemory.estimate(config, method, batch=batch, seq=seq)

    found = capacity(TOY, card_gib=1.02, ask=ask, batches=(1, 2, 512), lengths=(512, 4096, 8192))
    none = [(row["batch"], row["seq"]) for row in found["rows"] if row["peak_gib"] is None]
    assert none and not set(none) & set(asked[:9])
    assert len(asked) == len(set(asked))


def test_no_length_is_beyond_the_models_positions():
    model = {**TOY, "max_position_embeddings": 640}
    found = capacity(model, card_gib=80, batches=(1,), lengths=(512, 1024))
    assert found["longest_seq"] == {"fits": 640, "may fit": 640}
    assert [row["seq"] for row in found["rows"]] == [512]
    assert "640, the model's own limit." in in_words(found, 1, 1024)[-1]


def test_what_fits_nowhere_is_said():
    lines = in_words(capacity("llama-3.1-70b", card_gib=24), 1, 1024)
    assert lines[-2:] == [
        "Largest batch of 1,024 tokens: none fits.",
        "Longest sequence at batch 1: none fits.",
    ]


def test_a_table_can_be_of_one_of_several_devices():
    shared = lambda *given, **step: per_device(*given, devices=8, **step)
    options = {"card_gib": 40, "batches": (1,), "lengths": (512,), **STEP}
    one, eight = (
        capacity("llama-3.1-70b", EVERYWHERE, ask=ask, **options)["rows"][0]["peak_gib"]
        for ask in (peftmemory.estimate, shared)
    )
    assert eight < one / 3


def test_a_model_without_a_formula_is_traced_cell_by_cell(monkeypatch):
    monkeypatch.setattr("peftmemory.capacity.MOST", 4)  # a trace for each size that is tried
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    gpt2 |= {"vocab_size": 64}
    options = {"batch": 1, "seq": 64, "batches": (1,), "lengths": (64,)}
    found = capacity(gpt2, "lora", card_gib=1.0005, **options)
    assert found["rows"][0]["peak_gib"] > 0 and found["longest_seq"]["fits"] == 64
    assert 1 <= found["largest_batch"]["fits"] <= 4


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"card_gib": 0}, "must be above 0 GiB"),
        ({"card_gib": 24, "batches": (0,)}, "batch must be a whole number of at least 1"),
        ({"card_gib": 24, "lengths": (1.5,)}, "seq must be a whole number of at least 1"),
    ],
)
def test_what_has_no_table_is_said_in_one_sentence(asked, sentence):
    with pytest.raises(EstimateError, match=sentence):
        capacity(TOY, **asked)


def test_each_switch_has_its_row_and_changes_one_column():
    rows = switches("llama-3.1-8b", EVERYWHERE, batch=1, seq=1024, **STEP, prepare_kbit=False)
    first, others = rows[0], rows[1:]
    assert first["recomputes"] == "layers" and first["loss"] == "chunked"
    for row in others:
        assert len([name for name in COLUMNS if row[name] != first[name]]) == 1
    changed = {name for row in others for name in COLUMNS if row[name] != first[name]}
    assert changed == set(COLUMNS)
    for row in others:
        column = next(name for name in COLUMNS if row[name] != first[name])
        fields = STEP | COLUMNS[column][row[column]]
        found = peftmemory.estimate("llama-3.1-8b", EVERYWHERE, batch=1, seq=1024, **fields)
        assert row["peak_gib"] == found.peak / peftmemory.GIB
    lines = as_lines(rows)
    assert len(lines) == len(rows) + 1 and "prepared" in lines[0] and "adapters" in lines[0]


def test_a_switch_that_cannot_be_has_no_row():
    rows = switches(TOY, batch=1, seq=8)
    assert all(row["prepared"] == "no" for row in rows)
    assert {row["recomputes"] for row in rows} == {"nothing", "layers", "selective", "offloaded"}
