"""Plots of the comparison: intervals of the methods, and target against retention."""

from collections.abc import Mapping

from pefthelpers import figures

# Method: colour and marker of its family; readable without colour too.
LOOKS = {
    "full": (figures.BLACK, "s"),
    **dict.fromkeys(("lora", "lora_qv", "rslora", "dora", "qlora"), (figures.BLUE, "o")),
    **dict.fromkeys(("houlsby", "pfeiffer"), (figures.GREEN, "^")),
    **dict.fromkeys(("ia3", "ln", "head"), (figures.PINK, "D")),
    **dict.fromkeys(("prefix", "prompt"), (figures.RED, "v")),
}
SECOND = ("lora_qv", "prompt")  # dashed: the second method of a family in one plot


def intervals(axis, table, *, label: str) -> None:
    """Draw means with their intervals, one row a method.

    Args:
        axis: matplotlib's.
        table: a DataFrame indexed by method with the columns ``mean`` and ``±``.
        label: of the horizontal axis.
    """
    for row, (method, values) in enumerate(table.iterrows()):
        colour, marker = LOOKS[method]
        spread = {"xerr": values["±"], "capsize": 3, "color": colour, "fmt": marker}
        axis.errorbar(values["mean"], row, **spread)
    axis.set(yticks=range(len(table)), xlabel=label)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#e3e6ea", lw=0.8)
    axis.set_axisbelow(True)


def curves(axis, rows, *, labels: Mapping[str, str], x: str, y: str) -> None:
    """Draw target against retention: a method's line goes from its lowest learning rate upwards.

    Args:
        axis: matplotlib's.
        rows: one row a method and learning rate.
        labels: method to the word a reader sees; methods that are not in it are left out.
        x: the column that tells what was forgotten.
        y: the column that tells what was learned.
    """
    for method, name in labels.items():
        colour, marker = LOOKS[method]
        line = rows[rows["method"] == method].sort_values("learning_rate")
        style = "--" if method in SECOND else "-"
        axis.plot(line[x], line[y], style, marker=marker, color=colour, label=name, alpha=0.85)
        axis.plot(line[x].iloc[-1], line[y].iloc[-1], marker=marker, color=colour, markersize=10)
