"""The article's runs in 02, 04 and 05: what their cells define, and a training that is cut and taken up."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torchmetrics.functional.text import rouge_score
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

import peftruns
from pefthelpers.record import record

ROW = {"instruction": "Translate.", "input": "impasto", "output": "dough"}


@pytest.fixture
def lora(cells, tmp_path):
    """Return 02's section up to its trainings, in a folder of its own."""
    opened = cells("02_lora")
    opened.namespace |= {"torch": torch, "pd": pd, "Path": Path, "tempfile": tempfile}
    opened.namespace |= {"LoraConfig": LoraConfig, "SFTConfig": SFTConfig, "SFTTrainer": SFTTrainer}
    opened.namespace |= {"PrinterCallback": PrinterCallback, "record": record}
    opened.namespace["peftruns"] = peftruns
    opened.namespace |= {"ARTICLE": "tiny", "MODEL": "", "SEED": 0, "KEEP": str(tmp_path / "keep")}
    names = ("size", "load", "data", "options", "train")
    opened.run(*(f"article-{name}" for name in names))
    return opened


@pytest.mark.parametrize(("text", "there"), [("impasto", True), ("", False)])
def test_a_pair_keeps_the_input_where_there_is_one(lora, text, there):
    pair = lora.namespace["as_pair"](ROW | {"input": text})
    assert ("impasto" in pair["prompt"]) == there
    assert pair["completion"] == "dough" and "dough" not in pair["prompt"]


def trained(lora, folder, *cuts):
    """Train from the start in a folder, cut as often as asked; return the adapter."""
    names, base = lora.namespace, lora.namespace["base_3b"]
    names["kept"] = folder
    names["options"] = names["options"] | {"output_dir": str(folder)}
    folder.mkdir()
    for callbacks in [*cuts, ()]:
        torch.manual_seed(0)  # of the new adapter
        trainer = names["train_on"](base, *callbacks)
        base = trainer.model.unload()
    return trainer.state.global_step, load_file(
        next(folder.glob(f"checkpoint-{trainer.state.global_step}/adapter_model.safetensors"))
    )


def test_a_training_that_was_cut_ends_as_one_that_was_not(lora, tmp_path):
    steps, whole = trained(lora, tmp_path / "whole")
    cut_steps, cut = trained(lora, tmp_path / "cut", (lora.namespace["Cut"](),))
    assert cut_steps == steps
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, rtol=0, atol=1e-5)
    moved = [tensor for name, tensor in whole.items() if "lora_B" in name]
    assert all(tensor.abs().max() > 1e-4 for tensor in moved)


@pytest.mark.parametrize(
    ("said", "wanted", "score"), [("a b c", "a b c", 1.0), ("a b", "c d", 0.0), ("a x", "a y", 0.5)]
)
def test_rouge_is_of_what_was_generated_and_the_highlights(cells, said, wanted, score):
    words = dict(enumerate(["<pad>", "a", "b", "c", "d", "x", "y"]))
    ids = {word: number for number, word in words.items()}
    rows = lambda text, fill: np.array([[ids[word] for word in text.split()] + [fill]])
    decode = lambda rows, **_: [" ".join(words[i] for i in row if i) for row in rows.tolist()]
    opened = cells("04_prefix_tuning")
    opened.namespace |= {"np": np, "rouge_score": rouge_score}
    opened.namespace["article_tokenizer"] = SimpleNamespace(batch_decode=decode)
    opened.run("article-rouge")
    prediction = SimpleNamespace(predictions=rows(said, 0), label_ids=rows(wanted, -100))
    assert opened.namespace["rouge"](prediction)["rouge1"] == pytest.approx(score)


def test_accuracy_is_the_share_of_right_labels(cells):
    opened = cells("05_adapters")
    opened.run("article-model")
    logits = np.array([[0.1, 0.9], [2.0, 1.0], [0.0, 1.0], [3.0, -1.0]])
    found = opened.namespace["accuracy"](
        SimpleNamespace(predictions=logits, label_ids=np.array([1, 0, 0, 0]))
    )
    assert found == {"accuracy": 0.75}
