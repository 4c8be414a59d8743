"""Metrics that survive papermill: a notebook records them, the runner reads them back (nbregress.recorded)."""

import math

METRIC_MIME = "application/vnd.pefthelpers.metric+json"
TEXT_MIME = "application/vnd.pefthelpers.text+json"


def readable(value: float) -> str:
    """Write a number with as many digits as a reader needs."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.2e}" if abs(value) < 1e-3 else f"{value:,.4g}"


def record(name: str, value: float, unit: str, *, silent: bool = False) -> None:
    """Show a metric under a notebook cell and keep it for the runner.

    Args:
        name: snake_case, unique in the notebook.
        value: a finite number.
        unit: for instance ``share``, ``nats``, ``s``, ``MiB``, ``parameters``.
        silent: keep it without a line that is seen, where a table of the same cell shows it.

    Raises:
        ValueError: the value is NaN or infinite.
    """
    from IPython.display import display

    value = value if isinstance(value, int) else float(value)
    if not math.isfinite(value):
        raise ValueError(f"the metric {name} is {value}: a recorded metric must be finite")
    data = {METRIC_MIME: {"name": name, "value": value, "unit": unit}}
    # An empty line rather than none: some editors complain of an output that they cannot show.
    line = "" if silent else f"{name.replace('_', ' ')}: {readable(value)} {unit}"
    display(data | {"text/plain": line}, raw=True)


def quote(name: str, text: str) -> None:
    """Show a generated text under a notebook cell and keep it for the recorder.

    Args:
        name: snake_case, unique in the notebook.
        text: what the model said.
    """
    from IPython.display import display

    data = {TEXT_MIME: {"name": name, "text": text}, "text/plain": f"{name}: {text}"}
    display(data, raw=True)
