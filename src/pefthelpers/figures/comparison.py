"""Plots of the comparison: intervals of the methods, and retention against target."""

from collections.abc import Mapping

from pefthelpers import figures
from pefthelpers.methods import LABELS

# Method: colour and marker of its family; readable without colour too.
LOOKS = {
    "full": (figures.BLACK, "s"),
    **dict.fromkeys(("lora", "lora_qv", "rslora", "dora", "qlora"), (figures.BLUE, "o")),
    **dict.fromkeys(("houlsby", "pfeiffer"), (figures.GREEN, "^")),
    **dict.fromkeys(("ia3", "ln", "head"), (figures.PINK, "D")),
    **dict.fromkeys(("prefix", "prompt"), (figures.RED, "v")),
}
DASHES = {"rslora": "--", "dora": ":"}  # the other methods of a family in one plot


def intervals(axis, table, *, label: str) -> None:
    """Draw means with their intervals, one row a method.

    Args:
        axis: matplotlib's.
        table: a DataFrame indexed by method with the columns ``mean``, ``from`` and ``to``.
        label: of the horizontal axis.
    """
    for row, (method, values) in enumerate(table.iterrows()):
        colour, marker = LOOKS[method]
        axis.plot((values["from"], values["to"]), (row, row), "-", color=colour)
        axis.plot(values["mean"], row, marker=marker, color=colour)
    axis.set(yticks=range(len(table)), xlabel=label)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#e3e6ea", lw=0.8)
    axis.set_axisbelow(True)


def curves(axis, paths: Mapping, *, x: str, y: str) -> None:
    """Draw retention against target: a line a training, from its first measurement to its last.

    Args:
        axis: matplotlib's.
        paths: ``(method, seed)`` to a DataFrame of what was measured along the training.
        x: the column that tells what was learned.
        y: the column that tells what is left.
    """
    for (method, seed), path in paths.items():
        colour, marker = LOOKS[method]
        label = None if seed else LABELS[method]
        style = {"marker": marker, "ms": 4, "color": colour, "alpha": 0.8, "label": label}
        axis.plot(path[x], path[y], DASHES.get(method, "-"), **style)
