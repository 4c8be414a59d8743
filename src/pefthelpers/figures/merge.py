"""Merging drawn: two paths become one matrix, and back."""

from pefthelpers import figures
from pefthelpers.figures import FROZEN, TRAINED, arrow, box

MERGED = "#e3c47a"  # between the two: the frozen matrix with the trained correction inside


def schematic(*, d_in: int, d_out: int, r: int) -> None:
    """Show a layer before and after merging, with the real shapes.

    Args:
        d_in: inputs of W.
        d_out: outputs of W.
        r: rank of the correction.
    """
    figure, axis = figures.axes(width=8.5, height=2.6)
    axis.set(xlim=(0, 13), ylim=(0, 3.1))
    axis.axis("off")
    box(axis, 0.1, 1.25, 0.5, 0.6, "x", colour="white")
    box(axis, 1.3, 2.0, 3.4, 0.75, f"W  ({d_out} × {d_in})", colour=FROZEN)
    box(axis, 1.3, 0.35, 1.55, 0.75, f"A\n({r} × {d_in})", colour=TRAINED)
    box(axis, 3.15, 0.35, 1.55, 0.75, f"B\n({d_out} × {r})", colour=TRAINED)
    box(axis, 5.6, 1.25, 0.5, 0.6, "+", colour="white")
    for start, end in [
        ((0.65, 1.65), (1.25, 2.3)),
        ((0.65, 1.4), (1.25, 0.8)),
        ((4.75, 2.3), (5.55, 1.7)),
        ((2.9, 0.7), (3.1, 0.7)),
        ((4.75, 0.8), (5.55, 1.35)),
        ((6.15, 1.55), (6.5, 1.55)),
    ]:
        arrow(axis, start, end)
    axis.text(6.55, 1.55, "y", va="center", fontsize=11)
    axis.text(5.2, 0.72, "× α / r", fontsize=11)
    arrow(axis, (7.0, 1.85), (8.2, 1.85))
    arrow(axis, (8.2, 1.25), (7.0, 1.25))
    axis.text(7.6, 2.0, "merge", ha="center", fontsize=11)
    axis.text(7.6, 0.8, "unmerge", ha="center", fontsize=11)
    box(axis, 8.6, 1.25, 0.5, 0.6, "x", colour="white")
    box(axis, 9.6, 1.15, 2.5, 0.8, "W + (α / r) B A", colour=MERGED)
    arrow(axis, (9.15, 1.55), (9.55, 1.55))
    arrow(axis, (12.15, 1.55), (12.5, 1.55))
    axis.text(12.55, 1.55, "y", va="center", fontsize=11)
    figures.show(
        figure,
        f"Left: x passes through the frozen W and, beside it, through A and B; both results are "
        f"added. Right, after merging: one matrix W + (alpha / r) B A, again {d_out} by {d_in}. "
        f"An arrow leads back: unmerging.",
    )
