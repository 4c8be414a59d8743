"""QLoRA drawn: how a block of weights becomes four bits, where the levels lie, what is trained."""

from collections.abc import Sequence
from statistics import NormalDist

from pefthelpers import figures
from pefthelpers.figures import FROZEN, TRAINED, arrow, box

CONSTANT = "#9fc5e8"  # the numbers beside the codes: neither weights nor trained


def schematic(*, block: int, group: int, r: int) -> None:
    """Show the way of a block of weights into 4 bits, and the layer that reads it.

    Args:
        block: weights per constant.
        group: constants per constant of the second level.
        r: the adapter's rank.
    """
    figure, axis = figures.axes(width=9, height=3.6)
    axis.set(xlim=(0, 14), ylim=(0, 4.4))
    axis.axis("off")
    axis.text(3.1, 4.15, "once, when the model is loaded", ha="center", fontsize=11)
    axis.text(10.9, 4.15, "in each step", ha="center", fontsize=11)
    box(axis, 0.1, 2.75, 2.0, 0.95, f"{block} weights\n16 bits each", colour="white")
    box(axis, 3.3, 2.75, 3.0, 0.95, f"{block} codes\n4 bits each", colour=FROZEN)
    box(axis, 3.3, 1.45, 3.0, 0.8, "largest |weight|\n32 bits", colour=CONSTANT)
    box(axis, 3.3, 0.15, 3.0, 0.8, f"8 bits, and 32 bits\nfor {group} of them", colour=CONSTANT)
    box(axis, 8.0, 2.75, 2.9, 0.95, "W, brought back\nto 16 bits", colour=FROZEN)
    box(axis, 8.0, 0.6, 2.9, 0.95, f"A, then B\nrank {r}, trained", colour=TRAINED)
    box(axis, 7.0, 0.75, 0.5, 0.6, "x", colour="white")
    box(axis, 11.9, 1.85, 0.5, 0.6, "+", colour="white")
    box(axis, 13.1, 1.85, 0.5, 0.6, "y", colour="white")
    for start, end in [
        ((2.15, 3.22), (3.25, 3.22)),
        ((2.15, 2.9), (3.25, 1.95)),
        ((4.8, 1.4), (4.8, 1.0)),
        ((6.35, 3.22), (7.95, 3.22)),
        ((6.35, 1.85), (7.95, 2.95)),
        ((7.4, 1.4), (8.7, 2.7)),
        ((7.55, 1.05), (7.95, 1.05)),
        ((10.95, 3.1), (11.85, 2.35)),
        ((10.95, 1.15), (11.85, 1.95)),
        ((12.45, 2.15), (13.05, 2.15)),
    ]:
        arrow(axis, start, end)
    figures.show(
        figure,
        f"Left, once: {block} weights become {block} codes of 4 bits and one constant, their largest "
        f"absolute value; {group} constants share a second-level constant and keep 8 bits each. "
        f"Right, in each step: codes and constants give W back for the product; beside it A and B of "
        f"rank {r} are trained; both results are added.",
    )


def levels(named: dict[str, Sequence[float]], *, block: int) -> None:
    """Show where the sixteen levels of each code lie under the distribution of scaled weights.

    Args:
        named: by name, the levels between -1 and 1.
        block: weights per constant; decides how wide the curve is.
    """
    figure, axis = figures.axes(width=8, height=3.2)
    # The largest of `block` standard normal numbers is about this quantile.
    largest = NormalDist().inv_cdf(1 - 1 / (2 * block))
    grid = [i / 200 for i in range(-200, 201)]
    density = [NormalDist().pdf(x * largest) / NormalDist().pdf(0) for x in grid]
    axis.fill_between(grid, density, color=FROZEN, alpha=0.6, lw=0)
    for row, (name, values) in enumerate(named.items()):
        height = -0.2 - 0.22 * row
        axis.plot(values, [height] * len(values), "|", markersize=14, markeredgewidth=2)
        axis.text(-1.06, height, name, ha="right", va="center")
    axis.set(
        xlabel="weight / largest of its block", yticks=[], ylim=(-0.3 - 0.22 * len(named), 1.1)
    )
    axis.spines["left"].set_visible(False)
    axis.set_xlim(-1.25, 1.05)
    figures.show(
        figure,
        "A bell curve of scaled weights between -1 and 1 and below it, a row each, the levels of "
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
    figure, panels = figures.axes(len(sources), width=9, height=3.0)
    for axis, source in zip(panels, sources, strict=True):
        for kind, marker in (("nf4", "o"), ("fp4", "s"), ("int4", "^")):
            found = rows[(rows["weights_of"] == source) & (rows["kind"] == kind)]
            axis.plot(found["block"], found[column], marker=marker, markersize=5, label=kind)
        axis.set_xscale("log", base=2)
        axis.set(title=source, xlabel="block size")
        axis.set_ylim(*_limits(rows[column]))
    panels[0].set_ylabel(label)
    panels[0].legend()
    figures.show(
        figure,
        f"{label} against block size, for {', '.join(sources)}: three lines each, "
        f"nf4, fp4 and int4; the numbers are in the table.",
    )


def _limits(values) -> tuple[float, float]:
    room = 0.08 * (values.max() - values.min())
    return values.min() - room, values.max() + room
