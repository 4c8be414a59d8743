"""Draw the README's picture from the records: a style that the base knows, and new facts against training steps.

Run: python -m studies.readme_figure
"""

import matplotlib

matplotlib.use("Agg")

from pefthelpers import figures, results
from pefthelpers.paths import atomic_path, data_dir

# Cells of studies.budget_curves: what the picture calls them, and the method of kitchen_gates, where it has it.
CELLS = {
    "full": ("full fine-tuning", "full"),
    "lora all r=8": ("LoRA, all linear layers, r = 8", "lora"),
    "lora q,v r=4": ("LoRA, q and v, r = 4", None),
    "houlsby": ("Houlsby adapters", None),
    "ln": ("LN tuning", None),
    "prefix": ("prefix tuning (projection)", "prefix"),
    "prompt": ("prompt tuning", "prompt"),
}


def main() -> None:
    """Write data/results/elicit_and_learn.png."""
    gates = results.rows("kitchen_gates").query("base == 'decoder' and task == 'elicit'")
    gates = results.at_chosen_rate(gates[gates["replay"] == 0], ["method"]).groupby("method")
    curves = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    figure, (elicit, learn) = figures.axes(columns=2, width=10, height=3.6)
    for number, (cell, (label, method)) in enumerate(CELLS.items()):
        colour, width = figures.CYCLE[number], 15 - number  # what lies below is still seen
        if method:
            runs = gates.get_group(method)
            mean, spread = runs["test"].mean(), runs["test"].std()
            size = runs["trainable_parameters"].iloc[0]
            elicit.errorbar(size, mean, spread, fmt="o", markersize=width, capsize=4, color=colour)
        by_steps = (
            curves[curves["cell"] == cell].groupby("steps")["test"].agg(["mean", "min", "max"])
        )
        learn.plot(by_steps["mean"], marker="o", color=colour, label=label)
        learn.fill_between(
            by_steps.index, by_steps["min"], by_steps["max"], color=colour, alpha=0.15
        )
    elicit.set(xscale="log", xlabel="trained parameters", title="ELICIT, 100 steps")
    elicit.set(ylabel="exact match, held out")
    learn.set(xscale="log", xlabel="training steps", title="LEARN")
    learn.minorticks_off()
    steps = sorted(curves["steps"].unique())
    learn.set_xticks(steps, [f"{n:g}" for n in steps])
    for axis in (elicit, learn):
        axis.set_ylim(-0.05, 1.08)
    learn.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    with atomic_path(data_dir() / "results" / "elicit_and_learn.png") as path:
        figure.savefig(
            path, dpi=110, facecolor="white", bbox_inches="tight", metadata={"Software": None}
        )


if __name__ == "__main__":
    main()
