"""What an exercise check says: never an exception, always a next step."""

import html
from collections.abc import Callable
from dataclasses import dataclass

MARKS = {"not attempted": "○", "correct": "✓", "not yet": "✗"}
COLOURS = {"not attempted": "#56606b", "correct": "#00664f", "not yet": "#a34700"}


@dataclass(frozen=True)
class Verdict:
    """The outcome of an exercise.

    Attributes:
        status: ``not attempted``, ``correct`` or ``not yet``.
        message: why, and what to look at next.
    """

    status: str
    message: str

    def __repr__(self) -> str:
        """Show the verdict as one line of text."""
        return f"{MARKS[self.status]} {self.status.capitalize()}. {self.message}"

    def _repr_html_(self) -> str:
        colour = COLOURS[self.status]
        return (
            f'<div style="border-left:4px solid {colour};padding:4px 10px">'
            f'<b style="color:{colour}">{MARKS[self.status]} {self.status.capitalize()}.</b> '
            f"{html.escape(self.message)}</div>"
        )


def correct(message: str) -> Verdict:
    """Return the verdict of a right answer."""
    return Verdict("correct", message)


def not_yet(message: str) -> Verdict:
    """Return the verdict of a wrong answer, with its diagnosis."""
    return Verdict("not yet", message)


NOT_ATTEMPTED = Verdict("not attempted", "Replace the ... with your answer and run the cell again.")


def is_missing(answer: object) -> bool:
    """Tell whether an answer is still the stub's ``...`` (or the None of an unfinished function)."""
    return answer is ... or answer is None


def call(function: Callable, *arguments, **options):
    """Call a learner's function; return ``(result, None)`` or ``(None, verdict)`` if it fails."""
    try:
        result = function(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - whatever a learner's code raises becomes a hint
        return None, not_yet(f"Your function raised {type(error).__name__}: {error}")
    return (None, NOT_ATTEMPTED) if is_missing(result) else (result, None)
