"""An estimate in words and columns, and which settings fit a card."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from pefthelpers.errors import UserError
from pefthelpers.memory.configs import load_config
from pefthelpers.memory.estimate import GIB, Estimate, estimate
from pefthelpers.memory.methods import method

COLUMNS = {
    "frozen_weights": "frozen",
    "trainable_weights": "trained",
    "gradients": "gradients",
    "optimizer_states": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "temporaries": "temp",
}
# What a context and an allocator's slack take from a card; the estimate counts neither.
CARD_OVERHEAD_GIB = 1.0


def table(found: Estimate) -> str:
    """Return an estimate as a table in GiB: a row per moment, the worst starred."""
    setting = found.setting
    extras = " autocast" * setting.autocast + ", checkpointing" * setting.checkpointing
    title = (
        f"{found.model}, {found.method}, batch {setting.batch} x {setting.seq} tokens,"
        f" {setting.precision}{extras}, {setting.optimizer}: {found.peak / GIB:.2f} GiB"
        f" ({found.peak / 1e9:.2f} GB), {found.trainable:,} trained"
    )
    heads = [*COLUMNS.values(), "sum"]
    widths = [max(len(head) + 2, 8) for head in heads]
    lines = [
        title,
        f"{'GiB':21}" + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True)),
    ]
    for moment, kinds in found.moments.items():
        worst = "*" if moment == found.peak_moment else " "
        values = [kinds.get(kind, 0) / GIB for kind in COLUMNS] + [sum(kinds.values()) / GIB]
        cells = (f"{v:{w}.2f}" for v, w in zip(values, widths, strict=True))
        lines.append(f"{worst}{moment:20}" + "".join(cells))
    return "\n".join(lines)


def candidates() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield method label, method and options from the most to the least memory, roughly."""
    everything = method("lora", r=16, target_modules="all-linear")
    trained: list[tuple[str, Any, dict[str, Any]]] = [
        ("full, fp32 + autocast", "full", {"precision": "fp32", "autocast": True}),
        ("full, bf16", "full", {}),
        ("full, bf16, 8-bit Adam", "full", {"optimizer": "adamw_8bit"}),
        ("LoRA r=16 all-linear, bf16", everything, {}),
        ("LoRA r=8 q,v, bf16", method("lora", r=8, target_modules=("q_proj", "v_proj")), {}),
        ("QLoRA r=16 all-linear, NF4", everything, {"precision": "nf4"}),
    ]
    for (label, what, options), checkpointing, loss in product(
        trained, (False, True), ("plain", "chunked")
    ):
        yield label, what, {**options, "checkpointing": checkpointing, "loss": loss}


def fits(
    model: Any,
    *,
    max_vram_gib: float = 24.0,
    batch: int = 1,
    seq: int = 1024,
    optimizer: str = "adamw_torch_fused",
) -> list[dict[str, Any]]:
    """Return which common settings fit a card, the most accurate methods first.

    Args:
        model: what ``load_config`` takes.
        max_vram_gib: the card's memory; ``CARD_OVERHEAD_GIB`` of it is kept for the CUDA context
            and the allocator.
        batch: sequences per step.
        seq: tokens per sequence.
        optimizer: the optimiser where a candidate names none.

    Returns:
        Rows with ``method``, ``checkpointing``, ``loss``, ``peak_gib`` and ``fits``.

    Raises:
        UserError: a card without memory, or what ``estimate`` refuses.
    """
    if not max_vram_gib > 0:
        raise UserError(f"max_vram_gib must be above 0, not {max_vram_gib!r}.")
    config, rows = load_config(model), []
    for label, what, options in candidates():
        found = estimate(config, what, batch=batch, seq=seq, **{"optimizer": optimizer, **options})
        rows.append(
            {
                "method": label,
                "checkpointing": options["checkpointing"],
                "loss": options["loss"],
                "peak_gib": found.peak / GIB,
                "fits": found.peak / GIB + CARD_OVERHEAD_GIB <= max_vram_gib,
            }
        )
    return rows
