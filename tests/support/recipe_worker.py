"""Run recipes one after the other in one Python that cannot import this collection's packages.

``python recipe_worker.py FOLDER CARD``: every ``FOLDER/*/recipe.py`` is executed in its folder; how each
ended is written to ``FOLDER/ended.json``. CARD is ``cpu``, or a simulated card: ``a100`` or ``t4``.
"""

import contextlib
import gc
import io
import json
import os
import runpy
import sys
import time
import traceback
import warnings
from pathlib import Path

OURS = {
    "pefthelpers",
    "peftguide",
    "peftmemory",
    "peftbottleneck",
    "nbregress",
    "peftroom",
    "studies",
    "support",
}


class Refuse:
    """A finder that knows of no package of ours."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Refuse ours, leave others to others."""
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def loading_counts():
    """Count the models alive at each load of one, and return the list of counts."""
    from transformers import PreTrainedModel

    load, counts = PreTrainedModel.from_pretrained.__func__, []

    def counted(cls, *arguments, **options):
        gc.collect()
        wholes = [each for each in gc.get_objects() if isinstance(each, PreTrainedModel)]
        counts.append(sum(hasattr(each, "generation_config") for each in wholes))
        return load(cls, *arguments, **options)

    PreTrainedModel.from_pretrained = classmethod(counted)
    return counts


def executed(folder, counts):
    """Execute a folder's recipe and return how it ended."""
    os.chdir(folder)
    start = time.process_time()
    counts.clear()
    said, problem = io.StringIO(), ""
    with contextlib.redirect_stdout(said), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            runpy.run_path("recipe.py", run_name="__main__")
        except (Exception, SystemExit):  # noqa: BLE001 - how it ended is what is asked
            problem = traceback.format_exc()
    gc.collect()
    future = (FutureWarning, DeprecationWarning)
    ours = [
        str(w.message)
        for w in warned
        if w.filename == "recipe.py" and issubclass(w.category, future)
    ]
    # What an earlier recipe left behind stands in every count.
    more = [count - counts[0] for count in counts]
    seconds = time.process_time() - start
    return {
        "problem": problem,
        "said": said.getvalue(),
        "more": more,
        "old": ours,
        "cpu_s": seconds,
    }


def card_of(name):
    """Return a simulated card to run on, nothing for the CPU; its modules are here before ours are refused."""
    if name == "cpu":
        return contextlib.nullcontext()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from support import simulated_cuda

    return simulated_cuda.simulated({"a100": simulated_cuda.A100, "t4": simulated_cuda.T4}[name])


if __name__ == "__main__":
    root = Path(sys.argv[1]).resolve()
    card = card_of(sys.argv[2])
    sys.meta_path.insert(0, Refuse)
    import torch

    torch.set_num_threads(1)
    with card:
        counts = loading_counts()
        ended = {folder.name: executed(folder, counts) for folder in sorted(root.glob("*/"))}
    (root / "ended.json").write_text(json.dumps(ended))
