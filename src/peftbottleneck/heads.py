"""Heads: transformers' modules and what AdapterHub writes of them.

An AutoAdapterModel has classification heads of numbered layers, under the adapter's name. A plain
model class keeps its own head: AdapterHub writes it under transformers' names, without a ``config``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from peftbottleneck.errors import AdapterError
from peftbottleneck.hubconfig import describe


class Head(NamedTuple):
    """A classification head of numbered layers that transformers has too.

    Attributes:
        modules: Its linear maps in transformers, in order.
        activation: Between two linear maps, as AdapterHub names it.
        use_pooler: Whether AdapterHub's head reads the pooler's output instead of the first token.
    """

    modules: tuple[str, ...]
    activation: str | None = None
    use_pooler: bool = False

    def fits(self, hub: dict[str, Any]) -> bool:
        """Say whether AdapterHub's head configuration describes this head."""
        return (
            hub.get("head_type") == "classification"
            and hub.get("layers") == len(self.modules)
            and hub.get("use_pooler", False) == self.use_pooler
            and hub.get("bias", True)
            and (len(self.modules) == 1 or hub.get("activation_function") == self.activation)
        )

    def hub_names(self, name: str) -> dict[str, str]:
        """Return transformers' names of its weights -> AdapterHub's in a head called ``name``."""
        indices = (1, 4)  # dropout, linear[, activation, dropout, linear]
        return {
            f"{module}.{kind}": f"heads.{name}.{index}.{kind}"
            for module, index in zip(self.modules, indices, strict=False)
            for kind in ("weight", "bias")
        }

    def config(self, *, num_labels: int, label2id: dict[str, int]) -> dict[str, Any]:
        """Return AdapterHub's configuration of this head."""
        return {
            "head_type": "classification",
            "num_labels": num_labels,
            "layers": len(self.modules),
            "activation_function": self.activation,
            "label2id": label2id,
            "use_pooler": self.use_pooler,
            "bias": True,
            "dropout_prob": None,
        }


_ROBERTA = Head(("classifier.dense", "classifier.out_proj"), "tanh")
HEADS: dict[str, tuple[Head, ...]] = {
    "roberta": (_ROBERTA,),
    "xlm-roberta": (_ROBERTA,),
    # BERT's pooler is a dense map and a tanh on the first token: with a classifier behind it, that
    # is AdapterHub's head of two layers, provided the pooler is trained too.
    "bert": (
        Head(("bert.pooler.dense", "classifier"), "tanh"),
        Head(("classifier",), use_pooler=True),
    ),
    "distilbert": (Head(("pre_classifier", "classifier"), "relu"),),
}
_TASK_TYPES = {  # by the end of a class's name
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}


# A head to fill in: weights by transformers' names, modules that peft must be told to save, and
# PEFT's task type, None where PEFT has none for such a head.
Found = tuple[dict[str, torch.Tensor], list[str], str | None]


def read_head(meta: dict[str, Any], weights: dict[str, torch.Tensor], base: nn.Module) -> Found:
    """Return the head in AdapterHub's files.

    Raises:
        AdapterError: the base model has no such head, or one with another number of labels.
    """
    plain, own_labels = meta["config"] is None, base.config.num_labels
    found = _plain_head(meta, weights, base) if plain else _numbered_head(meta, weights, base)
    labels = (meta if plain else meta["config"]).get("num_labels", own_labels)
    if labels != own_labels and found[2] in ("SEQ_CLS", "TOKEN_CLS"):
        raise AdapterError(
            f"Load the base with num_labels={labels}, as this adapter's head has it, not "
            f"{own_labels}."
        )
    return found


def take_label_names(meta: dict[str, Any], base: nn.Module) -> None:
    """Give the base the names of the labels, as AdapterHub does, where the head's file has them."""
    names = (meta["config"] or meta).get("label2id")
    found = list(names.values()) if isinstance(names, dict) else []
    if len(found) == base.config.num_labels and all(n in found for n in range(len(found))):
        base.config.label2id = names
        base.config.id2label = {number: name for name, number in names.items()}


def _numbered_head(
    meta: dict[str, Any], weights: dict[str, torch.Tensor], base: nn.Module
) -> Found:
    hub, model_type = meta["config"], base.config.model_type
    head = next((head for head in HEADS.get(model_type, ()) if head.fits(hub)), None)
    if head is None:
        raise AdapterError(
            f"Pass head=False to read the adapter alone: transformers' {model_type} models have no "
            f"counterpart of its {hub.get('head_type')} head."
        )
    names = head.hub_names(meta["name"])
    if not _classifies(base) or not names.keys() <= _parameters(base)[0].keys():
        raise AdapterError(
            "Load the base with AutoModelForSequenceClassification, or pass head=False: a "
            f"{type(base).__name__} has no place for this adapter's classification head."
        )
    own_names = {hub_name: name for name, hub_name in names.items()}
    renamed = {own_names.get(name, name): value for name, value in weights.items()}
    return renamed, _tops(name.removeprefix("bert.") for name in names), "SEQ_CLS"


def _plain_head(meta: dict[str, Any], weights: dict[str, torch.Tensor], base: nn.Module) -> Found:
    """Return the head of a plain model class; what it shares with the body must be the base's."""
    wanted = meta.get("model_class")
    if wanted not in {parent.__name__ for parent in type(base).__mro__}:
        raise AdapterError(
            f"Load the base with {wanted}, which this adapter's head is from, or pass head=False: "
            f"the base is a {type(base).__name__}."
        )
    own, shared = _parameters(base)
    for name in weights.keys() & shared:
        if not torch.equal(weights[name].to(own[name].dtype), own[name].detach().cpu()):
            raise AdapterError(
                "Load the very base that this adapter was trained on, or pass head=False: its head "
                f"has other values in {name}, which the base's body shares."
            )
    trained = _tops(own.keys() - shared)
    needed = {  # a T5 classifier's file holds its body too, adapters and all
        name: value
        for name, value in weights.items()
        if not name.startswith(_body(base)) and (_tops([name])[0] in trained or name not in own)
    }
    task = next((t for end, t in _TASK_TYPES.items() if type(base).__name__.endswith(end)), None)
    return needed, trained, task


def _classifies(base: nn.Module) -> bool:
    return type(base).__name__.endswith("ForSequenceClassification")


def _tops(names: Any) -> list[str]:
    """Return the outermost modules in names of weights."""
    return sorted({name.partition(".")[0] for name in names})


def _body(base: nn.Module) -> tuple[str, ...]:
    # T5ForConditionalGeneration has no prefix for its body.
    return (f"{base.base_model_prefix}.", "encoder.", "decoder.", "shared.")


def _parameters(base: nn.Module) -> tuple[dict[str, nn.Parameter], set[str]]:
    """Return the base's parameters, tied ones under each name, and which are (tied to) its body's."""
    own = {
        name.replace(".original_module", ""): parameter
        for name, parameter in base.named_parameters(remove_duplicate=False)
        if ".modules_to_save." not in name
    }
    body = {id(parameter) for name, parameter in own.items() if name.startswith(_body(base))}
    return own, {name for name, parameter in own.items() if id(parameter) in body}


def head_to_write(
    base: nn.Module, adapter_name: str, state: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return head_config.json and the weights of the head whose trained weights are ``state``.

    Raises:
        AdapterError: AdapterHub has no such head.
    """
    more = {"num_labels": base.config.num_labels, "label2id": base.config.label2id}
    for head in HEADS.get(base.config.model_type, ()) if _classifies(base) else ():
        names = head.hub_names(adapter_name)
        if names.keys() == state.keys():
            named = {names[key]: value for key, value in state.items()}
            return describe(base, adapter_name, head.config(**more)), named
    if any(name.startswith(_body(base)) for name in state):
        raise AdapterError(
            f"Only an adapter and a head can be converted: AdapterHub's {base.config.model_type} "
            f"models have no head made of {', '.join(sorted(state))}."
        )
    own = _parameters(base)[0].items()
    whole = {name: value.detach() for name, value in own if not name.startswith(_body(base))}
    return describe(base, None, None, model_class=type(base).__name__, **more), whole | state
