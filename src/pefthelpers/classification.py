"""Sentences in, one of a few classes out: an encoder with a mean-pooled head, trained and tested.

A head on the first token alone would make every adapter look good: MiniLM was pre-trained to say
what a sentence means with the mean of its tokens (Reimers & Gurevych 2019).
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from pefthelpers import models
from pefthelpers.data import Labelled
from pefthelpers.training import device_of, optimise, pad

MAX_TOKENS = 48  # of the reviews, 96 % are shorter
WINDOW = 16  # batches whose sentences are sorted by length together, so that little is padding


class Row(NamedTuple):
    """An encoded sentence: token ids, at most ``MAX_TOKENS``, and the class."""

    ids: list[int]
    label: int


class Scores(NamedTuple):
    """What a classifier did on a split.

    Attributes:
        right: bool, shape (sentences,), in the split's order.
        loss: mean cross-entropy in nats.
    """

    right: torch.Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """Return the share of sentences that were classified right."""
        return self.right.double().mean().item()


class MeanPooledClassifier(PreTrainedModel):
    """An encoder, the mean of its token vectors, and a linear head.

    Args:
        encoder: a transformers encoder; it is used as it is, not copied.
        labels: number of classes.
    """

    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, encoder: PreTrainedModel, labels: int = 2) -> None:
        """Draw the head from N(0, 0.02), its bias zero."""
        super().__init__(encoder.config)
        self.num_labels = labels
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, labels)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def pooled(self, input_ids=None, attention_mask=None, **inputs) -> torch.Tensor:
        """Return the mean over the tokens that are no padding, shape (batch, d_model)."""
        hidden = self.encoder(input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        # Prefix tuning lengthens the mask: its virtual tokens are in front and have no output.
        mask = attention_mask[:, -hidden.shape[1] :, None].to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        labels=None,
        past_key_values=None,  # named, or peft's prefix tuning would put a head of its own on top
        return_dict=None,
        **inputs,
    ) -> SequenceClassifierOutput:
        """Return logits of shape (batch, labels) and, given int64 ``labels`` (batch,), the loss."""
        inputs["past_key_values"] = past_key_values
        logits = self.classifier(self.pooled(input_ids, attention_mask, **inputs))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def load(profile: str = "tiny", *, labels: int = 2, seed: int = 0, four_bit: bool = False):
    """Load the profile's encoder under a new head, its weights trainable and its dropout off.

    Dropout guards long training against overfitting; in less than one pass over the data it only
    costs time.

    Args:
        profile: ``tiny``, ``laptop`` or ``gpu``.
        labels: number of classes.
        seed: of the head.
        four_bit: hold the encoder's linear layers in NF4 with double quantisation.

    Returns:
        ``(classifier, tokenizer)``.
    """
    encoder, tokenizer = models.load("encoder", profile, four_bit=four_bit, double_quant=four_bit)
    encoder.pooler = None  # a map of the first token, which nothing here reads
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch.manual_seed(seed)
    classifier = MeanPooledClassifier(encoder, labels).eval()
    classifier.classifier.to(encoder.device)  # drawn on the CPU: the same head on every machine
    return classifier, tokenizer


def encode(tokenizer, items: list[Labelled]) -> list[Row]:
    """Tokenize labelled sentences, cut at ``MAX_TOKENS``."""
    texts = [item.text for item in items]
    ids = tokenizer(texts, truncation=True, max_length=MAX_TOKENS).input_ids
    return [Row(row, item.label) for row, item in zip(ids, items, strict=True)]


def collate(rows: list[Row], *, padding: int = 0, device="cpu") -> dict[str, torch.Tensor]:
    """Pad on the right: ``input_ids`` and ``attention_mask`` (batch, seq), ``labels`` (batch,)."""
    batch = {
        "input_ids": pad([row.ids for row in rows], padding),
        "attention_mask": pad([[1] * len(row.ids) for row in rows], 0),
        "labels": torch.tensor([row.label for row in rows]),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def batches(rows: list[Row], *, size: int, steps: int, seed: int) -> Iterator[list[Row]]:
    """Yield ``steps`` batches of sentences of similar length, drawn epoch by epoch by ``seed``."""
    shuffle, order = random.Random(seed), []
    while len(order) < steps * size:
        order += shuffle.sample(rows, len(rows))
    for start in range(0, steps * size, WINDOW * size):
        window = order[start : min(start + WINDOW * size, steps * size)]
        window.sort(key=lambda row: len(row.ids))
        cut = [window[i : i + size] for i in range(0, len(window), size)]
        yield from shuffle.sample(cut, len(cut))


def fit(
    model: nn.Module,
    rows: list[Row],
    *,
    learning_rate: float,
    steps: int,
    batch_size: int = 16,
    seed: int = 0,
) -> list[float]:
    """Train what requires a gradient on sentences, as ``training.optimise`` does.

    Args:
        model: a classifier, with or without a PEFT method.
        rows: encoded training sentences; each step draws ``batch_size`` of them.
        learning_rate: the schedule's peak.
        steps: optimiser steps.
        batch_size: sentences a step.
        seed: order of the sentences.

    Returns:
        The loss of each step, nats.
    """
    form = {"padding": model.config.pad_token_id or 0, "device": device_of(model)}
    drawn = batches(rows, size=batch_size, steps=steps, seed=seed)
    inputs = (collate(batch, **form) for batch in drawn)
    return optimise(model, inputs, learning_rate=learning_rate, steps=steps, fused=True)


@torch.no_grad()
def evaluate(model: nn.Module, rows: list[Row], *, batch_size: int = 64) -> Scores:
    """Classify every sentence of a split."""
    model.eval()
    form = {"padding": model.config.pad_token_id or 0, "device": device_of(model)}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    right, total = torch.zeros(len(rows), dtype=torch.bool), 0.0
    for start in range(0, len(rows), batch_size):
        picked = order[start : start + batch_size]
        batch = collate([rows[i] for i in picked], **form)
        output = model(**batch)
        right[picked] = (output.logits.argmax(-1) == batch["labels"]).cpu()
        total += output.loss.item() * len(picked)
    return Scores(right, total / len(rows))
