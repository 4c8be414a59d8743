"""What a trained model can do, what it forgot, and what it costs: one call, one number."""

import torch
from torch.nn import functional as F

from pefthelpers.data import Example
from pefthelpers.training import collate, device_of, encode, end_id, filler_id, is_seq2seq, pad


@torch.no_grad()
def _scored(model, tokenizer, examples: list[Example], batch_size: int):
    """Yield ``(logits, labels)``, float32 (batch, seq, vocabulary) and int64 (batch, seq), in batches.

    Position i of the logits is what the model says of label i; labels outside the answers are -100.
    Examples come sorted by length, not in their order.
    """
    model.eval()
    seq2seq = is_seq2seq(model)
    form = {"seq2seq": seq2seq, "device": device_of(model)}
    pairs = sorted(encode(tokenizer, examples), key=lambda pair: len(pair[0]) + len(pair[1]))
    longest = sum(map(len, pairs[-1])) if pairs else 1
    # at most half a GiB of logits: a real model's vocabulary makes them many
    size = max(1, min(batch_size, 2**27 // (longest * model.config.get_text_config().vocab_size)))
    for start in range(0, len(pairs), size):
        batch = collate(tokenizer, pairs[start : start + size], **form)
        # A seq2seq model builds its decoder inputs from the labels; a decoder's: (batch, seq - 1).
        labels = batch["labels"] if seq2seq else batch.pop("labels")[:, 1:]
        logits = model(**batch).logits  # (batch, seq, vocabulary)
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


def token_match(model, tokenizer, examples: list[Example], words: set[str]) -> tuple[float, float]:
    """Tell what an answer's words are learned as: the content, or the form around it.

    Args:
        model: a transformers or PEFT model.
        tokenizer: the model's.
        examples: prompts and answers.
        words: those that count as content, each one token; every other answer token is form.

    Returns:
        ``(content, form)``: the shares of these tokens that are the model's first choice, given the
        right tokens before them.
    """
    content = torch.tensor(tokenizer.convert_tokens_to_ids(sorted(words)))
    right, count = torch.zeros(2), torch.zeros(2)
    for logits, labels in _scored(model, tokenizer, examples, 100):
        hit = logits.argmax(-1) == labels  # (batch, seq), bool
        is_content = torch.isin(labels.cpu(), content)  # (batch, seq), bool
        for kind, mask in enumerate((is_content, ~is_content & (labels != -100).cpu())):
            right[kind] += hit.cpu()[mask].sum()
            count[kind] += mask.sum()
    return tuple((right / count).tolist())


def mean_loss(model, tokenizer, examples: list[Example], *, batch_size: int = 100) -> float:
    """Return the cross-entropy in nats per answer token (per token of a document)."""
    total, tokens = 0.0, 0
    for logits, labels in _scored(model, tokenizer, examples, batch_size):
        flat = labels.reshape(-1)  # (batch * seq,)
        rows = logits.reshape(flat.numel(), -1)  # (batch * seq, vocabulary)
        total += F.cross_entropy(rows, flat, ignore_index=-100, reduction="sum").item()
        tokens += int((flat != -100).sum())
    return total / tokens


def count_parameters(model) -> tuple[int, int]:
    """Return ``(trainable, total)`` parameters; a tied tensor counts once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


@torch.no_grad()
def generate(
    model,
    tokenizer,
    examples: list[Example],
    *,
    max_new_tokens: int = 40,
    num_beams: int = 1,
    batch_size: int = 50,
) -> list[str]:
    """Return what the model generates for each prompt, up to its end-of-sequence token.

    Greedily, or by beam search with ``num_beams`` above 1.
    """
    model.eval()
    seq2seq, filler = is_seq2seq(model), filler_id(tokenizer)
    end = [end_id(tokenizer)] if seq2seq else []
    generated = []
    options = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "do_sample": False}
    for start in range(0, len(examples), batch_size):
        prompts = [e.prompt for e in examples[start : start + batch_size]]
        rows = [ids + end for ids in tokenizer(prompts, add_special_tokens=False).input_ids]
        # A decoder's are padded on the left, so that each answer starts where its prompt ends; an encoder's on the
        # right: a soft prompt stands before the padding, and T5 counts the distance between it and the words.
        masks = [[1] * len(row) for row in rows]
        batch = {"input_ids": pad(rows, filler, left=not seq2seq)}  # (batch, seq)
        batch["attention_mask"] = pad(masks, 0, left=not seq2seq)  # (batch, seq)
        batch = {name: tensor.to(device_of(model)) for name, tensor in batch.items()}
        output = model.generate(**batch, **options, pad_token_id=filler)
        if not seq2seq:  # a decoder repeats the prompt in front: (batch, prompt + answer)
            output = output[:, batch["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(output, skip_special_tokens=True)
        generated += [text.strip() for text in texts]
    return generated
