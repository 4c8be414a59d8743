"""A plain training loop, short enough to read: what every measured run of the collection uses."""

import random
from collections.abc import Iterable

import torch

from pefthelpers.data import Example
from pefthelpers.errors import UserError

Pair = tuple[list[int], list[int]]


def encode(tokenizer, examples: list[Example]) -> list[Pair]:
    """Turn examples into ``(prompt ids, answer ids + end of sequence)``.

    Raises:
        UserError: the tokenizer has no end-of-sequence token.
    """
    prompts, answers = zip(*examples, strict=True)
    tokenize = lambda texts: tokenizer(list(texts), add_special_tokens=False).input_ids
    end = [end_id(tokenizer)]
    return [(p, a + end) for p, a in zip(tokenize(prompts), tokenize(answers), strict=True)]


def end_id(tokenizer) -> int:
    """Return the id that ends a sequence; a UserError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            "This tokenizer has no end-of-sequence token, and an answer must end: set "
            "tokenizer.eos_token to the token with which the model's texts end."
        )
    return tokenizer.eos_token_id


def filler_id(tokenizer) -> int:
    """Return the id that fills a batch up: masks and labels come from lengths, so any id will do."""
    known = (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None)
    return next(known, 0)


def pad(rows: list[list[int]], value: int, *, left: bool = False) -> torch.Tensor:
    """Pad on one side to one ``(batch, seq)`` int64 tensor."""
    longest = max(map(len, rows))
    fill = [[value] * (longest - len(row)) for row in rows]
    return torch.tensor([f + r if left else r + f for f, r in zip(fill, rows, strict=True)])


def collate(
    tokenizer, pairs: list[Pair], *, seq2seq: bool = False, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    """Build a batch whose loss falls on the answers alone (on every token where there is no prompt).

    Args:
        tokenizer: its padding token fills (see ``filler_id``), its end token ends a seq2seq source.
        pairs: what ``encode`` returns.
        seq2seq: prompts go to the encoder, answers to the decoder.
        device: where the tensors go.

    Returns:
        ``input_ids``, ``attention_mask``, ``labels``, each int64; decoder: all (batch, seq);
        seq2seq: labels (batch, answer length). Ignored positions of ``labels`` are -100.
    """
    if seq2seq:
        inputs = [prompt + [end_id(tokenizer)] for prompt, _ in pairs]
        labels = [answer for _, answer in pairs]
    else:
        inputs = [prompt + answer for prompt, answer in pairs]
        labels = [[-100] * len(prompt) + answer for prompt, answer in pairs]
    batch = {
        "input_ids": pad(inputs, filler_id(tokenizer)),  # (batch, seq)
        # Built from lengths, not from ids: some tokenizers pad with their end-of-sequence token.
        "attention_mask": pad([[1] * len(row) for row in inputs], 0),  # (batch, seq)
        "labels": pad(labels, -100),  # (batch, seq); seq2seq: (batch, answer length)
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def is_seq2seq(model) -> bool:
    """Tell whether a (PEFT-wrapped) model has an encoder and a decoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def device_of(model) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the schedule's factor: 6 % linear warm-up, then linear decay to 0."""
    return min(1.0, (step + 1) / max(1.0, 0.06 * steps)) * (1 - step / steps)


def batches(pairs: list[Pair], *, size: int, steps: int, seed: int):
    """Yield ``steps`` batches of ``size`` pairs: shuffled epochs, each reshuffled by ``seed``."""
    shuffle, order = random.Random(seed), []
    for _ in range(steps):
        while len(order) < size:
            order += shuffle.sample(range(len(pairs)), len(pairs))
        yield [pairs[order.pop()] for _ in range(size)]


def fit(
    model,
    tokenizer,
    examples: list[Example],
    *,
    learning_rate: float,
    steps: int,
    batch_size: int = 16,
    seed: int = 0,
    replay: list[Example] | None = None,
    replay_per_batch: int = 0,
) -> list[float]:
    """Train whatever of ``model`` requires a gradient on examples, as ``optimise`` does.

    Args:
        model: a transformers or PEFT model, decoder or seq2seq, on any device.
        tokenizer: the model's.
        examples: what is learned.
        learning_rate: the schedule's peak.
        steps: optimiser steps.
        batch_size: examples a step, replayed ones included.
        seed: order of the examples.
        replay: old examples mixed in so that they are not forgotten.
        replay_per_batch: how many of each batch are old ones.

    Returns:
        The loss of each step, nats per answer token.
    """
    draw = lambda drawn, size: batches(encode(tokenizer, drawn), size=size, steps=steps, seed=seed)
    fresh = draw(examples, batch_size - replay_per_batch)
    old = draw(replay, replay_per_batch) if replay_per_batch else iter([[]] * steps)
    form = {"seq2seq": is_seq2seq(model), "device": device_of(model)}
    mixed = (
        collate(tokenizer, new_pairs + old_pairs, **form)
        for new_pairs, old_pairs in zip(fresh, old, strict=True)
    )
    return optimise(model, mixed, learning_rate=learning_rate, steps=steps)


def optimise(
    model, inputs: Iterable[dict], *, learning_rate: float, steps: int, fused: bool | None = None
) -> list[float]:
    """Take a step for each batch: AdamW, no weight decay, warm-up, linear decay, clipped at 1.

    Under a float16 model the loss is scaled, or small gradients would be zeros there.

    Args:
        model: returns a ``loss``; what of it requires a gradient is trained.
        inputs: ``steps`` batches, as the model takes them.
        learning_rate: the schedule's peak.
        steps: how many there are.
        fused: as torch's AdamW takes it.

    Returns:
        The loss of each step.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=fused)
    half = any(p.dtype == torch.float16 for p in model.parameters())
    scaler = torch.amp.GradScaler(device_of(model).type, enabled=half)  # else it does nothing
    model.train()
    losses = []
    for step, batch in enumerate(inputs):
        # this step's place on the schedule
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, steps)
        # forward: one number, the mean over the tokens whose label is not -100
        loss = model(**batch).loss
        # backward: gradients of the trained parameters alone, their common norm at most 1
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        # update
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    model.eval()
    return losses
