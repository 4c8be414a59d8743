"""The exceptions that a user of this package should see."""

from typing import Any

LARGEST = 10**9


class EstimateError(ValueError):
    """Say in one sentence what to do about a question that has no answer."""


class NoFormulaError(EstimateError):
    """No formula covers the question, and a trace can answer it: ``peftmemory.predict.predict`` does."""


def check_size(name: str, size: Any) -> None:
    """Refuse a size that is no whole number of at least 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise EstimateError(f"{name} must be a whole number of at least 1, not {size!r}.")
    if size > LARGEST:
        raise EstimateError(f"{name} must be at most {LARGEST:,}, not {size:,}.")


def no_formula(what: str) -> NoFormulaError:
    """Return the error for something that only a trace knows, with the way out."""
    return NoFormulaError(f"{what}: trace it with peftmemory.tracing.trace_step or --trace.")
