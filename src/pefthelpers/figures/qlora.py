"""Plots of 4-bit codes: where their levels lie, and what the block size costs."""

from collections.abc import Sequence

import numpy as np

from pefthelpers import figures


def levels(named: dict[str, Sequence[float]], scaled: Sequence[float]) -> None:
    """Show where the levels of each code lie under a histogram of scaled weights.

    Args:
        named: by name, the levels between -1 and 1.
        scaled: weights, each divided by the largest of its block.
    """
    figure, axis = figures.axes(width=8, height=3.2)
    counts, edges = np.histogram(scaled, bins=100)
    axis.stairs(counts / counts.max(), edges, fill=True, color=figures.FROZEN)
    for row, (name, values) in enumerate(named.items()):
        height = -0.2 - 0.22 * row
        axis.plot(values, [height] * len(values), "|", markersize=14, markeredgewidth=2)
        axis.text(-1.06, height, name, ha="right", va="center")
    axis.set(xlim=(-1.25, 1.05), ylim=(-0.3 - 0.22 * len(named), 1.1), yticks=[])
    axis.set_xlabel("weight / largest of its block")
    axis.spines["left"].set_visible(False)
    figures.show(
        figure,
        "A histogram of scaled weights, a bell with a spike at -1 and at 1, and below it the levels of "
        + ", ".join(named)
        + ": NF4's lie densely near zero, where most weights are, int4's at equal distances.",
    )


def against_block(rows, column: str, label: str) -> None:
    """Draw a figure of each code against the block size, a panel for each kind of weights.

    Args:
        rows: a DataFrame with ``weights_of``, ``kind``, ``block`` and ``column``.
        column: what to draw.
        label: of the vertical axis.
    """
    sources = list(rows["weights_of"].unique())
    low, high = rows[column].min(), rows[column].max()
    room = 0.08 * (high - low)
    figure, panels = figures.axes(len(sources), width=9, height=3.0)
    for axis, source in zip(panels, sources, strict=True):
        for kind, marker in (("nf4", "o"), ("fp4", "s"), ("int4", "^")):
            found = rows[(rows["weights_of"] == source) & (rows["kind"] == kind)]
            axis.plot(found["block"], found[column], marker=marker, markersize=5, label=kind)
        axis.set_xscale("log", base=2)
        blocks = sorted(rows["block"].unique())
        axis.set_xticks(blocks, blocks)
        axis.tick_params(axis="x", labelsize=8)
        axis.set(title=source, xlabel="block size", ylim=(low - room, high + room))
    panels[0].set_ylabel(label)
    panels[0].legend()
    alt = f"{label} against block size, for {', '.join(sources)}: a line each for nf4, fp4, int4."
    at = rows[rows["block"] == 64]
    said = "; ".join(f"{o['weights_of']} {o['kind']} {o[column]:.4f}" for _, o in at.iterrows())
    figures.show(figure, f"{alt} At 64: {said}.")
