"""Bottleneck adapters drawn: the block, and where it stands in a transformer layer."""

from pefthelpers import figures
from pefthelpers.figures import FROZEN, TRAINED, arrow, box


def block(*, d_model: int, m: int) -> None:
    """Show one adapter with its real shapes.

    Args:
        d_model: numbers in a token's vector.
        m: width of the bottleneck.
    """
    figure, axis = figures.axes(width=8.5, height=2.4)
    axis.set(xlim=(0, 13), ylim=(0.2, 2.9))
    axis.axis("off")
    box(axis, 0.2, 0.7, 0.9, 1.2, f"x\n{d_model}", colour="white")
    box(axis, 2.2, 0.7, 1.9, 1.2, f"down\n{m} × {d_model}", colour=TRAINED)
    box(axis, 5.1, 0.95, 0.9, 0.7, f"f\n{m}", colour="white")
    box(axis, 7.0, 0.7, 1.9, 1.2, f"up\n{d_model} × {m}", colour=TRAINED)
    box(axis, 10.0, 1.0, 0.6, 0.6, "+", colour="white")
    box(axis, 11.7, 0.7, 0.9, 1.2, f"y\n{d_model}", colour="white")
    for start, end in ((1.15, 2.15), (4.15, 5.05), (6.05, 6.95), (8.95, 9.95), (10.65, 11.65)):
        arrow(axis, (start, 1.3), (end, 1.3))
    axis.plot([0.65, 0.65, 10.3], [1.95, 2.6, 2.6], color="#333333", lw=1.4)
    arrow(axis, (10.3, 2.6), (10.3, 1.65))
    axis.text(5.5, 2.3, "as it came", ha="center", fontsize=11)
    figures.show(
        figure,
        f"A vector x of {d_model} numbers is squeezed by the trained matrix down to {m} numbers, "
        f"passes a non-linearity f, and is widened by the trained matrix up to {d_model} numbers "
        f"again. x itself goes around all of this and is added: y.",
    )


def placements() -> None:
    """Show one BERT layer with Houlsby's two adapters and, beside it, with Pfeiffer's one."""
    figure, columns = figures.axes(2, width=8.5, height=5.2)
    _houlsby(columns[0])
    _pfeiffer(columns[1])
    figures.show(
        figure,
        "Two transformer layers, drawn from bottom to top. Left, Houlsby: attention, an adapter, "
        "the residual sum and norm, feed-forward, an adapter, sum and norm. Right, Pfeiffer: "
        "attention, sum and norm, feed-forward, the residual sum, a norm, one adapter, and behind "
        "it the sum once more and the same norm.",
    )


def _column(axis, title: str, parts: list[tuple[str, str]]) -> list[float]:
    """Draw boxes from bottom to top; return the height of each box's middle."""
    axis.set(xlim=(0, 5.6), ylim=(0, len(parts) + 0.4))
    axis.axis("off")
    axis.set_title(title, fontsize=12)
    arrow(axis, (2.6, 0.0), (2.6, 0.22))
    for level, (text, colour) in enumerate(parts):
        box(axis, 1.2, level + 0.28, 2.8, 0.5, text, colour=colour)
        arrow(axis, (2.6, level + 0.82), (2.6, level + 1.24))
    return [level + 0.53 for level in range(len(parts))]


def _around(axis, start: float, end: float, *, side: float = 4.75) -> None:
    """Draw a residual path from one height to another, beside the boxes."""
    axis.plot([2.6, side, side], [start, start, end], color="#333333", lw=1.4)
    arrow(axis, (side, end), (4.05, end))


def _houlsby(axis) -> None:
    sub_layers = ("attention", "feed-forward")
    parts = [
        part
        for name in sub_layers
        for part in ((name, FROZEN), ("adapter", TRAINED), ("sum, norm", FROZEN))
    ]
    middle = _column(axis, "Houlsby: two in a layer", parts)
    _around(axis, 0.1, middle[2])
    _around(axis, 2.95, middle[5])


def _pfeiffer(axis) -> None:
    parts = [
        ("attention", FROZEN),
        ("sum, norm", FROZEN),
        ("feed-forward", FROZEN),
        ("sum", FROZEN),
        ("norm", FROZEN),
        ("adapter", TRAINED),
        ("sum, the same norm", FROZEN),
    ]
    middle = _column(axis, "Pfeiffer: one in a layer", parts)
    _around(axis, 0.1, middle[1])
    _around(axis, 1.95, middle[3])
    _around(axis, 3.95, middle[6])
