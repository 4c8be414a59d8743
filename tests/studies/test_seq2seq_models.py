"""The committed encoder-decoders: the files, the words they know, the figures on record."""

import json

import pytest

from pefthelpers.measure import count_parameters, exact_match
from pefthelpers.paths import data_dir
from studies.kitchen_world import summary_tasks

BASES = ("seq2seq", "seq2seq_seed2")


@pytest.fixture
def gates_module():
    from studies import seq2seq_gates

    return seq2seq_gates


@pytest.fixture(params=BASES)
def base(request):
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    folder = data_dir() / "kitchen" / request.param
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return request.param, T5ForConditionalGeneration.from_pretrained(folder).eval(), tokenizer


def test_size_and_shapes(base):
    import torch

    name, model, _ = base
    assert (data_dir() / "kitchen" / name / "model.safetensors").stat().st_size <= 12e6
    assert model.config.num_heads * model.config.d_kv == model.config.d_model
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            assert module.in_features % 64 == 0 and module.out_features % 32 == 0
    log = json.loads((data_dir() / "kitchen" / name / "training_log.json").read_text())
    assert log["parameters"] == count_parameters(model)[1]


def test_no_word_is_unknown(base):
    _, _, tokenizer = base
    texts = [f"{e.prompt} {e.answer}" for e in summary_tasks.replay(3000, seed=7)]
    for task in summary_tasks.all_tasks():
        texts += [f"{e.prompt} {e.answer}" for split in task[1:] for e in split]
    texts += [f"{e.prompt} {e.answer}" for rows in summary_tasks.retention().values() for e in rows]
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in {i for row in ids for i in row}
    assert max(i for row in ids for i in row) < len(tokenizer)


def test_committed_weights_reproduce_a_recorded_figure(base, gates_module):
    name, model, tokenizer = base
    row = gates_module.read_record().base(name)
    found = exact_match(model, tokenizer, summary_tasks.summaries(300, "nonna"))
    assert found == pytest.approx(row["nonna english"], abs=0.01)
    assert (
        exact_match(model, tokenizer, summary_tasks.elicit().test[:60]) == row["nonna uncued"] == 0
    )


def test_the_record_passes_every_gate(gates_module):
    gates = gates_module.all_gates(gates_module.read_record())
    assert len(gates) == 56
    assert not [str(gate) for gate in gates if not gate.passed()]


def test_a_missing_or_low_figure_is_named(gates_module):
    record = gates_module.read_record()
    for row in record.rows:
        if row["task"] == "base":
            row["facts"] = 0.9
        elif row["method"] == "prefix" and row["task"] == "learn_format":
            row["test"] = 0.5
    failed = [str(gate) for gate in gates_module.all_gates(record) if not gate.passed()]
    assert "FAIL  seq2seq: facts: 0.900 (at least 0.99)" in failed
    assert "FAIL  seq2seq, learn_format, prefix, n = 3: 0.500 (at least 0.9)" in failed
    assert len(failed) == 3  # the facts of both bases
    record.rows = []
    missing = gates_module.all_gates(record)
    assert "not recorded" in str(missing[0]) and not any(gate.passed() for gate in missing)


def test_rows_of_other_weights_do_not_count(gates_module, monkeypatch):
    monkeypatch.setattr(gates_module.gates, "weights", lambda base: "another")
    assert not gates_module.read_record().rows


def test_a_figure_that_some_seeds_lack_is_a_mean_of_the_others(gates_module):
    gates = gates_module.all_gates(gates_module.read_record())
    beams = [gate for gate in gates if "beams_100" in gate.name]
    assert len(beams) == 2 and all(gate.value == 1.0 for gate in beams)
