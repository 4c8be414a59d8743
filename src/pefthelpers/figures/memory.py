"""Plots of memory: by kind and moment, over a step, and against the cards one can buy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pefthelpers import figures
from pefthelpers.figures.comparison import LOOKS
from peftmemory import CARDS_GIB, GIB

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
    cards_gib: Sequence[float] | Mapping[str, float] = (),
    card_gib: float | None = None,
    title: str = "",
):
    """Return a figure of stacked bars by kind, one bar a row, and a line for each card.

    Args:
        rows: label to bytes by kind.
        cards_gib: memory of cards, drawn as vertical lines; with names, these stand at the lines.
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
    named = cards_gib if isinstance(cards_gib, Mapping) else {f"{c:g}": c for c in cards_gib}
    end = 1.06 * max(left.max(), *named.values()) if named else 1.06 * left.max()
    for name, card in named.items():
        bold = card == card_gib
        axis.axvline(card, color="#111111", lw=2.2 if bold else 1, ls="-" if bold else "--")
        place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axis.text(card, 1.0, name, fontweight="bold" if bold else "normal", **place)
    axis.set(xlim=(0, end), xlabel="GiB" + (", lines: cards" if cards_gib else ""))
    axis.invert_yaxis()
    axis.set_title(title, fontsize=11, pad=18)
    figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def bars(
    rows: Mapping[str, Mapping[str, int]], *, title: str, card_gib: float | None = None
) -> None:
    """Show bytes by kind, one bar a row; with ``card_gib`` against cards, this one's line bold."""
    sums = (f"{label} {sum(kinds.values()) / GIB:.1f} GiB" for label, kinds in rows.items())
    cards = CARDS_GIB if card_gib else ()
    figure = stacks(rows, cards_gib=cards, card_gib=card_gib, title=title)
    figures.show(figure, f"{title}, by part: " + "; ".join(sums))


def look(label: str) -> dict:
    """Return how a line is drawn: colour by method, dashes by the switch after the comma."""
    method, _, switch = label.partition(", ")
    dashes = {"checkpointing": (0, (4, 2)), "eager attention": (0, (1, 1))}.get(switch, "-")
    colour = LOOKS["full" if method == "full" else "lora"][0]
    # Wide and pale, so that a dashed line on top of it leaves it visible.
    pale = {"lw": 5, "alpha": 0.3} if dashes == "-" else {"lw": 1.6}
    return {"color": colour, "ls": dashes, "label": label, **pale}


def timeline(steps: Mapping[str, Any], alt: str) -> None:
    """Show a step's live bytes, its three phases equally wide; a dot marks each peak.

    Args:
        steps: label to what has ``history``, bytes after each operation, and ``ends``, the number of
            operations when the forward and the backward pass ended.
        alt: what a reader who cannot see the figure must know.
    """
    figure, axis = figures.axes(height=3.4)
    for label, step in steps.items():
        edges, sizes = [0, *step.ends, len(step.history)], np.array(step.history) / 2**20
        place = np.interp(np.arange(len(sizes)), edges, range(len(edges)))
        line = axis.plot(place, sizes, **look(label) | {"lw": 1.6, "alpha": 1})[0]
        axis.plot(place[sizes.argmax()], sizes.max(), "o", color=line.get_color(), ms=6)
    for edge in (1, 2):
        axis.axvline(edge, color="#777777", lw=1, ls=":")
    axis.set_xticks([0.5, 1.5, 2.5], ["forward", "backward", "optimiser step"])
    axis.set(ylabel="live MiB", xlim=(0, 3), ylim=(0, None))
    axis.legend(loc="upper right", fontsize=9)
    figures.show(figure, alt)


def curves(tokens: Sequence[int], lines: Mapping[str, Sequence[int]], *, xlabel: str) -> None:
    """Show peaks, in bytes, against a number of tokens that doubles, and a line for each card."""
    figure, axis = figures.axes(height=4)
    for label, peaks in lines.items():
        axis.plot(tokens, np.array(peaks) / GIB, marker="o", ms=4, **look(label))
    for card in CARDS_GIB:
        axis.axhline(card, color="#777777", lw=0.8, ls=":", zorder=0)
        axis.text(tokens[-1] * 1.12, card, f"{card:g} GiB card", va="center", fontsize=9)
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="peak, GiB")
    axis.set_xticks(list(tokens), [f"{value:,}" for value in tokens])
    axis.set_ylim(top=4 * max(CARDS_GIB))  # a line that leaves the picture has left every card
    axis.set_yticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    axis.minorticks_off()
    axis.legend(fontsize=9, handlelength=3.5)
    ends = (
        f"{label} {row[0] / GIB:.0f} to {row[-1] / GIB:.0f} GiB" for label, row in lines.items()
    )
    figures.show(
        figure, f"Peak memory from {tokens[0]:,} to {tokens[-1]:,} tokens: " + "; ".join(ends)
    )
