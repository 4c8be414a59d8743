"""What a trained model can do, what it forgot, and what it costs: one call, one number."""

import torch
from torch.nn import functional as F

from pefthelpers.examples import Example
from pefthelpers.training import collate, device_of, encode, is_seq2seq


@torch.no_grad()
def _scored(model, tokenizer, examples: list[Example], batch_size: int):
    """Yield ``(logits, labels)`` of the answer positions, batch by batch, sorted by length."""
    model.eval()
    seq2seq = is_seq2seq(model)
    pairs = sorted(encode(tokenizer, examples), key=lambda pair: len(pair[0]) + len(pair[1]))
    for start in range(0, len(pairs), batch_size):
        batch = collate(
            tokenizer, pairs[start : start + batch_size], seq2seq=seq2seq, device=device_of(model)
        )
        labels = batch["labels"] if seq2seq else batch["labels"][:, 1:]
        if not seq2seq:  # seq2seq models build their decoder inputs from the labels
            del batch["labels"]
        logits = model(**batch).logits
        # Prompt tuning returns logits for its virtual tokens too, in front.
        logits = logits[:, -labels.shape[1] :] if seq2seq else logits[:, -labels.shape[1] - 1 : -1]
        yield logits.float(), labels


def exact_match(model, tokenizer, examples: list[Example], *, batch_size: int = 100) -> float:
    """Return the share of examples whose every answer token is the model's first choice.

    Computed under teacher forcing in one pass per batch; it equals exact match of greedy
    decoding, because greedy decoding leaves the reference at the first wrong token.
    """
    right = 0
    for logits, labels in _scored(model, tokenizer, examples, batch_size):
        right += ((logits.argmax(-1) == labels) | (labels == -100)).all(dim=1).sum().item()
    return right / len(examples)


def mean_loss(model, tokenizer, examples: list[Example], *, batch_size: int = 100) -> float:
    """Return the cross-entropy in nats per answer token (per token of a document)."""
    total, tokens = 0.0, 0
    for logits, labels in _scored(model, tokenizer, examples, batch_size):
        flat = labels.reshape(-1)
        total += F.cross_entropy(
            logits.reshape(flat.numel(), -1), flat, ignore_index=-100, reduction="sum"
        ).item()
        tokens += int((flat != -100).sum())
    return total / tokens


def count_parameters(model) -> tuple[int, int]:
    """Return ``(trainable, total)`` parameters; a tied tensor counts once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
