"""What a method's step needs on a real model, what a card has for it, and what one task's file weighs."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import peftmemory
from pefthelpers.errors import UserError
from pefthelpers.methods import METHODS, counted
from peftmemory.advice import PRECISIONS, covered_models
from peftmemory.cards import reported
from peftmemory.cards import room as room_of
from peftmemory.configs import COUNTED, read_sheet
from peftmemory.counts import base_parameters, block_linear
from peftmemory.errors import EstimateError
from peftmemory.sharding import per_device

CARDS = (8, *peftmemory.CARDS_GIB)
# TRL's SFTTrainer as it comes: fused AdamW, gradient checkpointing, the chunked loss. What is trained is
# float32, as in the recipes, on a frozen base of 16 or 4 bits.
# Bytes a parameter of what stands in memory before any activation: weights, gradients, AdamW's moments. What
# an adapter trains is left out there. In 4 bits with double quantisation: Dettmers et al. (2023), section 3.
BEFORE = {"full": 16, "full in bf16": 8}
SIXTEEN, FOUR = 2, (4 + 8 / 64 + 32 / (64 * 256)) / 8
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
DECODERS = re.compile(
    "llama|mi[sx]tral|qwen|gemma|phi-|smollm|gpt2|olmo|granite|falcon|opt-|pythia"
)
# Parts of names on the hub that leave a model's shape as it is.
TUNED = re.compile(r"-(instruct|base|chat|it|hf|\d{4}$)(?=-|$)")


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
    if not model.strip():
        raise Unknown("The model has no name: give a name, a hub id, a folder or a config.json.")
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
    """Return ``decoder``, ``seq2seq`` or ``encoder``; None where only a name is known and says nothing.

    Raises:
        UserError: its configuration is here, and it is no model of text.
        EstimateError: its configuration is damaged.
    """
    try:
        kind = peftmemory.load_config(known(model)).model_type
    except Unknown:
        name = model.rpartition("/")[2].lower()
        for role, words in {"seq2seq": SEQ2SEQ, "encoder": ENCODERS}.items():
            if any(re.search(rf"(^|[^a-z])[a-z]{{0,8}}{word}([^a-z]|$)", name) for word in words):
                return role
        return "decoder" if DECODERS.search(name) else None
    special = {"t5": "seq2seq", "roberta": "encoder"}
    return special.get(kind, "decoder") if kind in COUNTED else role_by_class(model, kind)


def role_by_class(model: str, kind: str) -> str:
    """Return the role of a family without a formula, by the classes that transformers has for it."""
    from peftmemory.tracing.heads import knows  # here, as it brings torch

    if knows("seq2seq-lm", kind):
        return "seq2seq"
    if knows("masked-lm", kind) and knows("classifier", kind):
        return "encoder"
    if knows("causal-lm", kind):
        return "decoder"
    raise UserError(
        f"transformers has no language model of the kind {kind!r} ({model}): give one that reads or "
        "writes text."
    )


def check_length(model: str, seq: int) -> None:
    """Refuse more tokens than a decoder whose shape is here has positions for.

    Raises:
        UserError: the sentence says how many it reads.
    """
    positions = peftmemory.load_config(known(model)).raw.get("max_position_embeddings")
    if role_of(model) == "decoder" and isinstance(positions, int) and seq > positions:
        raise UserError(f"{model} reads {positions:,} tokens, not {seq:,}: lower seq.")


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


class Weights(NamedTuple):
    """A model's parameters, those of them that loading in 4 bits packs, and whether its attention is fused."""

    total: int
    packed: int
    fused: bool


@cache
def weights(model: str) -> Weights:
    """Count a model's weights: by formula or, where there is none, on transformers' class on meta.

    Raises:
        EstimateError: transformers does not know the model either.
    """
    config = peftmemory.load_config(known(model))
    try:
        return Weights(base_parameters(config), block_linear(config), True)
    except EstimateError:
        from peftmemory.tracing import build, four_bit  # here, as they bring torch

    setting = peftmemory.StepSetting(batch=1, seq=1, attention="eager")
    base = build.build_base(config, setting, device="meta")
    packed = sum(module.weight.numel() for *_, module in four_bit.convertible(base))
    return Weights(sum(p.numel() for p in base.parameters()), packed, base._supports_sdpa)


def trace_command(model: str, method: str, batch: int, seq: int) -> str:
    """Return the command that works out the peak of a step that no formula covers, set as a recipe's."""
    fields, decoder = counted(method), role_of(model) == "decoder"
    options = {"rank": "r", "targets": "target_modules", "virtual-tokens": "num_virtual_tokens"}
    options |= {"reduction": "reduction_factor"}
    given = [f"--{name} {fields[field]}" for name, field in options.items() if field in fields]
    given += ["--precision nf4"] * (method == "qlora")
    given += ["--attention eager"] * (not weights(model).fused)
    given += ["--loss chunked"] * decoder + ["--checkpointing"] * (decoder and method != "prefix")
    what = f"{known(model)} --method {METHODS[method].family}"
    size = f"--batch {batch} --seq {seq if decoder else min(seq, 512)}"
    return " ".join(["pefthelpers memory", what, *given, size, "--trace"])


def least(model: str, method: str) -> float:
    """Return the GiB that a method's step holds before any activation, what an adapter trains left out."""
    total, packed, _ = weights(model)
    four = FOUR * packed + SIXTEEN * (total - packed)
    return (four if method == "qlora" else BEFORE.get(method, SIXTEEN) * total) / peftmemory.GIB


def room(card_gib: float) -> float:
    """Return the GiB that a step may take by formula on a card that is sold as ``card_gib``."""
    return room_of(reported(card_gib))


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
    if role_of(model) == "encoder" and METHODS[method].family == "lora":
        return None  # a head of its own is saved with it
    try:
        count = peftmemory.parameters(known(model), what).trainable
    except EstimateError:
        return None
    return count * (2 if method == "full" else 4)


def too_small(model: str, method: str, seq: int, card_gib: float) -> str:
    """Return in a sentence why a card does not hold a method's step, and what does."""
    gib = peak(model, method, 1, seq)
    would = [f"a card of {card} GB" for card in CARDS if gib <= room(card)][:1]
    four = peak(model, "qlora", 1, seq)
    if method != "qlora" and four and four <= room(card_gib):
        would = [f"qlora ({four:.1f} GiB)", *would]
    parts = [part for part in (seq // 2, seq // 4) if part >= 128]
    would += [f"--seq {n}" for n in parts if peak(model, method, 1, n) <= room(card_gib)][:1]
    for name in dict.fromkeys((method, "qlora")):
        if cards := cards_needed(model, name, card_gib, 1, seq):
            would += [f"{name} on {cards} cards of {card_gib:g} GB under FSDP"]
    return (
        f"{METHODS[method].label} on {model} needs {gib:.1f} GiB for one sequence of {seq:,} tokens, a "
        f"card of {card_gib:g} GB is counted as {room(card_gib):.1f}: take "
        f"{', or '.join(would) or 'a smaller model'}."
    )
