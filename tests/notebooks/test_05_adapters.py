"""Notebook 05: its from-scratch adapter equals the method, its exercises answer as they should."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from scipy import stats
from torch import nn
from transformers import AutoModel

from peftbottleneck import BottleneckConfig, BottleneckLayer
from pefthelpers import figures, results
from pefthelpers.checks import adapters as check
from pefthelpers.classification import MeanPooledClassifier
from pefthelpers.figures import comparison as draw
from pefthelpers.methods import LABELS
from pefthelpers.paths import data_dir
from pefthelpers.results import mildest
from studies.adapterhub_fixture import inputs
from studies.encoder_study import TIE
from studies.engine import Study
from support.bottleneck_models import batch, tiny

EXERCISES = range(1, 4)


@pytest.fixture
def book(cells):
    """Return notebook 05 with the names that its cells expect."""
    opened = cells("05_adapters")
    opened.namespace |= {"torch": torch, "nn": nn, "check": check}
    return opened


def defined(book, name):
    """Execute the cell that defines ``name`` and return it."""
    book.namespace |= {"math": math, "BottleneckLayer": BottleneckLayer}
    book.run(f"define-{name}")
    return book.namespace[name]


def classifier():
    torch.manual_seed(0)
    return MeanPooledClassifier(tiny("bert").bert).requires_grad_(False).eval()


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_the_adapter_by_hand_equals_the_method(book, placement):
    defined(book, "Bottleneck")
    ours = defined(book, "insert")(classifier(), placement, 4)
    config = BottleneckConfig(task_type="SEQ_CLS", placement=placement, reduction_factor=8)
    theirs = get_peft_model(classifier(), config).eval()
    pairs = defined(book, "pairs_of")(ours, theirs)
    assert len(pairs) == (8 if placement == "houlsby" else 4)
    for a, b in pairs:
        nn.init.normal_(b.weight, std=0.05)
        a.load_state_dict(b.state_dict())
    rows_of = {key: batch("bert")[key] for key in ("input_ids", "attention_mask", "labels")}
    mine, its = ours(**rows_of), theirs(**rows_of)
    assert torch.equal(mine.logits, its.logits)
    mine.loss.backward()
    its.loss.backward()
    assert all(torch.equal(a.weight.grad, b.weight.grad) for a, b in pairs)
    assert all(a.weight.grad.any() for a, _ in pairs)


@pytest.mark.parametrize(("placement", "tolerance"), [("houlsby", 1e-6), ("pfeiffer", 2e-6)])
def test_the_adapter_by_hand_computes_what_adapterhub_computed(book, placement, tolerance):
    """An independent check: AdapterHub's files and outputs, see studies/adapterhub_fixture.py."""
    fixture = Path(__file__).parents[1] / "fixtures" / "adapterhub" / "bert"
    encoder, batch_of = AutoModel.from_pretrained(fixture).eval(), inputs("bert")
    real = batch_of["attention_mask"].bool()
    wanted = load_file(fixture / "reference.safetensors")[f"{placement}.hidden"][real]
    far = (encoder(**batch_of).last_hidden_state[real] - wanted).abs().max()
    defined(book, "Bottleneck")
    defined(book, "insert")(MeanPooledClassifier(encoder).eval(), placement, 4)
    stored = load_file(fixture / placement / "adapter.safetensors")
    for number, layer in enumerate(encoder.encoder.layer):
        by_hand = [m for m in layer.modules() if isinstance(m, book.namespace["Bottleneck"])]
        places = ["attention.output.", "output."][-len(by_hand) :]
        for adapter, place in zip(by_hand, places, strict=True):
            start = f"bert.encoder.layer.{number}.{place}adapters.task.adapter_"
            for ours, theirs in ((adapter.down, "down.0"), (adapter.up, "up")):
                ours.weight.data = stored[f"{start}{theirs}.weight"]
                ours.bias.data = stored[f"{start}{theirs}.bias"]
    found = encoder(**batch_of).last_hidden_state[real]
    # The reference was computed on another processor, which rounds the last bits otherwise.
    assert (found - wanted).abs().max() <= 10 * tolerance < 0.01 < far


def test_a_new_adapter_by_hand_is_the_identity(book):
    x = torch.randn(2, 3, 16)
    assert torch.equal(defined(book, "Bottleneck")(16, 4, nn.SiLU())(x), x)


def test_the_formula_counts_the_adapter(book):
    adapter = defined(book, "Bottleneck")(768, 48, nn.SiLU())
    counted = sum(p.numel() for p in adapter.parameters())
    assert counted == defined(book, "adapter_parameters")(768, 48)


def test_the_paired_test_is_the_exact_binomial_one(book):
    stats = pytest.importorskip("scipy.stats")
    paired_p = defined(book, "paired_p")
    for only_a, only_b in ((0, 0), (5, 5), (3, 11), (40, 12), (1, 0)):
        a = torch.tensor([True] * (only_a + 7) + [False] * only_b).numpy()
        b = torch.tensor([False] * only_a + [True] * (7 + only_b)).numpy()
        n = only_a + only_b
        wanted = stats.binomtest(only_a, n).pvalue if n else 1.0
        assert paired_p(a, b) == pytest.approx(wanted)


# The record behind the notebook's table.


def rows(**key):
    return Study(data_dir() / "results" / "encoder_study.json").find(**key)


METHODS = ("head", "full", "houlsby", "lora", "pfeiffer", "ia3", "prefix")


@pytest.mark.parametrize("method", METHODS)
def test_the_rate_was_chosen_on_validation_and_not_at_an_edge(method):
    searched = rows(method=method, seed=0)
    chosen = mildest(searched, TIE)["learning_rate"]
    tried = sorted(row["learning_rate"] for row in searched)
    assert tried[0] < chosen < tried[-1]
    assert not any("test" in row for row in searched)
    final = [row for row in rows(method=method, learning_rate=chosen) if "test" in row]
    assert {row["seed"] for row in final} >= {1, 2, 3}


@pytest.mark.parametrize("method", METHODS)
def test_the_sentences_on_record_add_up_to_the_accuracy(method):
    for row in rows(method=method, seed=1):
        packed = np.frombuffer(bytes.fromhex(row["test_right"]), np.uint8)
        assert np.unpackbits(packed, count=2006).mean() == pytest.approx(row["test"])


def compared(book, method, reference):
    """The notebook's comparison of two methods, from the record."""
    reviews = SimpleNamespace(test=range(2006))
    book.namespace |= {"np": np, "pd": pd, "math": math, "stats": stats, "reviews": reviews}
    book.namespace |= {"results": results, "figures": figures, "draw": draw, "NAMES": LABELS}
    book.run("study", "define-paired_p", "paired")
    return book.namespace["compare"](method, reference)


@pytest.mark.parametrize(
    ("method", "reference", "verdict", "seeds"),
    [
        ("houlsby", "full", "behind", "- - -"),
        ("full", "houlsby", "ahead", "+ + +"),
        ("lora", "full", "equal within 0.02", "0 0 0"),
        ("pfeiffer", "full", "not told apart", "- 0 -"),
        ("houlsby", "head", "ahead", "+ + +"),
        ("pfeiffer", "head", "ahead", "+ + +"),
        ("lora", "head", "ahead", "+ + +"),
        ("lora_qv", "head", "ahead", "+ + +"),
        ("houlsby", "lora", "behind", "- - -"),
        ("houlsby", "lora_qv", "behind", "- - -"),
        ("pfeiffer", "lora", "not told apart", "- 0 -"),
        ("pfeiffer", "lora_qv", "not told apart", "- 0 -"),
        ("pfeiffer", "houlsby", "not told apart", "0 + 0"),
        ("lora_qv", "full", "equal within 0.02", "0 0 0"),
    ],
)
def test_the_verdicts_have_a_sign_and_follow_the_intervals(book, method, reference, verdict, seeds):
    found = compared(book, method, reference)
    assert (found["verdict"], found["seeds"]) == (verdict, seeds)


def test_houlsby_keeps_more_than_half_of_the_gain_with_a_hundredth_of_the_parameters(book):
    compared(book, "houlsby", "head")
    right, scores = book.namespace["right"], book.namespace["scores"]
    houlsby, full, head = (right(method).mean(1) for method in ("houlsby", "full", "head"))
    assert ((houlsby - head) / (full - head) > 0.5).all()
    assert 0.009 < scores["trained"]["houlsby"] / scores["trained"]["full"] < 0.011
    assert 0.3 < scores["trained"]["lora_qv"] / scores["trained"]["houlsby"] < 0.36
    assert 0.49 < scores["trained"]["pfeiffer"] / scores["trained"]["houlsby"] < 0.51
    assert scores["mean"][["lora", "lora_qv"]].min() > scores["mean"][["houlsby", "pfeiffer"]].max()


def test_the_first_step_teaches_up_alone(book):
    """The formula of the gradient: from an up of zero, down learns from the second step on."""
    defined(book, "Bottleneck")
    adapter, x = book.namespace["Bottleneck"](6, 2, nn.SiLU()), torch.randn(8, 6)
    norms = []
    for _ in range(2):
        adapter(x).pow(2).sum().backward()
        norms.append((adapter.down.weight.grad.norm().item(), adapter.up.weight.grad.norm().item()))
        torch.optim.SGD(adapter.parameters(), lr=0.01).step()
        adapter.zero_grad()
    assert norms[0][0] == 0 and norms[0][1] > 0 and norms[1][0] > 0


def test_what_the_text_says_about_the_decoders(book):
    book.namespace |= {"pd": pd, "results": results, "NAMES": {}}
    book.run("decoder")
    table = book.namespace["table"]
    assert (table["ELICIT"].drop("the base") > 0.95).all()
    learn = table["LEARN"]
    assert learn["lora"] > 0.99 and 0.8 < learn["houlsby"] < 0.87 and 0.63 < learn["pfeiffer"] < 0.7
    longer = results.rows("budget_curves").query("steps == 2000")
    longer = results.at_chosen_rate(longer, ["cell"]).groupby("cell")["test"].mean()
    assert all(learn[m] < longer[m] < learn["lora"] for m in ("houlsby", "pfeiffer"))
    grown = np.exp(table["after LEARN"] - table["after LEARN"]["the base"])
    assert 2 < grown["lora"] < 4 and 200 < grown["houlsby"] < 900
    rates = book.namespace["chosen"].groupby(["task", "method"])["learning_rate"].first()["learn"]
    assert min(rates["houlsby"], rates["pfeiffer"]) > rates["lora"]


def test_memory_follows_the_places_and_not_the_parameters():
    cost = results.rows("sweep_cost").set_index("method")
    peak, trained = cost["traced_peak_bytes"] / 2**30, cost["trainable_parameters"]
    assert trained["houlsby"] > trained["lora"] and peak["lora"] - peak["houlsby"] > 3
    assert peak["pfeiffer"] < peak["houlsby"] and abs(peak["lora_qv"] - peak["houlsby"]) < 2


def test_the_cell_to_take_home_stands_alone(book):
    """In a namespace of its own, with nothing of the notebook but the model's name."""
    from pefthelpers import models

    folder = models.load("encoder", "tiny")[0].config.name_or_path
    source = book.by_id["home"].source.replace("base.config.name_or_path", repr(folder))
    book.namespace.clear()
    found = book.execute(source)
    assert found.shape == (1, 2) and torch.isclose(found.sum(), torch.tensor(1.0))


# The exercises.


@pytest.mark.parametrize("number", EXERCISES)
def test_stubs_are_not_attempted_and_solutions_are_correct(number, book):
    stub, solution = book.exercise(number)
    assert (stub.status, solution.status) == ("not attempted", "correct"), solution


def test_from_zero_only_the_bias_of_up_learns(book):
    adapter = defined(book, "Bottleneck")(6, 2, nn.ReLU())
    for parameter in adapter.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    x, wanted = torch.randn(8, 6), torch.randn(8, 6)
    for _ in range(5):
        optimizer.zero_grad()
        (adapter(x) - wanted).pow(2).mean().backward()
        optimizer.step()
    assert [name for name, p in adapter.named_parameters() if p.any()] == ["up.bias"]
