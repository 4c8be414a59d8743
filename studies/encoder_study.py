"""What do adapters bring on real sentences? MiniLM on the movie reviews, for notebooks 05 and 07.

Run: python -m studies.encoder_study     (resumable; about 85 CPU minutes)

Every method sees the same 3,008 training sentences of a seed, cut at 48 tokens, and the same fresh
head. Learning rates are chosen on validation with seed 0, going on while the best is at the edge of
those tried; the test split is read with seeds 1, 2 and 3, at the chosen rate alone. Which test
sentences were right is kept, so that any two methods can be compared sentence by sentence.

The baseline, ``head``, trains the mean-pooled linear head alone: on stored sentence vectors, 20
times over the same sentences, so that it is not held back by its number of steps.
"""

import functools

import numpy as np
import torch
from peft import get_peft_model
from safetensors.torch import save
from torch.nn import functional as F

from pefthelpers import classification, data, methods
from pefthelpers.classification import Scores
from pefthelpers.measure import count_parameters
from pefthelpers.training import learning_rate_factor
from studies import engine
from studies.engine import Cell
from studies.sweep import saved_bytes

STEPS, BATCH_SIZE, HEAD_EPOCHS = 188, 16, 20
# What notebook 05 compares, and what notebook 07 adds, each with its record.
PARTS = {
    "encoder_study": ("head", "full", "houlsby", "lora", "pfeiffer", "ia3", "prefix"),
    "sweep_encoder": ("lora_qv", "rslora", "dora", "qlora", "ln", "prompt"),
}
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
# Of validation's share: methods differ by a point or two here, so a choice may cost half a point at most.
TIE = 0.005
# Where each search begins: positions on the ladder.
FIRST = {"head": (4, 5, 6), "full": (2, 3, 4), "ia3": (6, 7, 8), "prefix": (6, 7, 8)}
FIRST |= dict.fromkeys(("lora", "houlsby", "pfeiffer"), (4, 5, 6))
FIRST |= dict.fromkeys(("lora_qv", "rslora", "dora", "qlora"), (4, 5, 6))
FIRST |= {"ln": (5, 6, 7), "prompt": (6, 7, 8)}
SEEDS = (1, 2, 3)


@functools.cache
def rows(split: str) -> list[classification.Row]:
    """Return an encoded split of the reviews."""
    _, tokenizer = classification.load()
    return classification.encode(tokenizer, getattr(data.reviews(), split))


@torch.no_grad()
def vectors(picked: list[classification.Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the frozen encoder's sentence vectors, (sentences, d_model), and the labels."""
    model, _ = classification.load()
    batches = [classification.collate(picked[i : i + 32]) for i in range(0, len(picked), 32)]
    found = [model.pooled(batch["input_ids"], batch["attention_mask"]) for batch in batches]
    return torch.cat(found), torch.cat([batch["labels"] for batch in batches])


@functools.cache
def split_vectors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors and labels of a whole split."""
    return vectors(rows(split))


@functools.cache
def drawn_vectors(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors and labels of the sentences that ``classification.fit`` draws with a seed."""
    drawn = classification.batches(rows("train"), size=BATCH_SIZE, steps=STEPS, seed=seed)
    return vectors([row for batch in drawn for row in batch])


def head_scores(head: torch.nn.Module, split: str) -> Scores:
    """Score a head on the stored vectors of a split."""
    features, labels = split_vectors(split)
    with torch.no_grad():
        logits = head(features)
    return Scores(logits.argmax(-1) == labels, F.cross_entropy(logits, labels).item())


def train_head(learning_rate: float, seed: int) -> tuple[dict, object]:
    """Train the head alone; return its size and a function from a split to its scores."""
    features, labels = drawn_vectors(seed)
    model, _ = classification.load(seed=seed)
    head = model.classifier
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.0)
    order = torch.cat([torch.randperm(len(labels)) for _ in range(HEAD_EPOCHS)]).split(BATCH_SIZE)
    for step, picked in enumerate(order):
        optimizer.param_groups[0]["lr"] = learning_rate * learning_rate_factor(step, len(order))
        optimizer.zero_grad()
        F.cross_entropy(head(features[picked]), labels[picked]).backward()
        optimizer.step()
    size = {"steps": len(order), "trainable_parameters": count_parameters(head)[0]}
    size["checkpoint_bytes"] = len(save(head.state_dict()))
    return size, functools.partial(head_scores, head)


def train(method: str, learning_rate: float, seed: int) -> tuple[dict, object]:
    """Train a method; return its size and a function from a split to its scores."""
    model, _ = classification.load(seed=seed, four_bit=method == "qlora")
    if chosen := methods.config(method, "encoder"):
        model = get_peft_model(model, chosen)
    options = {"steps": STEPS, "batch_size": BATCH_SIZE, "seed": seed}
    classification.fit(model, rows("train"), learning_rate=learning_rate, **options)
    size = {"steps": STEPS, "trainable_parameters": count_parameters(model)[0]}
    size["checkpoint_bytes"] = saved_bytes(model)
    return size, lambda split: classification.evaluate(model, rows(split))


def to_hex(right: torch.Tensor) -> str:
    """Write which sentences were right as hexadecimal digits, four sentences a digit."""
    return np.packbits(right.numpy()).tobytes().hex()


def measure(method: str, learning_rate: float, seed: int) -> dict:
    """Train and score on validation; with a final seed on the test split too."""
    trainer = train_head if method == "head" else functools.partial(train, method)
    size, score = trainer(learning_rate, seed)
    validation = score("validation")
    found = {**size, "validation": validation.accuracy, "validation_loss": validation.loss}
    if seed in SEEDS:
        test = score("test")
        found |= {"test": test.accuracy, "test_right": to_hex(test.right)}
    return found


def main() -> None:
    """Run what is not in the record yet."""
    for record, compared in PARTS.items():
        cells = [Cell({"method": method}, LADDER, FIRST[method]) for method in compared]
        engine.run_study(record, cells, measure, SEEDS, TIE)


if __name__ == "__main__":
    main()
