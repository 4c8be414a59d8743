"""The tuner: what ``peft`` calls to put bottleneck adapters into a model and to load them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from torch import nn

from peftbottleneck.config import NAME, BottleneckConfig
from peftbottleneck.errors import AdapterError
from peftbottleneck.layer import (
    MERGE_REFUSED,
    AfterParts,
    BottleneckLayer,
    check_width,
    wrap,
)
from peftbottleneck.sites import ARCHITECTURES, architecture

Weights = dict[str, torch.Tensor]


class BottleneckModel(BaseTuner):
    """Bottleneck adapters in a transformers model; made by ``get_peft_model`` and its kin."""

    prefix = f"{NAME}_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar = {
        name: [sites.houlsby] for name, sites in ARCHITECTURES.items()
    }

    def __init__(
        self, model: nn.Module, peft_config: Any, adapter_name: str, **options: Any
    ) -> None:
        """Freeze ``model`` and put the adapter in.

        Raises:
            AdapterError: the model carries an adapter of this name, the architecture is unknown,
                the reduction factor is larger than the hidden size, or a module to adapt puts out
                another number of features.
        """
        if adapter_name in getattr(model, "peft_config", {}):
            raise AdapterError(
                f"Choose another adapter_name or call unload() first: the model already carries "
                f"an adapter named {adapter_name!r}."
            )
        super().__init__(model, peft_config, adapter_name, **options)

    def _prepare_adapter_config(
        self, peft_config: BottleneckConfig, model_config: dict
    ) -> BottleneckConfig:
        if peft_config.target_modules is None:
            sites = architecture(model_config["model_type"])
            peft_config.target_modules = getattr(sites, peft_config.placement)
        # Before the first module is replaced: a refused adapter must leave the model as it was.
        hidden_size = _hidden_size(self.model)
        peft_config.width(hidden_size)
        peft_config = _maybe_include_all_linear_layers(peft_config, self.model)
        for name, module in self.model.named_modules():
            if self._check_target_module_exists(peft_config, name):
                check_width(name, module, hidden_size)
        return peft_config

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = wrap(target)
        known = len(layer.bottleneck_down) > 0
        layer.site = current_key
        # A dropout has no weights; the rest of its sub-layer says which device and dtype to use.
        like = next(target.parameters(), None)
        like = next(parent.parameters()) if like is None else like
        layer.update_layer(adapter_name, _hidden_size(self.model), peft_config, like)
        if known:
            return
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        if not isinstance(layer, AfterParts):  # that one is in its place already
            self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # peft's own version also copies `.weight`, which a RoBERTa head and a dropout do not have
        # (huggingface/peft#3114); the adapters are on their device already.
        if isinstance(child, AfterParts):
            child.release(parent)
        else:
            setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise AdapterError(MERGE_REFUSED)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        if kwargs.get("adapter_names") is not None:  # peft would drop the argument in silence
            raise AdapterError(
                "Call set_adapter() and run one batch per adapter: bottleneck adapters take no "
                "adapter_names for the rows of a batch."
            )
        yield

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: BottleneckConfig, adapter_name: str, state_dict: Weights
    ) -> Weights:
        remapped = super()._remap_adapter_state_dict_for_load(
            model=model, config=config, adapter_name=adapter_name, state_dict=state_dict
        )
        # peft loads what fits and passes over the rest, so an adapter of another placement would
        # stay at its initial values without a word. (peft calls this from 0.21 on; 0.20 only
        # refuses another width, as a size mismatch.)
        own = {k: v for k, v in model.state_dict().items() if f".{adapter_name}." in k}
        mine, theirs = (
            {key: value for key, value in weights.items() if is_adapter(key)}
            for weights in (own, remapped)
        )
        if difference := differing(mine, theirs):
            what = "width" if mine.keys() == theirs.keys() else "placement and architecture"
            raise AdapterError(
                f"Load this checkpoint into an adapter of its own {what}: {difference}; "
                f"{adapter_name!r} was made with reduction_factor={config.reduction_factor} and "
                f"placement={config.placement!r}."
            )
        return remapped


def _hidden_size(model: nn.Module) -> int:
    """Return the features of a block's output."""
    config = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    hidden_size = getattr(config, "hidden_size", None)
    if hidden_size is None:
        raise AdapterError(
            "Use a transformers model: bottleneck adapters read their size from config.hidden_size."
        )
    return hidden_size


def is_adapter(key: str) -> bool:
    """Say whether a key of a model's state is a weight of an adapter."""
    return f".{BottleneckModel.prefix}" in key


def differing(mine: Weights, theirs: Weights) -> str | None:
    """Return how the places for weights differ from weights in a file, None if they do not."""
    if mine.keys() != theirs.keys():
        return f"{min(mine.keys() ^ theirs.keys())} is in only one of the two"
    for key, value in mine.items():
        if value.numel() and value.shape != (other := theirs[key].shape):
            return (
                f"{key} is of another width, {tuple(other)} in the file, not {tuple(value.shape)}"
            )
    return None
