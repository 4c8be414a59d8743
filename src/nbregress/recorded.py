"""What the cells of an executed notebook recorded: metrics and texts, each under a name of its own."""

from nbregress.failures import Failure, at, own_cells
from pefthelpers.record import METRIC_MIME, TEXT_MIME

KEYS = {METRIC_MIME: ("value", "unit"), TEXT_MIME: ("text",)}  # beside the name
WORDS = ("unit", "text")  # keys whose values are texts


def read(notebook) -> tuple[dict[str, dict], dict[str, str], Failure | None]:
    """Read what ``pefthelpers.record`` showed under the cells.

    Returns:
        Metrics ``{name: {"value": ..., "unit": ...}}``; texts ``{name: text}``; the first record that cannot
        be read or has a name that was taken, as the failure that it is, None if there is none. Of a name
        recorded twice the first counts: which one is meant, nobody knows.
    """
    found: dict[str, dict[str, dict]] = {METRIC_MIME: {}, TEXT_MIME: {}}
    cell_of: dict[tuple[str, str], int] = {}
    failure = None
    for number, cell in own_cells(notebook):
        for mime, data in shown(cell):
            problem = unreadable(mime, data)
            if not problem and (first := cell_of.get((mime, data["name"]))) is not None:
                problem = f"{data['name']!r} was recorded in cell {first} already: a name stands for one value"
            if problem:
                failure = failure or at(number, cell, problem)
                continue
            cell_of[mime, data["name"]] = number
            found[mime][data["name"]] = {key: data[key] for key in KEYS[mime]}
    texts = {name: text["text"] for name, text in found[TEXT_MIME].items()}
    return found[METRIC_MIME], texts, failure


def shown(cell) -> list[tuple[str, object]]:
    """Return the records among a cell's outputs, each with its MIME type."""
    outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
    return [(mime, data[mime]) for data in outputs for mime in KEYS if mime in data]


def unreadable(mime: str, data: object) -> str:
    """Say why a record cannot be read; empty if it can."""
    wanted = ("name", *KEYS[mime])
    if not isinstance(data, dict) or any(key not in data for key in wanted):
        return f"a record needs {', '.join(wanted)}, and is {str(data)[:80]}"
    words = [key for key in ("name", *WORDS) if not isinstance(data.get(key, ""), str)]
    return f"a record's {words[0]} is no text: {str(data)[:80]}" if words else ""
