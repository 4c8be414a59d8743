"""Small charts of a metric against its baseline, as SVG inside the page."""

import html

from nbregress.baselines import Change, finite
from pefthelpers.record import readable

WIDTH, HEIGHT, PAD = 150, 20, 8


def chart(one: Change) -> str:
    """Return an SVG: band of tolerance, tick of the baseline, dot of the run.

    An empty string if one of the two values is missing.
    """
    if not (finite(one.before) and finite(one.after)):
        return ""
    reach = one.tolerance or 0
    low = min(one.before - reach, one.after)
    high = max(one.before + reach, one.after)
    span = (high - low) or 1.0
    middle = 0.5 if high == low else None

    def x(value: float) -> float:
        share = middle if middle is not None else (value - low) / span
        return round(PAD + share * (WIDTH - 2 * PAD), 1)

    left, right, half = x(one.before - reach), x(one.before + reach), HEIGHT / 2
    label = html.escape(
        f"baseline {readable(one.before)}, this run {readable(one.after)} {one.unit}"
    )
    band = f'<rect class="band" x="{left}" y="4" width="{round(right - left, 1)}" height="{HEIGHT - 8}"/>'
    return (
        f'<svg role="img" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"<title>{label}</title>"
        f'<line class="axis" x1="{PAD}" x2="{WIDTH - PAD}" y1="{half}" y2="{half}"/>'
        f"{band if reach else ''}"
        f'<line class="tick" x1="{x(one.before)}" x2="{x(one.before)}" y1="2" y2="{HEIGHT - 2}"/>'
        f'<circle class="{"off" if one.bad else "dot"}" cx="{x(one.after)}" cy="{half}" r="4"/></svg>'
    )
