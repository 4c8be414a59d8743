"""Virtual tokens drawn: where they are put, and what one attention head does with them."""

import torch

from pefthelpers import figures
from pefthelpers.figures import FROZEN, TRAINED

COMPUTED = "#f7deab"  # follows from trained numbers: a paler orange
WORDS = ("how", "long", "?")


def cells(axis, *, n: int, layers: int, everywhere: bool) -> None:
    """Draw a grid of token states: a column for each token, a row for the input and each layer.

    Args:
        axis: where to draw.
        n: virtual tokens, the columns on the left.
        layers: rows above the input's.
        everywhere: learned in every layer (a prefix), or in the input only (a prompt).
    """
    from matplotlib.patches import Rectangle

    for row in range(layers + 1):
        for column in range(n + len(WORDS)):
            virtual, is_input = column < n, row == 0
            if virtual and everywhere and is_input:
                continue
            learned = virtual and (everywhere or is_input)
            colour = TRAINED if learned else COMPUTED if virtual else FROZEN
            axis.add_patch(Rectangle((column, row), 0.86, 0.8, facecolor=colour, edgecolor="#333"))
            if is_input and not virtual:
                word = WORDS[column - n]
                axis.text(column + 0.43, 0.4, word, ha="center", va="center", fontsize=9)
        name = "input" if row == 0 else f"layer {row}: K, V"
        axis.text(-0.2, row + 0.4, name, ha="right", va="center", fontsize=10)
    axis.set(xlim=(-3.4, n + len(WORDS)), ylim=(-0.1, layers + 1), aspect="equal")
    axis.axis("off")


def schematic(*, n: int, layers: int) -> None:
    """Show what prompt tuning and prefix tuning learn, side by side.

    Args:
        n: virtual tokens drawn.
        layers: of the model.
    """
    from matplotlib.patches import Patch

    figure, panels = figures.axes(columns=2, width=8.5, height=3.1)
    for axis, name, everywhere in zip(panels, ("prompt", "prefix"), (False, True), strict=True):
        cells(axis, n=n, layers=layers, everywhere=everywhere)
        axis.set_title(f"{name} tuning")
    legend = {"learned": TRAINED, "computed from learned": COMPUTED, "computed from words": FROZEN}
    handles = [Patch(facecolor=c, edgecolor="#333", label=name) for name, c in legend.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figures.show(
        figure,
        f"Two grids of token states with {n} virtual tokens on the left of the words. Prompt "
        f"tuning learns them in the input only; their keys and values in all {layers} layers are "
        f"computed. Prefix tuning has none in the input and learns keys and values in every layer.",
    )


def head(weights: torch.Tensor, words: list[str], *, n: int) -> None:
    """Draw the attention weights of one head: who looks at whom, and at the prefix how much.

    Args:
        weights: (seq, n + seq), each row sums to 1.
        words: the seq real tokens.
        n: virtual tokens in front.
    """
    figure, axis = figures.axes(width=8.5, height=3.6)
    image = axis.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.axvspan(-0.5, n - 0.5, facecolor="none", edgecolor=TRAINED, linewidth=3)
    axis.set_xticks(range(n + len(words)), [f"p{i + 1}" for i in range(n)] + words)
    axis.tick_params(axis="x", labelrotation=45)
    for label in axis.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(words)), words)
    axis.set(xlabel="keys: the learned ones, then the words", ylabel="query of")
    figure.colorbar(image, ax=axis, label="weight", pad=0.13)
    for row, share in enumerate(weights[:, :n].sum(-1).tolist()):
        axis.text(n + len(words) - 0.3, row, f"λ = {share:.2f}", va="center", fontsize=9)
    axis.spines[:].set_visible(False)
    figures.show(
        figure,
        f"Attention weights of one head. Each word looks at {n} learned keys on the left and at "
        f"the words up to itself. Beside each row stands λ, the share that goes to the prefix.",
    )
