"""Figures of the notebooks: one style, colours that colour-blind readers can tell apart, alt text."""

import base64
import html
import io

# Okabe and Ito (2008): distinguishable with every common kind of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PINK = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
FROZEN, TRAINED = "#c9d3dd", ORANGE  # the two colours of every schematic
CYCLE = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK)


def axes(columns: int = 1, rows: int = 1, *, width: float = 7.5, height: float = 3.2):
    """Return ``(figure, axes)`` in the house style: no top and right spine, readable when projected."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    style = {
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=CYCLE),
        "figure.dpi": 100,
        "legend.frameon": False,
    }
    with plt.rc_context(style):
        return plt.subplots(rows, columns, figsize=(width, height), layout="constrained")


def image(figure, alt: str) -> str:
    """Return a figure as an HTML image with alt text, and close it.

    Args:
        figure: a matplotlib figure.
        alt: what a reader who cannot see it must know; one or two sentences.
    """
    import matplotlib.pyplot as plt
    from PIL import Image

    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white", metadata={"Software": None})
    plt.close(figure)
    # A drawing has few colours: a palette makes the file, and the notebook, a third as large.
    Image.open(drawn).convert("RGB").quantize(128).save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img alt="{html.escape(alt, quote=True)}" style="max-width:100%" '
        f'src="data:image/png;base64,{data}">'
    )


def show(figure, alt: str):
    """Show a figure as an image with alt text, and close it; arguments as for ``image``."""
    from IPython.display import HTML, display

    display(HTML(image(figure, alt)))


def box(axis, x: float, y: float, width: float, height: float, text: str, *, colour: str):
    """Draw a labelled box of a schematic; ``(x, y)`` is its lower left corner."""
    from matplotlib.patches import FancyBboxPatch

    patch = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="#333333"
    )
    axis.add_patch(patch)
    axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=11)
    return patch


def arrow(axis, start: tuple[float, float], end: tuple[float, float]):
    """Draw an arrow of a schematic."""
    axis.annotate(
        "", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": "#333333", "lw": 1.4}
    )
