"""Plot of one attention head: how much each word looks at the prefix."""

import torch

from pefthelpers import figures


def head(weights: torch.Tensor, words: list[str], *, n: int) -> None:
    """Draw the attention weights of one head: who looks at whom, and at the prefix how much.

    Args:
        weights: (seq, n + seq), each row sums to 1.
        words: the seq real tokens.
        n: virtual tokens in front.
    """
    figure, axis = figures.axes(width=8.5, height=3.6)
    image = axis.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.axvspan(-0.5, n - 0.5, facecolor="none", edgecolor=figures.ORANGE, linewidth=3)
    axis.set_xticks(range(n + len(words)), [f"p{i + 1}" for i in range(n)] + words)
    axis.tick_params(axis="x", labelrotation=45)
    for label in axis.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(words)), words)
    axis.set(xlabel="looked at: the learned keys, then the words", ylabel="word that looks")
    figure.colorbar(image, ax=axis, label="weight", pad=0.13)
    for row, share in enumerate(weights[:, :n].sum(-1).tolist()):
        axis.text(n + len(words) - 0.3, row, f"λ = {share:.2f}", va="center", fontsize=9)
    axis.spines[:].set_visible(False)
    figures.show(
        figure,
        f"Attention weights of one head. Each word looks at {n} learned keys on the left and at "
        f"the words up to itself. Beside each row stands λ, the share that goes to the prefix.",
    )
