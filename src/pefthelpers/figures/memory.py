"""Plots of memory: by kind and moment, over a step, and against the cards one can buy."""

from collections.abc import Mapping, Sequence

import numpy as np

from pefthelpers import figures
from peftmemory import GIB

# Kind of bytes: colour and the word a reader sees, from the bottom of a stack to its top.
KINDS = {
    "frozen_weights": (figures.FROZEN, "frozen weights"),
    "trainable_weights": (figures.TRAINED, "trained weights"),
    "optimizer_states": (figures.GREEN, "optimiser states"),
    "gradients": (figures.RED, "gradients"),
    "activations": (figures.BLUE, "activations"),
    "logits": (figures.PINK, "logits"),
    "temporaries": (figures.YELLOW, "temporaries"),
}


def stacks(
    rows: Mapping[str, Mapping[str, int]],
    *,
    cards_gib: Sequence[float] = (),
    card_gib: float | None = None,
    title: str = "",
):
    """Return a figure of stacked bars by kind, one bar a row, and a line for each card.

    Args:
        rows: label to bytes by kind.
        cards_gib: memory of cards, drawn as vertical lines.
        card_gib: the card whose line is bold.
        title: above the bars.
    """
    figure, axis = figures.axes(width=8, height=1.35 + 0.42 * len(rows))
    left = np.zeros(len(rows))
    for kind, (colour, word) in KINDS.items():
        sizes = np.array([kinds.get(kind, 0) / GIB for kinds in rows.values()])
        if sizes.any():
            edge = {"edgecolor": "#666666", "lw": 0.4}
            axis.barh(list(rows), sizes, left=left, color=colour, label=word, height=0.62, **edge)
        left += sizes
    end = 1.06 * max(left.max(), *cards_gib) if cards_gib else 1.06 * left.max()
    for card in cards_gib:
        bold = card == card_gib
        axis.axvline(card, color="#111111", lw=2.2 if bold else 1, ls="-" if bold else "--")
        place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axis.text(card, 1.0, f"{card:g}", fontweight="bold" if bold else "normal", **place)
    axis.set(xlim=(0, end), xlabel="GiB" + (", lines: cards" if cards_gib else ""))
    axis.invert_yaxis()
    axis.set_title(title, fontsize=11, pad=18)
    figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def timeline(runs: Mapping[str, Sequence[int]], alt: str) -> None:
    """Show live bytes over the operations of a step, one line a run.

    Args:
        runs: label to live bytes after each operation.
        alt: what a reader who cannot see the figure must know.
    """
    figure, axis = figures.axes(height=3.2)
    for label, history in runs.items():
        share = np.linspace(0, 1, len(history))
        line = axis.plot(share, np.array(history) / 2**20, label=label, lw=1.4)[0]
        top = int(np.argmax(history))
        axis.plot(share[top], history[top] / 2**20, "o", color=line.get_color(), ms=6)
    axis.set(xlabel="share of the step's operations", ylabel="live MiB", ylim=(0, None))
    axis.legend()
    figures.show(figure, alt)


def curves(x: Sequence[int], lines: Mapping[str, Sequence[int]], *, xlabel: str, alt: str) -> None:
    """Show peaks in GiB against a quantity that doubles.

    Args:
        x: the quantity's values.
        lines: label to peaks in bytes, one for each value.
        xlabel: the quantity's name.
        alt: what a reader who cannot see the figure must know.
    """
    figure, axis = figures.axes(height=3.2)
    for label, peaks in lines.items():
        axis.plot(x, np.array(peaks) / GIB, marker="o", ms=4, label=label)
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="peak, GiB")
    axis.set_xticks(list(x), [f"{value:,}" for value in x])
    low, high = axis.get_ylim()
    ticks = [t for t in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if low <= t <= high]
    axis.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(fontsize=9)
    figures.show(figure, alt)
