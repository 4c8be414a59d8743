"""A plain training loop, short enough to read: what every measured run of the collection uses."""

import random

import torch

from pefthelpers.data import Example

Pair = tuple[list[int], list[int]]


def encode(tokenizer, examples: list[Example]) -> list[Pair]:
    """Turn examples into ``(prompt ids, answer ids + end of sequence)``."""
    prompts, answers = zip(*examples, strict=True)
    tokenize = lambda texts: tokenizer(list(texts), add_special_tokens=False).input_ids
    end = [tokenizer.eos_token_id]
    return [(p, a + end) for p, a in zip(tokenize(prompts), tokenize(answers), strict=True)]


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Pad on the right to one ``(batch, seq)`` int64 tensor."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def collate(
    tokenizer, pairs: list[Pair], *, seq2seq: bool = False, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    """Build a batch whose loss falls on the answers alone (on every token where there is no prompt).

    Args:
        tokenizer: its ``pad_token_id`` fills, its ``eos_token_id`` ends a seq2seq source.
        pairs: what ``encode`` returns.
        seq2seq: prompts go to the encoder, answers to the decoder.
        device: where the tensors go.

    Returns:
        ``input_ids``, ``attention_mask``, ``labels``, each int64; decoder: all (batch, seq);
        seq2seq: labels (batch, answer length). Ignored positions of ``labels`` are -100.
    """
    if seq2seq:
        inputs = [prompt + [tokenizer.eos_token_id] for prompt, _ in pairs]
        labels = [answer for _, answer in pairs]
    else:
        inputs = [prompt + answer for prompt, answer in pairs]
        labels = [[-100] * len(prompt) + answer for prompt, answer in pairs]
    batch = {
        "input_ids": pad(inputs, tokenizer.pad_token_id),
        # Built from lengths, not from ids: some tokenizers pad with their end-of-sequence token.
        "attention_mask": pad([[1] * len(row) for row in inputs], 0),
        "labels": pad(labels, -100),
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


def training_step(loss: torch.Tensor, optimizer, parameters: list[torch.nn.Parameter]) -> float:
    """Take one step down the gradient of ``loss``, its norm clipped at 1; return the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


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
    """Train whatever of ``model`` requires a gradient; AdamW, no weight decay, gradients clipped at 1.

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
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    fresh = batches(
        encode(tokenizer, examples), size=batch_size - replay_per_batch, steps=steps, seed=seed
    )
    old = (
        batches(encode(tokenizer, replay), size=replay_per_batch, steps=steps, seed=seed)
        if replay_per_batch
        else iter([[]] * steps)
    )
    options = {"seq2seq": is_seq2seq(model), "device": device_of(model)}
    model.train()
    losses = []
    for step, (new_pairs, old_pairs) in enumerate(zip(fresh, old, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, steps)
        loss = model(**collate(tokenizer, new_pairs + old_pairs, **options)).loss
        losses.append(training_step(loss, optimizer, parameters))
    model.eval()
    return losses
