"""Two runs side by side: metric by metric, which way it moved, and whether that is too far."""

from pathlib import Path

from nbregress import baselines
from nbregress.report import number, pages
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
        self.changes: dict[str, list[baselines.Change]] = {}  # by notebook, the worst first
        self.faults = [f"{name}: only in {before}" for name in old if name not in new]
        self.faults += [f"{name}: only in {after}" for name in new if name not in old]
        for name in old:
            if name in new:
                self._add(name, old[name], new[name], folder)

    def _add(self, name: str, old: dict, new: dict, folder: Path | None) -> None:
        for row, where in ((old, self.names[0]), (new, self.names[1])):
            if row["status"] in ("failed", "stopped"):
                self.faults.append(f"{name}: {row['status']} in {where}: {row['reason']}")
        path = baselines.path_of(name, self.about[0]["profile"], folder)
        known = (baselines.read(path) or {"metrics": {}})["metrics"]
        reference = {
            metric: {**known.get(metric, {}), **value} for metric, value in old["metrics"].items()
        }
        changes = baselines.compare(reference, new["metrics"])
        self.changes[name] = sorted(changes, key=lambda change: not change.bad)

    @property
    def good(self) -> bool:
        """Tell whether the second run agrees with the first."""
        bad = any(change.bad for changes in self.changes.values() for change in changes)
        return not (self.faults or bad)

    def text(self) -> str:
        """Return the table for a terminal: what differs, and a count of the rest."""
        pairs = [(name, one) for name, changes in self.changes.items() for one in changes]
        lines = [
            f"{name:24} {one.name:36} {number(one.before):>12} {number(one.after):>12} "
            f"{one.unit:14} {one.direction:9} tol {number(one.tolerance):>9}  {one.verdict}"
            for name, one in sorted(pairs, key=lambda pair: not pair[1].bad)
            if one.verdict != baselines.SAME
        ]
        return "\n".join([*self.faults, *lines, self.summary])

    @property
    def summary(self) -> str:
        """Return the counts in one line."""
        every = [change for changes in self.changes.values() for change in changes]
        same = sum(change.verdict == baselines.SAME for change in every)
        beyond = sum(change.bad for change in every)
        return (
            f"{len(every)} metrics: {same} the same, {beyond} beyond their tolerance, "
            f"{len(every) - same - beyond} otherwise different; "
            f"{len(self.faults)} notebooks that cannot be compared"
        )

    def html(self) -> str:
        """Return the page: what differs by notebook, those beyond their tolerance first."""
        groups = [
            {
                "notebook": name,
                "beyond": sum(change.bad for change in changes),
                "different": [one for one in changes if one.verdict != baselines.SAME],
                "same": [one for one in changes if one.verdict == baselines.SAME],
            }
            for name, changes in self.changes.items()
        ]
        groups.sort(key=lambda group: not group["beyond"])
        return pages().get_template("compare.html.jinja").render(comparison=self, groups=groups)
