"""Read the studies of retention: what is left of the old skills along each training."""

from pefthelpers import results
from pefthelpers.methods import LABELS


def paths(name: str) -> tuple:
    """Return the base's row of a study, and what was measured along each training.

    Args:
        name: ``retention_curves`` or ``retention_smollm2``.

    Returns:
        The base's values, and ``(method, replay, seed)`` to a DataFrame, at the rate that ran on three seeds.
    """
    import pandas as pd

    study = results.rows(name)
    runs = study[study["method"] != "base"].astype({"replay": bool, "seed": int})
    runs = runs.sort_values("method", key=lambda names: names.map(list(LABELS).index))
    seeds = runs.groupby(["method", "replay", "learning_rate"])["seed"].transform("nunique")
    kept = runs[seeds == 3].sort_values("replay", kind="stable")
    found = {
        (row.method, row.replay, row.seed): pd.DataFrame(row.path) for row in kept.itertuples()
    }
    return study[study["method"] == "base"].iloc[0], found
