"""Draw the README's picture from the recorded gates: few parameters elicit, weights learn.

Run: python -m studies.readme_figure
"""

import matplotlib

matplotlib.use("Agg")

from pefthelpers import figures, results
from pefthelpers.paths import atomic_path, data_dir

METHODS = {
    "prompt": figures.PINK,
    "prefix": figures.GREEN,
    "lora": figures.ORANGE,
    "full": figures.BLUE,
}
LABELS = {
    "prompt": "prompt tuning",
    "prefix": "prefix tuning (projection)",
    "lora": "LoRA, r = 8",
    "full": "full fine-tuning",
}


def main() -> None:
    """Write data/results/elicit_and_learn.png."""
    rows = results.rows("kitchen_gates").query("base == 'decoder' and replay == False")
    rows = results.at_chosen_rate(rows, ["task", "method"])
    figure, panels = figures.axes(columns=2, width=9, height=3.4)
    for axis, task in zip(panels, ("elicit", "learn"), strict=True):
        for method, colour in METHODS.items():
            runs = rows.query("task == @task and method == @method")
            axis.errorbar(
                runs["trainable_parameters"].iloc[0],
                runs["test"].mean(),
                runs["test"].std(),
                marker="o",
                markersize=9,
                capsize=4,
                color=colour,
                linestyle="none",
                label=LABELS[method],
            )
        axis.set(xscale="log", ylim=(-0.05, 1.08), xlabel="trained parameters", title=task.upper())
    panels[0].set_ylabel("exact match, held out")
    panels[0].legend(loc="lower right", fontsize=9)
    with atomic_path(data_dir() / "results" / "elicit_and_learn.png") as path:
        figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main()
