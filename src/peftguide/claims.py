"""The claims ledger: what a widespread article says, what holds, and where that is shown.

``data/claims.yaml`` has the statements in our own words; the tests hold it to its form. Measured
numbers are not typed there: a figure names them, as in ``{02_lora/growth_alpha_2r:.0f}``, and
``resolve`` looks them up.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from peftguide.template import render
from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir, notebooks_dir

SIGNS = {"true": "✓", "only if": "◐", "false": "✗", "outdated": "↺"}
# How a verdict was reached: a cell that computes or renders it; a cell with traced peaks; a paper.
HOWS = ("cell", "traced", "paper")
REFERENCE = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on: a cell of a notebook, or a paper."""

    how: str  # one of ``HOWS``
    notebook: str = ""  # its stem
    cell: str = ""  # its id
    source: str = ""  # author, year, and table or section


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
    """Return the ledger.

    Args:
        path: a YAML file; ``data/claims.yaml`` where there is none.

    Raises:
        UserError: there is no such file, or it is no ledger.
    """
    path = path or data_dir() / "claims.yaml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        for entry in entries:
            entry["evidence"] = tuple(Evidence(**item) for item in entry["evidence"])
        return tuple(Claim(**entry) for entry in entries)
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path.name} is no ledger that can be read: {why}") from error


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
    """Return a pandas Series: how many claims (of ``load``) have each verdict and each kind of evidence.

    A claim counts once for each kind of evidence it has, however many cells; ``"any cell"`` counts it once.
    """
    import pandas as pd

    claims = load() if claims is None else tuple(claims)
    shown = {("verdict", word): sum(c.verdict == word for c in claims) for word in SIGNS}
    for how in HOWS:
        shown["evidence", how] = sum(any(e.how == how for e in c.evidence) for c in claims)
    shown["evidence", "any cell"] = sum(c.executed for c in claims)
    return pd.Series(shown, name="claims")


def table(claims: Sequence[Claim] | None = None):
    """Return the ledger as a table to filter by verdict, topic and words.

    All rows are in the HTML; where no script runs, they are shown without the filters. Nothing is
    asked of the network.

    Args:
        claims: of ``load``, which are taken where there are none.

    Returns:
        An ``IPython.display.HTML`` object.

    Raises:
        UserError: a figure names what is not recorded.
    """
    from IPython.display import HTML

    known = {"signs": SIGNS, "resolve": resolve, "sections": sections}
    return HTML(render("claims.html", claims=load() if claims is None else claims, **known))


@cache
def sections(notebook: str) -> dict[str, str]:
    """Return the heading above each cell of a notebook, by id; empty where there are no notebooks."""
    try:
        cells = json.loads((notebooks_dir() / f"{notebook}.ipynb").read_text("utf-8"))["cells"]
    except (UserError, OSError):  # an installed wheel: the links then lead to the notebook's top
        return {}
    heading, found = "", {}
    for cell in cells:
        if cell["cell_type"] == "markdown":
            here = re.findall(r"^#+ (.+)$", "".join(cell["source"]), re.MULTILINE)
            heading = [heading, *here][-1]
        found[cell.get("id", "")] = heading.replace("`", "")
    return found
