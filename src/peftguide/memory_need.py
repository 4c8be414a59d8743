"""What a method's step needs on a real model, what a card has for it, and what one task's file weighs."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import peftmemory
from pefthelpers.errors import UserError
from pefthelpers.methods import METHODS, counted
from peftmemory.advice import PRECISIONS, covered_models
from peftmemory.cards import CARD_OVERHEAD_GIB
from peftmemory.configs import read_sheet
from peftmemory.errors import EstimateError
from peftmemory.sharding import per_device

CARDS = (8, *peftmemory.CARDS_GIB)
# Of a card of 24 GB (A10G, L4) 22.5 GiB can be used, of 48 GB (L40S) 45.0, of 16 GB (T4) 14.7; the
# allocator's slack comes on top of a peak.
USABLE, SLACK = 0.92, 1.05
# TRL's SFTTrainer as it comes: fused AdamW, gradient checkpointing, the chunked loss. What is trained is
# float32, as in the recipes, on a frozen base of 16 or 4 bits.
STEP = {"optimizer": "adamw_torch_fused", "checkpointing": True, "loss": "chunked"}
ADAPTED = {"precision": "bf16", "autocast": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": PRECISIONS["mixed"],
    "full in bf16": PRECISIONS["bf16"],
    "qlora": {"precision": "nf4", "autocast": True},
    "prefix": ADAPTED | {"checkpointing": False},
}
# Models of the guide that answer one kind of task, beside the decoders that can be put to any.
SPECIAL = {"roberta-base": "classify", "t5-base": "summarise"}
# A model's role by its `model_type`, and where only a name is known, by what stands in it.
ENCODERS = ("bert", "roberta", "deberta", "electra", "minilm", "mpnet", "camembert", "ernie")
SEQ2SEQ = ("t5", "bart", "pegasus", "marian", "led", "prophetnet")
# Endings of names on the hub that leave a model's shape as it is.
TUNED = re.compile(r"(-(instruct|base|chat|it|hf|\d{4}))+$")


class Unknown(UserError):
    """A model whose shape is not here."""


@cache
def model_names() -> tuple[str, ...]:
    """Return the names that the guide knows: decoders by size, then the special ones."""
    return (*covered_models(), *SPECIAL)


@cache
def known(model: str) -> str:
    """Return what ``peftmemory.load_config`` takes for a name, a hub id, a folder or a config.json.

    Raises:
        Unknown: its shape is not here.
    """
    if model in peftmemory.model_names():
        return model
    path = Path(model) / "config.json" if Path(model).is_dir() else Path(model)
    if path.name.endswith(".json"):
        peftmemory.load_config(path)
        return str(path)
    plain = lambda name: TUNED.sub("", name.lower().rpartition("/")[2].removeprefix("meta-"))
    for name in peftmemory.model_names():
        if plain(model) in (name, plain(read_sheet(name)["source"])):
            return name
    raise Unknown(
        f"There is no model {model!r} here: take one of {', '.join(model_names())}, or download its "
        "config.json from the hub and give the file's path."
    )


def hub_name(model: str) -> str:
    """Return what ``from_pretrained`` takes: the hub's name for one of ``peftmemory``'s models."""
    return read_sheet(model)["source"] if model in peftmemory.model_names() else model


@cache
def role_of(model: str) -> str | None:
    """Return ``decoder``, ``seq2seq`` or ``encoder``; None where the name says nothing."""
    try:
        kind = peftmemory.load_config(known(model)).raw.get("model_type", "")
    except (Unknown, EstimateError):
        folder = Path(model) / "config.json"
        whole = json.loads(folder.read_text("utf-8")) if folder.is_file() else {}
        kind = whole.get("model_type", "")
    name = kind or model.rpartition("/")[2].lower()
    roles = {"seq2seq": SEQ2SEQ, "encoder": ENCODERS}
    for role, words in roles.items():
        if any(re.search(rf"(^|[^a-z])[a-z]{{0,8}}{word}([^a-z]|$)", name) for word in words):
            return role
    return "decoder" if kind else None


def described(method: str) -> Any:
    """Return what ``peftmemory`` counts of a method's configuration in its recipe."""
    return peftmemory.method(METHODS[method].family, **counted(method))


def step(method: str, batch: int = 1, seq: int = 1024) -> dict[str, Any]:
    """Return the fields of a method's step; ``full in bf16`` is full with less."""
    return STEP | ADAPTED | SETTINGS.get(method, {}) | {"batch": batch, "seq": seq}


@cache
def estimate(model: str, method: str, batch: int, seq: int) -> peftmemory.Estimate | None:
    """Return the closed form's estimate of a step; None where no formula covers it."""
    what = described(method.removesuffix(" in bf16"))
    if role_of(model) != "decoder":
        return None
    try:
        return peftmemory.estimate(known(model), what, **step(method, batch, seq))
    except EstimateError:  # another architecture, or a method that does not go with 4 bits
        return None


def peak(model: str, method: str, batch: int = 1, seq: int = 1024) -> float | None:
    """Return the peak of a step in GiB; None where no formula covers it."""
    found = estimate(model, method, batch, seq)
    return found and found.peak / peftmemory.GIB


def room(card_gib: float) -> float:
    """Return the GiB that a step may take by formula on a card that is sold as ``card_gib``."""
    return (USABLE * card_gib - CARD_OVERHEAD_GIB) / SLACK


def sharded(model: str, method: str, cards: int, batch: int = 1, seq: int = 1024) -> float | None:
    """Return the GiB on each of several cards under FSDP: ``peftmemory.sharding``'s."""
    if estimate(model, method, batch, seq) is None:
        return None
    what, asked = described(method.removesuffix(" in bf16")), step(method, batch, seq)
    return per_device(known(model), what, devices=cards, **asked).peak / peftmemory.GIB


def cards_needed(model: str, method: str, card_gib: float, batch: int, seq: int) -> int | None:
    """Return how many cards of a size hold a step under FSDP: 2, 4 or 8, or None."""
    need = {cards: sharded(model, method, cards, batch, seq) for cards in (2, 4, 8)}
    return next((cards for cards, gib in need.items() if gib and gib <= room(card_gib)), None)


@cache
def task_bytes(model: str, method: str) -> int | None:
    """Return the size of one task's file: float32 for what is added, 16 bits for a whole model.

    None where no formula counts what the method adds to the model.
    """
    what = described(method)
    if method == "prefix":  # the projection is thrown away when saving
        what = peftmemory.method("prefix", num_virtual_tokens=what.num_virtual_tokens)
    if role_of(model) != "decoder" and METHODS[method].family == "lora":
        return None  # the target names are those of Llama
    try:
        count = peftmemory.parameters(known(model), what).trainable
    except EstimateError:
        return None
    return count * (2 if method == "full" else 4)


def too_small(model: str, method: str, seq: int, card_gib: float) -> str:
    """Return in a sentence why a card does not hold a method's step, and what does."""
    gib = peak(model, method, 1, seq)
    would = [f"a card of {card} GB" for card in CARDS if gib <= room(card)][:1]
    if cards := cards_needed(model, method, card_gib, 1, seq):
        would += [f"{cards} cards of {card_gib:g} GB under FSDP"]
    four = peak(model, "qlora", 1, seq)
    if method != "qlora" and four and four <= room(card_gib):
        would = [f"qlora ({four:.1f} GiB)", *would]
    return (
        f"{METHODS[method].label} on {model} needs {gib:.1f} GiB for one sequence of {seq:,} tokens, a "
        f"card of {card_gib:g} GB is counted as {room(card_gib):.1f}: take "
        f"{', or '.join(would) or 'a smaller model'}."
    )
