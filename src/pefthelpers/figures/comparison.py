"""The comparison drawn: where each method acts, intervals, and target against retention."""

from collections.abc import Mapping

from pefthelpers import figures
from pefthelpers.figures import FROZEN, TRAINED, arrow, box

# Colour and marker of a method's family: readable without colour too.
FAMILIES = {
    "full": (figures.BLACK, "s"),
    "weights": (figures.BLUE, "o"),
    "layers": (figures.GREEN, "^"),
    "vectors": (figures.PINK, "D"),
    "input": (figures.RED, "v"),
}
FAMILY = {
    "full": "full",
    **dict.fromkeys(("lora", "lora_qv", "rslora", "dora", "qlora"), "weights"),
    **dict.fromkeys(("houlsby", "pfeiffer"), "layers"),
    **dict.fromkeys(("ia3", "ln", "head"), "vectors"),
    **dict.fromkeys(("prefix", "prompt"), "input"),
}


def places() -> None:
    """Show one transformer layer, and at which place each method adds or trains something."""
    figure, axis = figures.axes(width=9.2, height=3.6)
    axis.set(xlim=(0, 10.1), ylim=(0, 3.9))
    axis.axis("off")
    stations = ("embeddings", "norm", "attention\nq k v o", "norm", "feed-forward\ngate up down")
    added = ("prompt", "LN tuning", "LoRA, QLoRA\nDoRA, rsLoRA", "LN tuning", "LoRA\nand relatives")
    for i, (station, method) in enumerate(zip(stations, added, strict=True)):
        box(axis, 2 * i + 0.1, 1.5, 1.7, 0.9, station, colour=FROZEN)
        box(axis, 2 * i + 0.1, 2.9, 1.7, 0.9, method, colour=TRAINED)
        arrow(axis, (2 * i + 0.95, 2.85), (2 * i + 0.95, 2.45))
        if i:
            arrow(axis, (2 * i - 0.2, 1.95), (2 * i + 0.05, 1.95))
    below = {
        3.85: "prefix: extra keys, values\n(IA)³ scales k, v\nHoulsby behind it",
        7.85: "(IA)³ scales its inside\nHoulsby behind it\nPfeiffer behind the sum",
    }
    for x, text in below.items():
        box(axis, x, 0.05, 2.15, 1.1, text, colour=TRAINED)
        arrow(axis, (x + 1.05, 1.2), (x + 1.05, 1.45))
    figures.show(
        figure,
        "One transformer layer, frozen: embeddings, norm, attention, norm, feed-forward. Prompt "
        "tuning adds to the embeddings, LN tuning trains the norms, LoRA and its relatives correct "
        "the matrices of attention and feed-forward, prefix tuning adds keys and values, (IA)3 "
        "scales keys, values and the inner feed-forward, Houlsby adapters stand behind both "
        "sub-layers, Pfeiffer's behind the feed-forward.",
    )


def intervals(axis, table, *, label: str) -> None:
    """Draw means with their intervals, one row a method.

    Args:
        axis: matplotlib's.
        table: a DataFrame indexed by method with the columns ``mean`` and ``±``.
        label: of the horizontal axis.
    """
    for row, (method, values) in enumerate(table.iterrows()):
        colour, marker = FAMILIES[FAMILY[method]]
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
    styles = {
        "full": "-",
        "lora": "-",
        "lora_qv": "--",
        "houlsby": "-",
        "prefix": "-",
        "prompt": "--",
    }
    for method, name in labels.items():
        colour, marker = FAMILIES[FAMILY[method]]
        line = rows[rows["method"] == method].sort_values("learning_rate")
        axis.plot(
            line[x], line[y], styles[method], marker=marker, color=colour, label=name, alpha=0.85
        )
        last = line.iloc[-1]
        axis.plot(last[x], last[y], marker=marker, color=colour, markersize=10)
