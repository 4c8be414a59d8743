"""Claims worked out again: what their tests share."""

import re
from functools import cache

from peftguide import claims


@cache
def ledger() -> dict[int, claims.Claim]:
    """Return the ledger's claims by number."""
    return {claim.claim: claim for claim in claims.load()}


def table_of(names: dict) -> dict:
    """Return a module's functions ``claim_7``, by number: the table of recomputations."""
    return {int(name[6:]): call for name, call in names.items() if re.match(r"claim_\d+$", name)}


def agree(number: int, verdict: str, *texts: str) -> None:
    """Assert that the ledger has this verdict, and that its figure renders these numbers."""
    claim = ledger()[number]
    figure = claims.resolve(claim.figure)
    assert claim.verdict == verdict
    absent = [t for t in texts if not re.search(rf"(?<![\d.,]){re.escape(t)}(?!\d|\.\d)", figure)]
    assert absent == [], figure
