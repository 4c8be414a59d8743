"""LoRA drawn: the frozen path and the low-rank path, still and in motion."""

import re

from pefthelpers import figures
from pefthelpers.figures import FROZEN, TRAINED, arrow, box

# What stands on the player's buttons instead of an icon font.
ICONS = {
    "fa-minus": "−",
    "fa-fast-backward": "|◀◀",
    "fa-step-backward": "|◀",
    "fa-play fa-flip-horizontal": "◀",
    "fa-pause": "❚❚",
    "fa-play": "▶",
    "fa-step-forward": "▶|",
    "fa-fast-forward": "▶▶|",
    "fa-plus": "+",
}

# The route of a vector through each path, as (x, y) of the stations, in data coordinates.
UPPER = [(1.6, 1.5), (2.6, 2.3), (5.2, 2.3), (7.2, 1.5), (8.9, 1.5)]
LOWER = [(1.6, 1.5), (2.6, 0.7), (5.2, 0.7), (7.2, 1.5), (8.9, 1.5)]


def draw(axis, *, d_in: int, d_out: int, r: int) -> None:
    """Draw the layer: W on top, A then B below, a sum on the right."""
    axis.set(xlim=(0, 10), ylim=(0, 3.1))
    axis.axis("off")
    box(axis, 0.4, 1.2, 1.0, 0.6, f"x\n{d_in}", colour="white")
    box(axis, 2.2, 1.95, 3.6, 0.8, f"W  frozen  ({d_out} × {d_in})", colour=FROZEN)
    box(axis, 2.2, 0.35, 1.5, 0.7, f"A  ({r} × {d_in})", colour=TRAINED)
    box(axis, 4.3, 0.35, 1.5, 0.7, f"B  ({d_out} × {r})", colour=TRAINED)
    box(axis, 6.8, 1.2, 0.8, 0.6, "+", colour="white")
    box(axis, 8.5, 1.2, 1.0, 0.6, f"y\n{d_out}", colour="white")
    for start, end in [
        ((1.45, 1.6), (2.15, 2.2)),
        ((1.45, 1.4), (2.15, 0.8)),
        ((5.85, 2.2), (6.8, 1.75)),
        ((3.75, 0.7), (4.25, 0.7)),
        ((5.85, 0.8), (6.8, 1.3)),
        ((7.65, 1.5), (8.45, 1.5)),
    ]:
        arrow(axis, start, end)
    axis.text(6.45, 0.72, "× α / r", fontsize=11)


def schematic(*, d_in: int, d_out: int, r: int) -> None:
    """Show the layer as a still picture, with the real shapes.

    Args:
        d_in: inputs of W.
        d_out: outputs of W.
        r: rank of the correction.
    """
    figure, axis = figures.axes(height=2.6)
    draw(axis, d_in=d_in, d_out=d_out, r=r)
    figures.show(
        figure,
        f"A vector x of {d_in} numbers takes two paths: through the frozen matrix W, and through "
        f"the trained matrices A ({r} rows) and B ({r} columns), scaled by alpha over r. "
        f"The two results are added to y, {d_out} numbers.",
    )


def position(route: list[tuple[float, float]], share: float) -> tuple[float, float]:
    """Return the point at ``share`` (0 to 1) of a route's stations."""
    at = share * (len(route) - 1)
    index = min(int(at), len(route) - 2)
    (x0, y0), (x1, y1) = route[index], route[index + 1]
    return x0 + (x1 - x0) * (at - index), y0 + (y1 - y0) * (at - index)


def animation(*, d_in: int, d_out: int, r: int, frames: int = 7):
    """Return an inline HTML animation: a vector flows through both paths and the results meet.

    Args:
        d_in: inputs of W.
        d_out: outputs of W.
        r: rank of the correction.
        frames: pictures in the loop; each adds about 15 kB to the notebook.
    """
    import matplotlib.pyplot as plt
    from IPython.display import HTML
    from matplotlib.animation import FuncAnimation

    figure, axis = figures.axes(width=7.5, height=2.6)
    figure.set_dpi(66)
    draw(axis, d_in=d_in, d_out=d_out, r=r)
    upper = axis.plot([], [], "o", color=figures.BLUE, markersize=13)[0]
    lower = axis.plot([], [], "o", color=figures.RED, markersize=9)[0]

    def move(frame: int):
        for dot, route in ((upper, UPPER), (lower, LOWER)):
            x, y = position(route, frame / (frames - 1))
            dot.set_data([x], [y])
        return upper, lower

    page = FuncAnimation(figure, move, frames=frames, interval=250).to_jshtml(default_mode="once")
    plt.close(figure)
    return HTML(self_contained(page))


def self_contained(page: str) -> str:
    """Return matplotlib's player without its icon font from the network and its random names.

    The buttons get plain characters, so that they show offline; fixed element names keep the
    recorded output the same on each run.
    """
    page = re.sub(r'<link rel="stylesheet"[^>]*>', "", page, flags=re.DOTALL)
    for icon, sign in ICONS.items():
        page = re.sub(rf'<i class="fa {icon}"></i>', sign, page)
    for number, name in enumerate(dict.fromkeys(re.findall(r"[0-9a-f]{32}", page))):
        page = page.replace(name, f"lora{number}")
    return page
