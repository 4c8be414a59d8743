"""The guide's answer: the method, why, the rows it rests on, and what was ruled out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftguide.evidence import Arm, Standing
from peftguide.memory_need import task_bytes
from peftguide.reasons import STANDINGS, interval, size
from peftguide.requirements import Requirements
from peftguide.template import render
from pefthelpers.methods import LABELS


@dataclass(frozen=True)
class Choice:
    """The guide's answer.

    Attributes:
        asked: the requirements.
        method: a key of ``methods.METHODS``, or None where nothing fits or nothing is recorded.
        label: the method in words.
        why: sentences, each made from a record or a memory estimate.
        alternatives: label of each other method to the reason that ruled it out.
        configuration: a cell to copy; empty without a method.
        arms: the supporting rows by method.
        standings: how each method that was compared stands to the best of them.
    """

    asked: Requirements
    method: str | None
    label: str
    why: list[str]
    alternatives: dict[str, str]
    configuration: str = ""
    arms: Mapping[str, Arm] = field(default_factory=dict, repr=False)
    standings: Mapping[str, Standing] = field(default_factory=dict, repr=False)

    @property
    def rows(self):
        """The supporting rows as a DataFrame, one a recorded method."""
        import pandas as pd

        found = [self._row(method) for method in LABELS if method in self.arms]
        return pd.DataFrame(found).set_index("method") if found else pd.DataFrame()

    def _row(self, method: str) -> dict[str, Any]:
        arm, asked = self.arms[method], self.asked
        return {
            "method": LABELS[method],
            "mean": arm.mean,
            "±": arm.half,
            "seeds": len(arm.test),
            "learning rate": arm.learning_rate,
            "file bytes": arm.file_bytes,
            f"file bytes, {asked.model}": task_bytes(asked.model, method),
            f"GiB, {asked.model}": asked.peak(method),
            "compared": self.compared(method),
            "record": f"{arm.record}.json",
        }

    def compared(self, method: str) -> str:
        """Return how a method stands to the best of those compared, in words."""
        standing = self.standings.get(method)
        return STANDINGS[standing.word] if standing else "ruled out before"

    def __str__(self) -> str:
        """Return the answer as text: the method, why, and what was ruled out."""
        why = [f"  - {sentence}" for sentence in self.why]
        others = [f"  - {label}: {reason}" for label, reason in self.alternatives.items()]
        return "\n".join([f"{self.label}", *why, "ruled out:", *others])

    def _repr_html_(self) -> str:
        return render("choice.html", choice=self, labels=LABELS, interval=interval, size=size)
