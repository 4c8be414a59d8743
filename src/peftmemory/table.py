"""An estimate or a trace in columns."""

from peftmemory.phases import GIB, Moments

COLUMNS = {
    "frozen_weights": "frozen",
    "trainable_weights": "trained",
    "gradients": "gradients",
    "optimizer_states": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "temporaries": "temp",
}


def table(found: Moments) -> str:
    """Return an estimate or a trace as a table in GiB: a row per moment, the worst starred."""
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
        rest = sum(size for kind, size in kinds.items() if kind not in COLUMNS)  # a trace's inputs
        by_column = {**kinds, "activations": kinds.get("activations", 0) + rest}
        values = [by_column.get(kind, 0) / GIB for kind in COLUMNS] + [sum(kinds.values()) / GIB]
        cells = (f"{v:{w}.2f}" for v, w in zip(values, widths, strict=True))
        lines.append(f"{worst}{moment:20}" + "".join(cells))
    return "\n".join(lines)
