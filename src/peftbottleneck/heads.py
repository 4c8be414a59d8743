"""Heads: transformers' modules and what AdapterHub writes of them side by side.

An AutoAdapterModel has classification heads of numbered layers, under the adapter's name. A plain
model class keeps its own head: AdapterHub writes it under transformers' names, without a ``config``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from peftbottleneck.errors import AdapterError
from peftbottleneck.hubconfig import describe

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
            hub.get("head_type") == "classification"
            and hub.get("layers") == len(self.modules)
            and hub.get("use_pooler", False) == self.use_pooler
            and hub.get("bias", True)
            and (len(self.modules) == 1 or hub.get("activation_function") == self.activation)
        )

    def index(self, module: str) -> str | None:
        """Return a module's index in AdapterHub's head, None if it is no part of this head."""
        for ending, index in zip(self.modules, _INDICES[len(self.modules)], strict=True):
            if module == ending or module.endswith(f".{ending}"):
                return index
        return None

    def hub_key(self, name: str, key: str) -> str | None:
        """Return AdapterHub's name of a weight in the head ``name``, None if it is no part of it."""
        module, _, kind = key.rpartition(".")
        index = self.index(module)
        return f"heads.{name}.{index}.{kind}" if index else None

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


_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}


class FoundHead(NamedTuple):
    """A head read from AdapterHub's files.

    Attributes:
        weights: What to fill in, by AdapterHub's names.
        hub_key: Returns AdapterHub's name of a weight of the base, None if it is no part of it.
        trained: Modules that peft must be told to save.
        task_type: PEFT's, None where PEFT has none for such a head.
    """

    weights: dict[str, torch.Tensor]
    hub_key: Callable[[str], str | None]
    trained: list[str]
    task_type: str | None


def read_head(meta: dict[str, Any], weights: dict[str, torch.Tensor], base: nn.Module) -> FoundHead:
    """Return the head in AdapterHub's files.

    Raises:
        AdapterError: the base model has no such head, or one with another number of labels.
    """
    hub, own_labels = meta["config"], base.config.num_labels
    if hub is None:
        found = _plain_head(meta, weights, base)
    else:
        head = _numbered_head(hub, base)
        key = partial(head.hub_key, meta["name"])
        found = FoundHead(weights, key, list(head.trained), "SEQ_CLS")
    labels = (meta if hub is None else hub).get("num_labels", own_labels)
    if labels != own_labels and found.task_type in ("SEQ_CLS", "TOKEN_CLS"):
        raise AdapterError(
            f"Load the base with num_labels={labels}, as this adapter's head has it, not "
            f"{own_labels}."
        )
    return found


def _numbered_head(hub: dict[str, Any], base: nn.Module) -> Head:
    """Return the head of the base that a ``config`` in head_config.json describes.

    Raises:
        AdapterError: this kind of head has no counterpart in transformers' own models, or none in
            the base.
    """
    model_type = base.config.model_type
    head = next((head for head in HEADS.get(model_type, ()) if head.fits(hub)), None)
    if head is None:
        raise AdapterError(
            f"Pass head=False to read the adapter alone: transformers' {model_type} models have no "
            f"counterpart of its {hub.get('head_type')} head."
        )
    names = (name.replace(".original_module", "") for name, _ in base.named_modules())
    if len({head.index(name) for name in names} - {None}) != len(head.modules):
        raise AdapterError(
            "Load the base with AutoModelForSequenceClassification, or pass head=False: a "
            f"{type(base).__name__} has no place for this adapter's classification head."
        )
    return head


def _plain_head(
    meta: dict[str, Any], weights: dict[str, torch.Tensor], base: nn.Module
) -> FoundHead:
    """Return the head of a plain model class; what it shares with the body must be the base's.

    Raises:
        AdapterError: the base is of another class or has other weights in the shared part.
    """
    wanted = meta.get("model_class")
    if wanted not in {parent.__name__ for parent in type(base).__mro__}:
        raise AdapterError(
            f"Load the base with {wanted}, which this adapter's head is from, or pass head=False: "
            f"the base is a {type(base).__name__}."
        )
    own, shared = _own_parameters(base), _shared_with_body(base)
    for name in weights.keys() & shared:
        if not torch.equal(weights[name].to(own[name].dtype), own[name].detach().cpu()):
            raise AdapterError(
                "Load the very base that this adapter was trained on, or pass head=False: its head "
                f"has other values in {name}, which the base's body shares."
            )
    trained = {_module(name) for name in own.keys() - shared}
    needed = {  # a T5 classifier's file holds its body too, adapters and all
        name: value
        for name, value in weights.items()
        if not name.startswith(_body(base)) and (_module(name) in trained or name not in own)
    }
    task = next((t for end, t in _TASK_TYPES.items() if type(base).__name__.endswith(end)), None)
    return FoundHead(needed, lambda key: key, sorted(trained), task)


def _module(name: str) -> str:
    return name.partition(".")[0]


def _body(base: nn.Module) -> tuple[str, ...]:
    # T5ForConditionalGeneration has no prefix for its body.
    return (f"{base.base_model_prefix}.", "encoder.", "decoder.", "shared.")


def _own_parameters(base: nn.Module) -> dict[str, nn.Parameter]:
    """Return the base model's parameters, tied ones under each of their names."""
    return {
        name.replace(".original_module", ""): parameter
        for name, parameter in base.named_parameters(remove_duplicate=False)
        if ".modules_to_save." not in name
    }


def _shared_with_body(base: nn.Module) -> set[str]:
    """Return the names of the parameters that the model's body holds, or that are tied to it."""
    own, body = _own_parameters(base), _body(base)
    held = {id(parameter) for name, parameter in own.items() if name.startswith(body)}
    return {name for name, parameter in own.items() if id(parameter) in held}


def head_to_write(
    base: nn.Module, adapter_name: str, state: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return head_config.json and the weights of the head whose trained weights are ``state``.

    Raises:
        AdapterError: AdapterHub has no such head.
    """
    modules = {key.rpartition(".")[0] for key in state}
    model_class = type(base).__name__
    heads = HEADS.get(base.config.model_type, ())
    for head in heads if model_class.endswith("ForSequenceClassification") else ():
        if len(modules) == len(head.modules) and all(head.index(name) for name in modules):
            config = head.config(num_labels=base.config.num_labels)
            named = {head.hub_key(adapter_name, key): value for key, value in state.items()}
            return describe(base, adapter_name, config), named
    own, body = _own_parameters(base), _body(base)
    if any(name.startswith(body) for name in state):
        raise AdapterError(
            f"Only an adapter and a head can be converted: AdapterHub's {base.config.model_type} "
            f"models have no head made of {', '.join(sorted(modules))}."
        )
    whole = {name: value.detach() for name, value in own.items() if not name.startswith(body)}
    labels = {"num_labels": base.config.num_labels, "label2id": base.config.label2id}
    return describe(base, None, None, model_class=model_class, **labels), whole | state
