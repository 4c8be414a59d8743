"""Notebook 10: what it packs, groups and sums, against the libraries; what it says of TRL and of the record."""

import random
import statistics
import types

import pandas as pd
import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from trl import SFTConfig, SFTTrainer

import peftmemory
from pefthelpers import kitchen, models, results, training
from peftmemory.tracing import trace_step
from studies import speed_study


@pytest.fixture(scope="module")
def notebook(cells):
    import itertools

    opened = cells("10_faster")
    opened.namespace |= {"torch": torch, "F": F, "random": random, "training": training}
    opened.namespace |= {"chain": itertools.chain, "lengths": [1], "drawn": [], "BATCH": 4}
    return opened


def defined(notebook, cell, name):
    """Return what a cell defines, without the lines that use it."""
    source = notebook.by_id[cell].source
    kept = [part for part in source.split("\n\n") if part.startswith(("class", "def", "    "))]
    exec("\n\n".join(kept), notebook.namespace)  # noqa: S102 - our own notebook
    return notebook.namespace[name]


@pytest.mark.parametrize("seed", range(5))
def test_first_fit_is_the_studys_and_keeps_its_rows(notebook, seed):
    ours = defined(notebook, "define-orders", "first_fit")
    lengths = [random.Random(seed).randint(1, 60) for _ in range(40)]
    rows = ours(lengths, 64)
    assert rows == speed_study.first_fit(lengths, 64)
    assert sorted(i for row in rows for i in row) == [*range(40)]
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)


def test_attention_by_example_is_attention_of_each_example_alone(notebook):
    source = notebook.by_id["by-example"].source.split("\n\n")[0]
    exec(source, notebook.namespace)  # noqa: S102 - our own notebook
    torch.manual_seed(0)
    query, (key, value) = torch.randn(1, 4, 9, 8), torch.randn(2, 1, 2, 9, 8)  # grouped heads
    found, _ = notebook.namespace["by_example"](
        None, query, key, value, None, scaling=0.3, cu_seq_lens_q=[0, 2, 5, 9]
    )
    assert found.shape == (1, 9, 4, 8)
    for start, stop in ((0, 2), (2, 5), (5, 9)):
        q, k, v = (each[:, :, start:stop] for each in (query, key, value))
        k, v = (each.repeat_interleave(2, dim=1) for each in (k, v))
        scores = (q @ k.mT * 0.3).masked_fill(
            ~torch.ones(len(q[0, 0]), len(q[0, 0]), dtype=torch.bool).tril(), float("-inf")
        )
        wanted = (scores.softmax(-1) @ v).transpose(1, 2)
        torch.testing.assert_close(found[:, start:stop], wanted)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_loss_in_pieces_equals_cross_entropy(notebook, size):
    torch.manual_seed(size)
    hidden, weight = torch.randn(20, 8), torch.randn(50, 8)
    labels = torch.randint(50, (20,))
    for loss in (
        defined(notebook, "define-chunked", "ChunkedCrossEntropy"),
        speed_study.ChunkedCrossEntropy,
    ):
        one, other = (hidden.clone().requires_grad_() for _ in range(2))
        found = loss.apply(one, weight, labels, size)
        wanted = F.cross_entropy(other @ weight.T, labels, reduction="sum")
        found.backward()
        wanted.backward()
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
        assert (one.grad - other.grad).abs().max() < 1e-5


def test_only_positions_without_cache_and_mask_keep_examples_apart():
    base, tokenizer = models.load("decoder")
    first, second = (p + a for p, a in training.encode(tokenizer, kitchen.elicit(0).train[:2]))
    ids = torch.tensor([first + second])
    positions = torch.tensor([[*range(len(first)), *range(len(second))]])
    with torch.no_grad():
        alone = base(torch.tensor([second])).logits[0]
        gap = lambda **more: (base(ids, **more).logits[0, len(first) :] - alone).abs().max()
        assert gap(position_ids=positions, use_cache=False) < 1e-3
        assert gap(position_ids=positions) > 1
        ones = torch.ones_like(ids)
        assert gap(position_ids=positions, use_cache=False, attention_mask=ones) > 1


def test_what_the_text_says_of_trls_settings(tmp_path):
    with pytest.raises(ValueError, match="bf16"):
        SFTConfig(output_dir=str(tmp_path))
    on_cpu = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    assert SFTConfig(**on_cpu).gradient_checkpointing
    assert SFTConfig(**on_cpu).packing_strategy == "bfd"
    with pytest.raises(TypeError, match="group_by_length"):
        SFTConfig(**on_cpu, group_by_length=True)
    assert SFTConfig(**on_cpu, train_sampling_strategy="group_by_length")


def trainer(tmp_path, **options):
    """Return a TRL trainer of the kitchen decoder on eight short examples, on the CPU."""
    base, tokenizer = models.load("decoder")
    rows = [
        {"prompt": f"{each.prompt} ", "completion": each.answer}
        for each in kitchen.elicit(0).train[:8]
    ]
    on_cpu = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    options = {"max_length": 64, "per_device_train_batch_size": 2} | options
    args = SFTConfig(**on_cpu, **options)
    return SFTTrainer(base, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def test_packing_keeps_boundaries_and_makes_one_row_of_a_batch(tmp_path, recwarn):
    packed = trainer(tmp_path, packing=True)
    batch = next(iter(packed.get_train_dataloader()))
    assert "attention_mask" not in batch
    assert len(packed.train_dataset) >= 2
    assert batch["input_ids"].shape[0] == 1
    assert (batch["position_ids"] == 0).sum() > 2
    assert not [each for each in recwarn if "attention" in str(each.message).lower()]


def test_packing_cuts_what_is_longer_than_a_row(tmp_path):
    whole, cut = (trainer(tmp_path, packing=True, max_length=room) for room in (64, 16))
    tokens = [sum(map(len, each.train_dataset["input_ids"])) for each in (whole, cut)]
    assert tokens[1] == 8 * 16 < tokens[0]  # the eight examples are longer, and the rest is gone


def test_wrapped_rows_mix_examples_and_nothing_warns(tmp_path, recwarn):
    wrapped = trainer(tmp_path, packing=True, packing_strategy="wrapped")
    batch = next(iter(wrapped.get_train_dataloader()))
    assert "position_ids" not in batch
    assert batch["attention_mask"][0].all()  # only the last row has an empty end
    assert not [each for each in recwarn if "wrapped" in str(each.message).lower()]


def test_padding_free_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_length"):
        trainer(tmp_path, padding_free=True)


def test_the_cell_to_take_home_needs_a_model_a_file_and_a_folder_alone(notebook, tmp_path, capsys):
    import tempfile

    given = {"MODEL": "", "DATA": "", "SEED": 0, "tempfile": tempfile, "pd": pd}
    notebook.namespace |= given | {"models": models, "kitchen": kitchen}
    notebook.run("own")
    names = ("own_model", "own_data")
    alone = {name: notebook.namespace[name] for name in names} | {"own_folder": str(tmp_path)}
    exec(notebook.by_id["stand-alone"].source, alone)  # noqa: S102 - our own notebook
    rows = len(alone["trainer"].train_dataset)
    assert f"96 examples in {rows} rows" in capsys.readouterr().out and rows < 96
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert not alone["args"].gradient_checkpointing


def test_a_reader_s_own_file_and_model_are_taken(notebook):
    import tempfile

    notebook.namespace |= {"MODEL": "a/model", "DATA": "mine.jsonl", "tempfile": tempfile}
    notebook.run("own")
    assert notebook.namespace["own_model"] == "a/model"
    assert notebook.namespace["own_data"] == "mine.jsonl"


def test_the_record_holds_what_the_table_says():
    rows = results.rows("speed_smollm2").query("part == 'time'")
    cost = rows.pivot_table(index=["mix", "repeat"], columns="variant", values="step_cpu_s")
    tokens = rows.pivot_table(index=["mix", "repeat"], columns="variant", values="tokens")
    gain = cost.rdiv(cost["literal"], axis=0).loc["long"]
    assert (cost["literal"] > cost["fast"]).all() and (gain["checkpointing"] < 0.85).all()
    assert (tokens["literal"] > tokens["fast"]).all()
    # bf16 and packing are the two largest single switches, about equal; together they about multiply,
    # and with bf16 the literal loss is three times as fast
    singles = gain[[*speed_study.SWITCHES, "literal, bf16", "compiled"]].median().sort_values()
    assert [*singles.index[-2:]] == ["packed, by example", "literal, bf16"]
    assert singles.iloc[-1] / singles.iloc[-2] < 1.1
    both = gain["fast, same loss, bf16"].median()
    assert both == pytest.approx(singles.iloc[-2:].prod(), rel=0.1)
    assert gain["fast, same loss, bf16"].min() > 3
    assert gain["compiled"].dropna().item() == pytest.approx(1, abs=0.1)
    data_side = results.rows("speed_smollm2").query("part == 'data' and workers == 0")
    assert data_side["step_wall_s"].item() < 0.001 * cost["literal"].max()
    losses = rows.query("repeat == 0 and mix == 'long'").set_index("variant")["loss"]
    same = ["literal", "grouped by length", "packed, masked", "packed, by example", "compiled"]
    same += ["one row, masked", "fast, same loss"]
    assert losses[same].max() - losses[same].min() < 1e-4
    equal = results.rows("speed_smollm2").query("part == 'equal'")
    assert (equal["gradient_difference"] < 1e-3).all()


def test_the_gain_follows_the_padding_as_the_figure_s_text_says():
    rows = results.rows("speed_smollm2").query("part == 'time'")
    table = rows.pivot_table(
        index=["mix", "repeat"], columns="variant", values=["step_cpu_s", "tokens", "real_tokens"]
    )
    share = 1 - table["real_tokens"]["literal"] / table["tokens"]["literal"]
    gains = table["step_cpu_s"]["literal"] / table["step_cpu_s"]["fast"]
    k = (gains * (1 - share))["long"].median()
    assert len(gains) == 6 and (gains / (k / (1 - share)) - 1).abs().max() < 0.1
    assert 1 - k / 2 > 0.4


def test_the_recorded_curves_say_what_the_text_says():
    rows = results.rows("speed_smollm2").query("part == 'curve'")
    ends = rows.set_index(["recipe", "learning_rate", "seed"])["validation_loss"]
    literal = ends["literal"]
    assert len(literal) == len(speed_study.SEEDS)
    for recipe in speed_study.CURVES:
        apart = [ends[recipe][key] - value for key, value in literal.items()]
        half = 2.920 * statistics.stdev(apart) / len(apart) ** 0.5
        center = statistics.mean(apart)
        assert (abs(center) + half < speed_study.MARGIN) == (recipe != "fast"), recipe  # equal
        assert recipe != "fast" or abs(center) < half  # and not told apart
    tried = ends[speed_study.CURVES[0]].xs(0, level="seed")
    assert sorted(tried.index) == sorted(speed_study.LADDER)
    assert literal.index.get_level_values("learning_rate").unique() == min(
        rate for rate in tried.index if tried[rate] <= tried.min() + speed_study.MARGIN
    )


def test_traced_peaks_of_the_3b_model_are_the_closed_form_s(notebook):
    asked = []

    def trace(model, light, **fit):
        asked.append((light, fit))
        return types.SimpleNamespace(peak=1)

    notebook.namespace |= {"peftmemory": peftmemory, "trace_step": trace}
    notebook.namespace |= {"share_drawn": 0.4, "pd": pd, "record": lambda *a, **b: None}
    notebook.namespace |= {"pairs": [([0], [1])], "lengths": [2], "step_cost": lambda *_: 1.0}
    notebook.run("gpu-table")
    assert len(asked) == 6
    for light, fit in {str(each): each for each in asked}.values():
        formula = peftmemory.estimate("llama-3.2-3b", light, **fit).peak
        assert formula == pytest.approx(trace_step("llama-3.2-3b", light, **fit).peak, rel=1e-3)
