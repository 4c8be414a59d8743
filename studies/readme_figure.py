"""Draw the README's picture from the tools and the records, and bring the minutes of its table up to date.

Four panels: the memory calculator, the method chooser, new facts against training steps, old facts against
new ones. Run after a new record: python -m studies.readme_figure
"""

import re
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")

import peftguide
from peftguide.reasons import STANDINGS
from pefthelpers import figures, results
from pefthelpers import retention as studied
from pefthelpers.figures.comparison import LOOKS
from pefthelpers.figures.memory import KINDS
from pefthelpers.methods import LABELS, METHODS
from pefthelpers.paths import atomic_path, data_dir
from peftmemory import GIB, estimate, method
from peftmemory.cards import CARDS

README = Path(__file__).resolve().parents[1] / "README.md"
PICTURE = data_dir() / "results" / "readme.png"
MODEL, CARD_GIB, STEP = "llama-3.1-8b", 24, {"batch": 2, "seq": 2048}
LORA = method("lora", r=16, target_modules="all-linear")
LESS = {"checkpointing": True, "loss": "chunked"}
STEPS = {
    "full fine-tuning, 16 bits": ("full", {}),
    "LoRA, r = 16": (LORA, {}),
    "LoRA, checkpointing,\nchunked loss": (LORA, LESS),
    "QLoRA, checkpointing,\nchunked loss": (LORA, LESS | {"precision": "nf4"}),
}
CARDS_SHOWN = {"t4": "T4", "rtx-4090": "4090", "a6000": "A6000", "a100-80": "A100"}
# Cells of studies.budget_curves: the method whose colour they have, dashes, what the picture calls them and where.
BUDGETS = {
    "full": ("full", "-", "full fine-tuning", (185, 0.93, "right")),
    "lora all r=8": ("lora", "-", "LoRA, all layers, r = 8", (95, 1.04, "left")),
    "lora q,v r=4": ("lora_qv", "--", "LoRA, q and v, r = 4", (700, 1.01, "left")),
    "houlsby": ("houlsby", "-", "Houlsby", (185, 0.835, "right")),
    "ln": ("ln", "-", "LN tuning", (185, 0.36, "right")),
    "prefix": ("prefix", "-", "prefix tuning", (1150, 0.5, "left")),
    "prompt": ("prompt", "--", "prompt tuning", (900, 0.045, "left")),
}
LEGEND = {"fontsize": 8.5, "frameon": False, "labelspacing": 0.25}
KEPT = ("full", "rslora", "lora", "houlsby")


def calculator(axis) -> None:
    """Draw the peak of one training step by kind of bytes, and cards."""
    left = pd.Series(0.0, index=STEPS)
    found = {name: estimate(MODEL, how, **STEP, **more) for name, (how, more) in STEPS.items()}
    for kind, (colour, word) in KINDS.items():
        sizes = pd.Series({name: step.kinds.get(kind, 0) / GIB for name, step in found.items()})
        if sizes.max() > 0.5:
            axis.barh([*STEPS], sizes, left=left, color=colour, label=word, height=0.6)
        left += sizes
    for card, name in CARDS_SHOWN.items():
        axis.axvline(CARDS[card], color="#111111", lw=1, ls="--")
        place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axis.text(CARDS[card], 1.0, name, fontsize=9, **place)
    for row, gib in enumerate(left):
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axis.text(gib + 0.8, row, f"{gib:.0f}", va="center", fontsize=9, bbox=white)
    axis.set(xlim=(0, 88), xlabel="GiB at the peak of a step; dashed: cards")
    axis.invert_yaxis()
    axis.legend(loc="center", bbox_to_anchor=(0.717, 0.27), **LEGEND)


def chooser(axis) -> None:
    """Write the guide's answer as a table: method, memory, score, what became of it."""
    choice = peftguide.choose("learn", model=MODEL, card_gib=CARD_GIB)
    axis.axis("off")
    columns = (0, 0.36, 0.55, 0.72)
    rows = [("", "GiB", "score", "")]
    for key in METHODS:
        arm, standing = choice.arms.get(key), choice.standings.get(key)
        said = STANDINGS[standing.word] if standing else "does not fit"
        said = {"highest mean": "tied"}.get(said, said).replace("not told apart", "tied")
        said = "chosen" if key == choice.method else said
        if arm:
            gib = f"{choice.asked.peak(key):.1f}"
            rows.append((LABELS[key], gib, f"{arm.mean:.2f}", said))
    for number, row in enumerate(rows):
        own = row[3].startswith("chosen")
        style = {"fontweight": "bold" if own else "normal", "transform": axis.transAxes}
        colour = (
            "#00664f" if own else "#777777" if row[3] in ("worse", "does not fit") else "#111111"
        )
        for at, text in zip(columns, row, strict=True):
            place = {"va": "top", "fontsize": 9.5, "color": colour if number else "#56606b"}
            axis.text(at, 0.99 - number / len(rows), text, **place, **style)


def budgets(axis) -> None:
    """Draw LEARN against training steps."""
    curves = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    for cell, (key, dashes, label, (x, y, side)) in BUDGETS.items():
        colour, marker = LOOKS[key]
        mean = curves[curves["cell"] == cell].groupby("steps")["test"].mean()
        look = {"ms": 11, "fillstyle": "none"} if key == "full" else {"ms": 5}  # others lie on it
        axis.plot(mean, dashes, marker=marker, color=colour, **look)
        axis.text(x, y, label, ha=side, va="center", fontsize=8.5, color=colour)
    steps = sorted(curves["steps"].unique())
    axis.set(
        xscale="log", xlim=(80, 2300), xlabel="training steps", ylabel="new facts: exact match"
    )
    axis.minorticks_off()
    axis.set_xticks(steps, [f"{n:g}" for n in steps])


def retention(axis) -> None:
    """Draw old facts kept against new facts learned, without and with replay."""
    _, paths = studied.paths("retention_curves")
    for (key, replay, seed), path in sorted(paths.items()):
        if key not in KEPT or (replay and key != "lora"):
            continue
        colour, marker = LOOKS[key]
        label = f"{LABELS[key]}, replay" if replay else LABELS[key]
        looks = {"marker": "" if replay else marker, "ms": 3.5, "color": colour, "alpha": 0.8}
        looks |= {"lw": 2.4, "zorder": 3} if replay else {}
        dashes = ":" if replay else "--" if key == "rslora" else "-"
        axis.plot(path["target"], path["facts"], dashes, label=None if seed else label, **looks)
    axis.set(xlabel="new facts learned: exact match", ylabel="old facts kept: exact match")
    axis.legend(loc="center", bbox_to_anchor=(0.5, 0.22), **LEGEND)


def draw() -> None:
    """Write ``data/results/readme.png``."""
    figure, axes = figures.axes(columns=2, rows=2, width=11, height=7.6)
    panels = {
        calculator: f"Does it fit?  Llama-3.1-8B, {STEP['batch']} × {STEP['seq']:,} tokens",
        chooser: f"Which method?  New facts, 8B, {CARD_GIB} GB card",
        budgets: "Unable, or only slow?  Kitchen decoder",
        retention: "What is forgotten?  Kitchen decoder",
    }
    for axis, (panel, title) in zip(axes.flat, panels.items(), strict=True):
        panel(axis)
        axis.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=18)
        if panel in (budgets, retention):
            axis.set_ylim(-0.04, 1.09)
    with atomic_path(PICTURE) as path:
        figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})


def minutes(stem: str) -> tuple[str, str]:
    """Return what a notebook takes in the profiles tiny and laptop, a dash where nothing is recorded."""
    folders = {"tiny": "baselines", "laptop": "results"}
    files = [data_dir() / folder / f"{stem}.{name}.json" for name, folder in folders.items()]
    tiny, laptop = (results.read(file)["seconds"] if file.exists() else None for file in files)
    return f"{tiny:.0f}&nbsp;s" if tiny else "–", f"{laptop / 60:.0f}&nbsp;min" if laptop else "–"


def with_minutes(text: str) -> str:
    """Return the README with recorded minutes in the last two columns of its table of notebooks."""
    row = re.compile(r"^(\|.*\(notebooks/(\w+)\.ipynb\).*)\|[^|\n]*\|[^|\n]*\|$", re.MULTILINE)
    return row.sub(lambda found: f"{found[1]}| {' | '.join(minutes(found[2]))} |", text)


if __name__ == "__main__":
    draw()
    with atomic_path(README) as new:
        new.write_text(with_minutes(README.read_text(encoding="utf-8")), encoding="utf-8")
