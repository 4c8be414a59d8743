"""Two runs side by side: metric by metric, which way it moved, and whether that is too far."""

from pathlib import Path

from nbregress import baselines
from nbregress.run_store import read_rows


class Comparison:
    """Two runs compared.

    Args:
        before: folder or ``metrics.json`` of the reference.
        after: of the other run.
        folder: baselines whose tolerances count; None is the collection's own.

    Raises:
        UserError: one of them is no run, or is damaged.
    """

    def __init__(self, before: Path, after: Path, folder: Path | None = None) -> None:
        """Read both runs and compare what they share."""
        self.names = (str(before), str(after))
        runs = [read_rows(path) for path in (before, after)]
        self.about = [run["about"] for run in runs]
        old, new = ({row["notebook"]: row for row in run["notebooks"]} for run in runs)
        self.faults: list[str] = []  # why notebooks cannot be compared
        for rows, others, where in ((old, new, before), (new, old, after)):
            for name, row in rows.items():
                if name not in others:
                    self.faults.append(f"{name}: only in {where}")
                elif row["status"] in ("failed", "stopped"):
                    self.faults.append(f"{name}: {row['status']} in {where}: {row['reason']}")
        self.changes: dict[str, list[baselines.Change]] = {}  # by notebook, the worst first
        for name in [name for name in old if name in new]:
            path = baselines.path_of(name, self.about[0]["profile"], folder)
            baselines.keep_tolerances(path, old[name]["metrics"])
            self.changes[name] = baselines.compare(old[name]["metrics"], new[name]["metrics"])

    @property
    def good(self) -> bool:
        """Tell whether the second run agrees with the first."""
        bad = any(change.bad for changes in self.changes.values() for change in changes)
        return not (self.faults or bad)
