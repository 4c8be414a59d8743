"""Plots of the comparison: intervals of the methods, and retention against target."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np

from pefthelpers import figures
from pefthelpers.methods import LABELS

# Method: colour and marker of its family; readable without colour too.
LOOKS = {
    "full": (figures.BLACK, "s"),
    "lora_qv": (figures.SKY, "o"),
    **dict.fromkeys(("lora", "qlora"), (figures.BLUE, "o")),
    "rslora": (figures.PURPLE, "P"),
    "dora": (figures.BROWN, "X"),
    **dict.fromkeys(("houlsby", "pfeiffer"), (figures.GREEN, "^")),
    **dict.fromkeys(("ia3", "ln"), (figures.PINK, "D")),
    "head": (figures.PINK, "*"),
    **dict.fromkeys(("prefix", "prompt"), (figures.RED, "v")),
}
DASHES = {"rslora": "--", "dora": ":"}  # the other methods of a family in one plot
# Cells of budget_curves: method whose look it has, and its dash.
BUDGETS = {
    "lora all r=8": "lora -",
    "lora q,v r=4": "lora_qv -",
    "lora q,v r=16": "lora_qv --",
    "houlsby": "houlsby -",
    "pfeiffer": "pfeiffer --",
    "ia3": "ia3 -",
    "ln": "ln --",
    "prefix": "prefix -",
    "prompt": "prompt --",
    "full": "full -",
}


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
    axis.set(yticks=range(len(table)), xlabel=label, axisbelow=True)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#e3e6ea", lw=0.8)


def apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """Move rising heights as little as leaves each at least ``gap`` above the one before."""
    from scipy.optimize import isotonic_regression

    gaps = gap * np.arange(len(heights))
    return isotonic_regression(heights - gaps).x + gaps


def names(axis, points: Mapping) -> None:
    """Write each name beside its ``(x, y)``, moved until it covers no other and no point.

    Names of points that stand above each other keep the order of their heights.
    """
    axis.figure.canvas.draw()
    box_of, inside = mpl.transforms.Bbox.from_bounds, axis.bbox
    taken = [box_of(*(axis.transData.transform(p) - 5), 10, 10) for p in points.values()]
    ordered, wanted, below = sorted(points.items(), key=lambda item: item[1][1]), {}, {}
    for x in {point[0] for point in points.values()}:
        column = [(n, axis.transData.transform(p)[1]) for n, p in ordered if p[0] == x]
        heights = np.array([height for _, height in column]) * 72 / axis.figure.dpi
        wanted |= dict(zip((n for n, _ in column), apart(heights, 11) - heights, strict=True))
    for name, point in ordered:
        column = round(axis.transData.transform(point)[0] / 60)  # pixels, about a short name
        floor = max(inside.y0, below.get(column, inside.y0))
        for away in sorted(range(-160, 161, 2), key=lambda away: abs(away - wanted[name])):
            line = {"arrowstyle": "-", "color": "#9aa5b1", "lw": 0.6} if abs(away) > 8 else None
            where = {"xytext": (7, away - 3), "textcoords": "offset points", "fontsize": 8}
            word = axis.annotate(name, point, **where, arrowprops=line, in_layout=False)
            word.update_positions(axis.figure.canvas.get_renderer())
            box = mpl.text.Text.get_window_extent(word)
            if floor < box.y0 and box.y1 < inside.y1 and not any(map(box.overlaps, taken)):
                break
            word.remove()
        taken.append(box)
        below[column] = box.y0


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
        style = {"marker": marker, "ms": 4, "color": colour, "alpha": 0.8}
        style["label"] = None if seed else LABELS[method]
        axis.plot(path[x], path[y], DASHES.get(method, "-"), **style)


def scores(tables: Mapping, units: Mapping) -> None:
    """Show a panel for each setting: means, intervals, and "score at rate" beside each.

    Args:
        tables: name of a setting to what ``intervals`` takes, with a column ``rate``.
        units: name of a setting to what its axis shows.
    """
    figure, panels = figures.axes(2, 2, width=9.5, height=7.2)
    for panel, (name, table) in zip(panels.flat, tables.items(), strict=True):
        intervals(panel, table, label=f"{name}: {units[name]}")
        panel.set_yticklabels([LABELS[method] for method in table.index])
        for row, found in enumerate(table.itertuples()):
            where = {"va": "center", "fontsize": 9, "transform": panel.get_yaxis_transform()}
            panel.text(1.02, row, f"{found.mean:.2f} at {found.rate:g}", **where)
    means = {
        n: ", ".join(f"{LABELS[m]} {x:.2f}" for m, x in t["mean"].items())
        for n, t in tables.items()
    }
    figures.show(figure, "; ".join(f"{name}: {said}" for name, said in means.items()))


def steps(curve, *, xlabel: str, ylabel: str, runs=None) -> None:
    """Show score against steps, a line for each of ``BUDGETS``, named at its end with its last score.

    Args:
        curve: a DataFrame of scores indexed by cell, with the steps as columns.
        xlabel: of the steps.
        ylabel: of the scores.
        runs: the DataFrame of runs behind the scores; thin bars show their lowest and highest ``test``.
    """
    figure, axis = figures.axes(1, width=9, height=5.4)
    axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel, xlim=(90, 6000), ylim=(-0.06, 1.12))
    ends, lines = {}, {cell: curve.loc[cell].dropna() for cell in BUDGETS}
    for cell, line in lines.items():
        method, dash = BUDGETS[cell].split()
        colour, marker = LOOKS[method]
        axis.plot(line, dash, marker=marker, color=colour, mfc="none" if cell == "full" else None)
        if runs is not None:
            tests = runs[runs["cell"] == cell].groupby("steps")["test"]
            axis.vlines(line.index, tests.min(), tests.max(), color=colour, lw=0.9, alpha=0.6)
        name = f"LoRA {cell[5:]}" if cell.startswith("lora") else LABELS[method]
        ends[f"{name}: {line.iloc[-1]:.2f}"] = line.index[-1], line.iloc[-1]
    axis.minorticks_off()
    axis.set_xticks(curve.columns, curve.columns)
    names(axis, ends)
    said = {c: ", ".join(f"{y:.2f} at {x}" for x, y in line.items()) for c, line in lines.items()}
    figures.show(figure, "; ".join(f"{cell}: {points}" for cell, points in said.items()))


def tradeoffs(rows) -> None:
    """Show a row of panels for each table: a score against each of its costs, every point named.

    Args:
        rows: ``(table, score, (linear cost, logarithmic cost))``; the score and costs are columns.
    """
    figure, panels = figures.axes(2, len(rows), width=10, height=4.2 * len(rows))
    places = [(table, y, x) for table, y, costs in rows for x in costs]
    named = [{LABELS.get(n, n): (r[x], r[y]) for n, r in t.iterrows()} for t, y, x in places]
    for number, (panel, (table, y, x)) in enumerate(zip(panels.flat, places, strict=True)):
        for name, row in table.iterrows():
            colour, marker = LOOKS[row.get("method", name)]
            panel.plot(row[x], row[y], marker, color=colour)
        scale, room = ("log", 6) if number % 2 else ("linear", 1.25)  # room for the names
        limits = table[x].min() * 0.8, table[x].max() * room
        panel.set(xscale=scale, xlim=limits, xlabel=x, ylabel=y, ymargin=0.12)
    for panel, points in zip(panels.flat, named, strict=True):
        names(panel, points)
    said = [", ".join(f"{n} {y:.2f} at {x:.2f}" for n, (x, y) in each.items()) for each in named]
    spoken = zip(places, said, strict=True)
    figures.show(figure, "; ".join(f"{y} against {x}: {text}" for (_, y, x), text in spoken))


def retention(paths: Mapping, *, y: str, xlabel: str, ylabel: str, base: float, alt: str) -> None:
    """Show ``curves`` without replay beside those with it.

    Args:
        paths: ``(method, replay, seed)`` to what was measured along the training.
        y: the column that tells what is left.
        xlabel: what is learned.
        ylabel: what is left.
        base: its value before the training, drawn as a dotted line.
        alt: what a reader who cannot see it must know.
    """
    figure, panels = figures.axes(2, width=9.5, height=4)
    for panel, replay in zip(panels, (False, True), strict=True):
        own = {(m, seed): path for (m, mixed, seed), path in paths.items() if mixed == replay}
        curves(panel, own, x="target", y=y)
        panel.axhline(base, ls=":", color="#56606b")
        panel.set(xlabel=f"{xlabel}, {'with' if replay else 'without'} replay")
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05))
    panels[0].set_ylabel(ylabel)
    panels[int(base > 0.5)].legend(fontsize=9, loc="right" if base > 0.5 else "upper left")
    figures.show(figure, alt)
