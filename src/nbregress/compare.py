"""Two runs side by side: metric by metric, which way it moved, and whether that is too far."""

from dataclasses import dataclass
from pathlib import Path

from nbregress import baselines
from nbregress.report import number, pages
from nbregress.run_store import read_rows
from pefthelpers.record import readable

HIGHER_IS_BETTER = ("accuracy", "exact_match", "compliance")
LOWER_IS_BETTER = ("nats", "s", "ms", "bytes", "MiB", "GiB")


@dataclass
class Moved:
    """One metric of one notebook in two runs.

    Attributes:
        notebook: file stem.
        metric: the comparison.
        direction: an arrow, and better or worse where the metric's name or unit tells.
    """

    notebook: str
    metric: baselines.Comparison
    direction: str


def direction(one: baselines.Comparison) -> str:
    """Return which way a metric moved, and what that means if it is known."""
    if not (baselines.finite(one.before) and baselines.finite(one.after)):
        return ""
    if one.before == one.after:
        return "="
    up = one.after > one.before
    arrow = "↑" if up else "↓"
    if any(word in one.name for word in HIGHER_IS_BETTER):
        return f"{arrow} {'better' if up else 'worse'}"
    if one.unit.split("/")[0] in LOWER_IS_BETTER:
        return f"{arrow} {'worse' if up else 'better'}"
    return arrow


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
        self.moved: list[Moved] = []
        self.faults = [f"{name}: only in {before}" for name in old if name not in new]
        self.faults += [f"{name}: only in {after}" for name in new if name not in old]
        for name in old:
            if name in new:
                self._add(name, old[name], new[name], folder)

    def _add(self, name: str, old: dict, new: dict, folder: Path | None) -> None:
        for row, where in ((old, self.names[0]), (new, self.names[1])):
            if row["status"] in ("failed", "stopped"):
                self.faults.append(f"{name}: {row['status']} in {where}: {row['reason']}")
        recorded = baselines.load(name, self.about[0]["profile"], folder) or {"metrics": {}}
        known = recorded["metrics"]
        reference = {
            metric: {**known.get(metric, {}), **value} for metric, value in old["metrics"].items()
        }
        for one in baselines.compare(reference, new["metrics"]):
            self.moved.append(Moved(name, one, direction(one)))

    @property
    def beyond(self) -> list[Moved]:
        """Return what moved too far."""
        return [moved for moved in self.moved if moved.metric.bad]

    @property
    def good(self) -> bool:
        """Tell whether the second run agrees with the first."""
        return not (self.faults or self.beyond)

    def text(self) -> str:
        """Return the table for a terminal: what differs, and a count of the rest."""
        lines = [*self.faults]
        shown = [m for m in self.moved if m.metric.verdict != baselines.SAME]
        for moved in sorted(shown, key=lambda m: not m.metric.bad):
            one = moved.metric
            lines.append(
                f"{moved.notebook:24} {one.name:36} {number(one.before):>12} {number(one.after):>12} "
                f"{one.unit:14} {moved.direction:9} tol {number(one.tolerance):>9}  {one.verdict}"
            )
        lines.append(self.summary)
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """Return the counts in one line."""
        same = sum(m.metric.verdict == baselines.SAME for m in self.moved)
        return (
            f"{len(self.moved)} metrics: {readable(same)} the same, {len(self.beyond)} beyond their "
            f"tolerance, {len(self.moved) - same - len(self.beyond)} otherwise different; "
            f"{len(self.faults)} notebooks that cannot be compared"
        )

    def groups(self) -> list[dict]:
        """Return the metrics by notebook: what differs, the worst first, apart from what is the same."""
        found = []
        for name in dict.fromkeys(moved.notebook for moved in self.moved):
            own = [moved for moved in self.moved if moved.notebook == name]
            different = [moved for moved in own if moved.metric.verdict != baselines.SAME]
            same = [moved for moved in own if moved.metric.verdict == baselines.SAME]
            beyond = sum(moved.metric.bad for moved in own)
            different.sort(key=lambda moved: not moved.metric.bad)
            found.append({"notebook": name, "beyond": beyond, "different": different, "same": same})
        return sorted(found, key=lambda group: not group["beyond"])

    def html(self) -> str:
        """Return the page."""
        template = pages().get_template("compare.html.jinja")
        return template.render(comparison=self, groups=self.groups())
