"""Which models are alive while a notebook runs, and on which device each lies."""

import gc
import json
import weakref

from transformers import PreTrainedModel

from pefthelpers.paths import data_dir
from support.simulated_cuda.storages import key_of, on_card


def shape_of(config) -> tuple:
    """Return what tells two architectures apart."""
    get = config.get if isinstance(config, dict) else lambda key: getattr(config, key, None)
    return get("model_type"), get("hidden_size") or get("d_model"), get("vocab_size")


# The default profile's models: they stay on the CPU, wherever a notebook runs.
SMALL = {
    shape_of(json.loads(file.read_text())) for file in data_dir().glob("kitchen/*/config.json")
} | {("bert", 384, 30522)}


class Watch:
    """Every model made or copied while it watches.

    Attributes:
        peak: real models alive at once, at most, at the end of a cell; small ones; the cell's name. A model
            of the default profile is small: its copies are a few megabytes each.
        misplaced: sentences on models that lie where they should not.
    """

    def __init__(self) -> None:
        """Begin to watch."""
        self.models: weakref.WeakSet = weakref.WeakSet()
        self.peak, self.misplaced = (0, 0, ""), []
        made, copied = PreTrainedModel.__init__, PreTrainedModel.__setstate__

        def init(model, *args, **kwargs):
            made(model, *args, **kwargs)
            self.models.add(model)

        def setstate(model, state):
            copied(model, state)
            self.models.add(model)

        PreTrainedModel.__init__, PreTrainedModel.__setstate__ = init, setstate

    def look(self, cell: str) -> None:
        """Count the bases alive after a cell, by their input embeddings, and see where they lie."""
        gc.collect()
        embeddings = set()
        for model in list(self.models):
            weights = [p for p in model.parameters() if key_of(p) is not None]
            if not weights:
                continue
            table = model.get_input_embeddings()
            real = shape_of(model.config) not in SMALL
            embeddings.add((real, key_of(weights[0] if table is None else table.weight)))
            self._place(cell, model, {"cuda" if on_card(p) else "cpu" for p in weights})
        real = sum(is_real for is_real, _ in embeddings)
        self.peak = max(self.peak, (real, len(embeddings) - real, cell), key=lambda peak: peak[:2])

    def _place(self, cell, model, found: set[str]) -> None:
        wanted = "cpu" if shape_of(model.config) in SMALL else "cuda"
        told = f"{type(model).__name__} on {' and '.join(sorted(found))}, not on {wanted}"
        if found != {wanted} and not any(told in each for each in self.misplaced):
            self.misplaced.append(f"{told}, since {cell}")
