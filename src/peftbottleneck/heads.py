"""Classification heads: transformers' modules and AdapterHub's numbered layers side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

from peftbottleneck.errors import AdapterError

_INDICES = {1: ("1",), 2: ("1", "4")}  # AdapterHub: dropout, linear[, activation, dropout, linear]


class Head(NamedTuple):
    """A classification head that both libraries can express.

    Attributes:
        modules: Its linear maps in transformers, by the end of their names, in order.
        activation: Between two linear maps, as AdapterHub names it.
        use_pooler: Whether AdapterHub's head reads the pooler's output instead of the first token.
        trained: Modules that peft must be told to save, beyond those it saves by itself.
    """

    modules: tuple[str, ...]
    activation: str | None = None
    use_pooler: bool = False
    trained: tuple[str, ...] = ()

    def fits(self, hub: dict[str, Any]) -> bool:
        """Say whether AdapterHub's head configuration describes this head."""
        return (
            hub["head_type"] == "classification"
            and hub["layers"] == len(self.modules)
            and hub.get("use_pooler", False) == self.use_pooler
            and hub.get("bias", True)
            and (len(self.modules) == 1 or hub["activation_function"] == self.activation)
        )

    def index(self, module: str) -> str | None:
        """Return a module's index in AdapterHub's head, None if it is no part of this head."""
        for ending, index in zip(self.modules, _INDICES[len(self.modules)], strict=True):
            if module == ending or module.endswith(f".{ending}"):
                return index
        return None

    def config(self, *, num_labels: int) -> dict[str, Any]:
        """Return AdapterHub's configuration of this head."""
        return {
            "head_type": "classification",
            "num_labels": num_labels,
            "layers": len(self.modules),
            "activation_function": self.activation,
            "label2id": None,
            "use_pooler": self.use_pooler,
            "bias": True,
            "dropout_prob": None,
        }


_ROBERTA = Head(("classifier.dense", "classifier.out_proj"), "tanh")
# BERT's pooler is a dense map and a tanh on the first token: with a classifier behind it, that is
# AdapterHub's head of two layers, provided the pooler is trained too.
_BERT = (
    Head(("pooler.dense", "classifier"), "tanh", trained=("pooler",)),
    Head(("classifier",), use_pooler=True),
)

# The richer head first: the first one whose modules are all trained is the one to write.
HEADS: dict[str, tuple[Head, ...]] = {
    "roberta": (_ROBERTA,),
    "xlm-roberta": (_ROBERTA,),
    "bert": _BERT,
    "distilbert": (Head(("pre_classifier", "classifier"), "relu", trained=("pre_classifier",)),),
}


def head_to_read(model_type: str, hub: dict[str, Any]) -> Head:
    """Return the head that the ``config`` in AdapterHub's head_config.json describes.

    Raises:
        AdapterError: this kind of head has no counterpart in transformers' own models.
    """
    for head in HEADS.get(model_type, ()):
        if head.fits(hub):
            return head
    raise AdapterError(
        f"Pass head=False to read the adapter alone: transformers' {model_type} models have no "
        f"counterpart of its {hub['head_type']} head."
    )


def head_of_modules(model_type: str, modules: set[str]) -> Head:
    """Return the head that these trained modules of a base model form.

    Raises:
        AdapterError: AdapterHub has no such head.
    """
    for head in HEADS.get(model_type, ()):
        if len(modules) == len(head.modules) and all(head.index(name) for name in modules):
            return head
    raise AdapterError(
        f"Only an adapter and a classification head can be converted: AdapterHub's {model_type} "
        f"models have no head made of {', '.join(sorted(modules))}."
    )
