"""The article's four runs at their own size: pinned models and data, and what of them fits a card.

``article.yaml`` is the table: hub ids, revisions, rows, batches. A notebook asks for a run under a
profile and gets what the libraries' own calls are given; in ``tiny`` the same calls read fixtures of
the same columns and a small model of the same class.
"""

from peftruns.rows import load_rows
from peftruns.sheet import Run, shape_of
from peftruns.sizes import by_card, peak_gib, plan

__all__ = ["Run", "by_card", "load_rows", "peak_gib", "plan", "shape_of"]
