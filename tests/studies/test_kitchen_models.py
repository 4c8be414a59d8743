"""The two committed decoders, and the record of what they were taught."""

import itertools
import json
import sys

import pytest
import torch

from pefthelpers import kitchen, results
from pefthelpers.measure import exact_match, generate
from pefthelpers.paths import data_dir
from studies.kitchen_world import facts, generator, tokenizer

BASES = ("decoder", "decoder_seed2")


@pytest.fixture
def gates_module():
    from studies import kitchen_gates

    return kitchen_gates


@pytest.fixture(scope="module", params=BASES)
def base(request):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = data_dir() / "kitchen" / request.param
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return request.param, model, AutoTokenizer.from_pretrained(folder)


def test_tokenizer_covers_the_whole_world(base):
    words = base[2]
    examples = generator.documents(3000, seed=123)
    for task in (kitchen.elicit(7), kitchen.learn(7)):
        examples += task.train + task.validation + task.test
    for rows in kitchen.retention().values():
        examples += rows
    texts = [f"{e.prompt} {e.answer}".strip() for e in examples]
    texts += [*facts.ITALIAN, *facts.ITALIAN.values(), *facts.DISHES, *facts.PIZZAS]
    ids = words(texts, add_special_tokens=False).input_ids
    assert not any(words.unk_token_id in row for row in ids)
    assert words.batch_decode(ids) == texts


def test_tokenizer_is_the_one_the_package_builds(base):
    _, model, words = base
    assert words.get_vocab() == tokenizer.build().get_vocab()
    assert len(words) == model.config.vocab_size and len(words) % 64 == 0
    assert words.bos_token is None and words("lasagne").input_ids == [
        words.convert_tokens_to_ids("lasagne")
    ]


def test_weights_are_small_and_their_widths_fit_four_bit_kernels(base):
    name, model, _ = base
    assert (data_dir() / "kitchen" / name / "model.safetensors").stat().st_size <= 12e6
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            assert module.in_features % 64 == 0 and module.out_features % 32 == 0


def test_model_reproduces_the_recorded_share_of_facts(base):
    name, model, words = base
    log = json.loads((data_dir() / "kitchen" / name / "training_log.json").read_text())
    measured = exact_match(model, words, kitchen.retention()["facts"])
    # One fact of 390 may tip on another processor.
    assert measured == pytest.approx(log["log"][-1]["facts"], abs=1.5 / 390)


def test_greedy_decoding_agrees_with_exact_match(base):
    _, model, words = base
    examples = kitchen.retention()["cued"][:40]
    generated = generate(model, words, examples)
    right = sum(text == e.answer for text, e in zip(generated, examples, strict=True))
    assert right / 40 == exact_match(model, words, examples)


def test_the_record_passes_every_gate_of_both_bases(gates_module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kitchen_gates", "--check"])
    monkeypatch.setattr(gates_module.engine, "quiet_on_one_thread", lambda: None)
    monkeypatch.setattr(gates_module, "measure_everything", lambda record: pytest.fail("measured"))
    assert gates_module.main() == 0
    said = capsys.readouterr()
    assert not said.err and "30 of 30 gates passed" in said.out


def test_a_failed_gate_is_named(gates_module):
    record = gates_module.read_record()
    for row in record.rows:
        if row["task"] == "learn" and row["method"] == "lora" and not row["replay"]:
            row["test"] = 0.5
    failed = [str(gate) for gate in gates_module.all_gates(record) if not gate.passed()]
    assert "FAIL  decoder, learn, lora, n = 3: 0.500 (at least 0.9)" in failed


def test_rows_of_other_weights_do_not_count(gates_module, monkeypatch):
    monkeypatch.setattr(gates_module.gates, "weights", lambda base: "another")
    gates = gates_module.all_gates(gates_module.read_record())
    assert gates and not any(gate.passed() for gate in gates)


def test_rates_come_from_validation_and_every_cell_has_its_seeds(gates_module):
    record = gates_module.read_record()
    for task in gates_module.TASKS:
        for method, rates in gates_module.RATES.items():
            searched = record.at_rates("decoder", task, method)
            tried = [row["learning_rate"] for row in searched]
            assert set(tried) >= set(rates)
            ties = [row["learning_rate"] for row in results.tied(searched)]
            chosen = record.chosen("decoder", task, method)
            assert {row["seed"] for row in chosen} == set(gates_module.gates.SEEDS)
            rate = chosen[0]["learning_rate"]
            assert rate == min(ties), "of the rates that tie the lowest"
            assert any(0.49 * rate < other < rate for other in tried), "a lower one no longer ties"


def test_retention_is_recorded_at_three_rates_with_and_without_replay(gates_module):
    record = gates_module.read_record()
    for cell in itertools.product(gates_module.TASKS, gates_module.RATES, (False, True)):
        rows = record.at_rates("decoder", *cell[:2], replay=cell[2])
        assert len(rows) >= 3, cell
        assert all(skill in row for row in rows for skill in gates_module.SKILLS)
