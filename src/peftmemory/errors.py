"""The one exception that a user of this package should see."""

from typing import Any


class EstimateError(ValueError):
    """Say in one sentence what to do about a question that the memory formulas cannot answer."""


def check_size(name: str, size: Any) -> None:
    """Refuse a size that is no whole number of at least 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise EstimateError(f"{name} must be a whole number of at least 1, not {size!r}.")
