"""The claims ledger: what a widespread article says, what holds, and where that is shown.

``data/claims.yaml`` has the statements in our own words. Measured numbers are not typed there: a
figure names them, as in ``{02_lora/growth_alpha_2r:.0f}``, and ``resolve`` looks them up.
"""

import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir, notebooks_dir

NUMBERS = range(1, 60)
VERDICTS = ("true", "only if", "false", "outdated")
TOPICS = ("memory", "LoRA", "merge", "prefix", "adapters", "QLoRA", "comparison", "practice")
# How a verdict was reached: a cell that computes or renders it; a cell with traced peaks; a paper.
HOWS = {"cell": ("notebook", "cell"), "traced": ("notebook", "cell"), "paper": ("source",)}
SIGNS = {"true": "✓", "only if": "◐", "false": "✗", "outdated": "↺"}
FIELDS = ("claim", "topic", "says", "verdict", "figure", "evidence")
REFERENCE = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
TEMPLATE = Path(__file__).with_name("claims_page.html")


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Attributes:
        how: a key of ``HOWS``.
        notebook: stem of the notebook, for a cell.
        cell: id of the cell in it.
        source: author, year, and table or section, for a paper.
    """

    how: str
    notebook: str = ""
    cell: str = ""
    source: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of the ledger; ``figure`` is a template, see ``resolve``."""

    claim: int
    topic: str
    says: str
    verdict: str
    figure: str
    evidence: tuple[Evidence, ...]

    @property
    def executed(self) -> bool:
        """Tell whether a cell of a notebook shows it."""
        return any(item.cell for item in self.evidence)


def load(path: Path | None = None) -> tuple[Claim, ...]:
    """Return the ledger, checked.

    Args:
        path: a YAML file; ``data/claims.yaml`` where there is none.

    Raises:
        UserError: the file breaks the rules of the ledger; the sentence says which and where.
    """
    import yaml

    path = path or data_dir() / "claims.yaml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path.name} is no ledger that can be read: {why}") from error
    return validate(entries)


def validate(entries: Any) -> tuple[Claim, ...]:
    """Return claims made of a ledger's entries, in the order of their numbers.

    Raises:
        UserError: an entry is incomplete or outside the vocabulary, a number is there twice or
            not at all, or a figure names a number that is not recorded.
    """
    if not isinstance(entries, list):
        raise UserError("The ledger must be a list of claims: begin each with `- claim: NUMBER`.")
    claims = [_claim(entry) for entry in entries]
    counted = Counter(claim.claim for claim in claims)
    if twice := sorted(number for number, times in counted.items() if times > 1):
        raise UserError(f"Claim {twice[0]} is in the ledger twice: keep one of the two.")
    if missing := sorted(set(NUMBERS) - set(counted)):
        raise UserError(f"Claim {missing[0]} is missing from the ledger: add it.")
    for claim in claims:
        resolve(claim.figure)
    return tuple(sorted(claims, key=lambda claim: claim.claim))


def _claim(entry: Any) -> Claim:
    if not isinstance(entry, dict) or set(entry) != set(FIELDS):
        raise UserError(f"A claim needs the fields {', '.join(FIELDS)}, not {entry!r}.")
    number = entry["claim"]
    if number not in NUMBERS:
        raise UserError(f"Claim {number!r}: number it from {NUMBERS[0]} to {NUMBERS[-1]}.")
    for field, allowed in (("verdict", VERDICTS), ("topic", TOPICS)):
        if entry[field] not in allowed:
            choices = ", ".join(f'"{word}"' for word in allowed)
            raise UserError(f"Claim {number}: {field} {entry[field]!r} must be one of {choices}.")
    if not isinstance(entry["evidence"], list) or not entry["evidence"]:
        raise UserError(f"Claim {number}: give a list of evidence, at least one item.")
    evidence = tuple(_evidence(number, item) for item in entry["evidence"])
    return Claim(**{**entry, "evidence": evidence})


def _evidence(number: int, item: Any) -> Evidence:
    how = item.get("how") if isinstance(item, dict) else None
    if how not in HOWS:
        raise UserError(f"Claim {number}: evidence must say how: {', '.join(HOWS)}.")
    if set(item) != {"how", *HOWS[how]} or not all(item.values()):
        raise UserError(f"Claim {number}: evidence by {how} needs {' and '.join(HOWS[how])}.")
    return Evidence(**item)


def resolve(figure: str) -> str:
    """Return a figure with its references replaced by recorded numbers.

    Args:
        figure: text with references, each in braces with an optional format, as in
            ``{memory_claims/seventy_billion/lora_bf16_gb:.0f} GB``.

    Raises:
        UserError: a reference is not recorded, or cannot be formatted like this.
    """

    def number(match: re.Match) -> str:
        value = results.look_up(match[1])
        try:
            return format(value, match[2] or "").replace("%", " %")
        except (TypeError, ValueError) as error:
            raise UserError(f"The ledger's {match[0]} has a format that fits no number.") from error

    return REFERENCE.sub(number, figure)


def counts(claims: Iterable[Claim] | None = None):
    """Return how many claims have each verdict and each kind of evidence.

    Args:
        claims: of ``load``, which are taken where there are none.

    Returns:
        A pandas Series indexed by ``("verdict", …)`` and ``("evidence", …)``. A claim counts once
        for each kind of evidence it has; ``"any cell"`` counts it once, however many cells it has.
    """
    import pandas as pd

    claims = tuple(load() if claims is None else claims)
    shown = {("verdict", word): sum(c.verdict == word for c in claims) for word in VERDICTS}
    for how in HOWS:
        shown["evidence", how] = sum(any(e.how == how for e in c.evidence) for c in claims)
    shown["evidence", "any cell"] = sum(c.executed for c in claims)
    return pd.Series(shown, name="claims")


@cache
def _sections(notebook: str) -> dict[str, str]:
    """Map a notebook's cells to the heading above each; empty where there are no notebooks."""
    try:
        cells = json.loads((notebooks_dir() / f"{notebook}.ipynb").read_text("utf-8"))["cells"]
    except (UserError, OSError):  # an installed wheel: the links then lead to the notebook's top
        return {}
    heading, sections = "", {}
    for cell in cells:
        if cell["cell_type"] == "markdown":
            found = re.findall(r"^#+ (.+)$", "".join(cell["source"]), re.MULTILINE)
            heading = found[-1] if found else heading
        sections[cell.get("id", "")] = heading.replace("`", "")
    return sections


def _link(item: Evidence) -> str:
    """Return one item of evidence as HTML: the paper, or a link to the section with the cell."""
    if item.how == "paper":
        return f"<li>{_text(item.source)}"
    heading = _sections(item.notebook).get(item.cell, "")
    anchor = f"#{html.escape(heading.replace(' ', '-'))}" if heading else ""
    number = item.notebook.split("_")[0]
    traced = "traced, " if item.how == "traced" else ""
    label = f"{number} · {html.escape(heading)}" if heading else number
    return (
        f'<li>{traced}<a href="{item.notebook}.ipynb{anchor}">{label}</a>, '
        f"cell <code>{item.cell}</code>"
    )


def _text(words: str) -> str:
    """Return words as HTML; what stands in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(words, quote=False))


def _row(claim: Claim) -> str:
    """Return a claim as a row of the table; closing tags that HTML does not need are left out."""
    return (
        f'<tr data-verdict="{claim.verdict}" data-topic="{claim.topic}"><th scope=row>{claim.claim}'
        f"<td>{_text(claim.says)}<td>{SIGNS[claim.verdict]} {claim.verdict}"
        f"<td>{_text(resolve(claim.figure))}<td><ul>{''.join(map(_link, claim.evidence))}</ul>"
    )


def page(claims: Sequence[Claim]) -> str:
    """Return the table as HTML with its script, which asks the network for nothing."""
    return TEMPLATE.read_text(encoding="utf-8").replace("__ROWS__", "\n".join(map(_row, claims)))


def table(claims: Sequence[Claim] | None = None):
    """Return the ledger as a table to filter by verdict, topic and words.

    All rows are in the HTML; where no script runs, they are shown without the filters.

    Args:
        claims: of ``load``, which are taken where there are none.

    Returns:
        An ``IPython.display.HTML`` object.
    """
    from IPython.display import HTML

    return HTML(page(load() if claims is None else claims))
