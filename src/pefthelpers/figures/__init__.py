"""Figures of the notebooks: one style, colours that colour-blind readers can tell apart, alt text."""

import base64
import html
import io
import re
from pathlib import Path
from string import Template

DRAWINGS = Path(__file__).with_name("drawings")

# After Okabe and Ito (2008), darker: told apart with every common kind of colour blindness, a line of each but yellow, which
# only fills, has a contrast of 3 to 1 on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#C28500", "#3F97D8", "#007F5C"
YELLOW, BLUE, RED, PINK = "#F0E442", "#005A96", "#B03A08", "#D0609C"
FROZEN, TRAINED = "#c9d3dd", "#E69F00"  # what fills the parts of every drawing
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
    # A plot has few colours: a palette makes the file, and the notebook, a third as large.
    Image.open(drawn).convert("RGB").quantize(128).save(buffer, format="png", optimize=True)
    return _img(buffer.getvalue(), "png", alt)


def show(figure, alt: str) -> None:
    """Show a figure as an image with alt text, and close it; arguments as for ``image``."""
    _display(image(figure, alt), alt)


def drawing(name: str, **numbers: int) -> None:
    """Show one of the schematic drawings, with its numbers filled in.

    The alt text is the drawing's own ``<desc>``. JupyterLab hides ``image/svg+xml`` until a reader
    trusts the notebook, and GitHub cleans it until it breaks; an HTML image shows in both.

    Args:
        name: of a file in ``figures/drawings``, without its ending.
        **numbers: what stands at the file's places, such as ``$d_in``.
    """
    svg = Template((DRAWINGS / f"{name}.svg").read_text(encoding="utf-8")).substitute(numbers)
    alt = html.unescape(re.search(r"<desc.*?>(.*?)</desc>", svg, re.DOTALL)[1])
    _display(_img(svg.encode(), "svg+xml", alt), alt)


def _img(data: bytes, kind: str, alt: str) -> str:
    return (
        f'<img alt="{html.escape(alt, quote=True)}" style="max-width:100%" '
        f'src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
    )


def _display(page: str, alt: str) -> None:
    from IPython.display import display

    display({"text/html": page, "text/plain": alt}, raw=True)
