"""The wrapped module: a frozen base layer and, per adapter name, one bottleneck."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.activations import ACT2FN

from peftbottleneck.config import BottleneckConfig
from peftbottleneck.errors import AdapterError

MERGE_REFUSED = (
    "Keep the adapter or call unload() for the base model: a bottleneck adapter cannot be merged, "
    "because a non-linearity sits between its two projections and no weight matrix computes both."
)


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """What the three wrappers share: the adapters by name and the sum they add.

    Several active adapters are stacked: each works on the output of the one before.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_activation", "bottleneck_dropout", "bottleneck_scaling")

    def __init__(self, base_layer: nn.Module) -> None:
        """Wrap ``base_layer`` without an adapter; ``update_layer`` adds the first."""
        super().__init__()
        self.base_layer = base_layer
        self.training = base_layer.training
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_activation = nn.ModuleDict()
        self.bottleneck_dropout = nn.ModuleDict()
        self.bottleneck_scaling: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self.site = ""

    def update_layer(
        self, adapter_name: str, hidden_size: int, config: BottleneckConfig, like: torch.Tensor
    ) -> None:
        """Add an adapter.

        Args:
            adapter_name: Its name, not yet used on this layer and without a dot.
            hidden_size: Features of the values to adapt, d.
            config: Width, non-linearity, initialisation and so on.
            like: A weight of the base model; the adapter takes its device, and its dtype where
                that is a floating one (packed 4-bit weights are not).

        Raises:
            AdapterError: the name is in use, or the reduction factor is larger than the hidden size.
        """
        if adapter_name in self.bottleneck_down:  # peft 0.20 lets this through
            raise AdapterError(
                f"Choose another name or call delete_adapter({adapter_name!r}) first: an adapter "
                "of this name already exists."
            )
        width = config.width(hidden_size)
        down, up = nn.Linear(hidden_size, width), nn.Linear(width, hidden_size)
        _initialise(down, up, config.init_weights)
        activation = ACT2FN[config.non_linearity]
        if not up.weight.is_meta:  # peft loads big checkpoints into empty weights
            dtype = like.dtype if like.dtype.is_floating_point else None
            for part in (down, up, activation):  # PReLU has a weight too
                part.to(like.device, dtype)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        self.bottleneck_activation[adapter_name] = activation
        self.bottleneck_dropout[adapter_name] = (
            nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        )
        self.bottleneck_scaling[adapter_name] = config.scaling
        self.train(self.training)  # a new dropout must not act in a model set to eval
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def active_names(self) -> list[str]:
        """Return the names of the adapters that act on this layer now, in the order they act."""
        if self.disable_adapters:
            return []
        return [name for name in self.active_adapters if name in self.bottleneck_down]

    def delta(self, adapter_name: str, hidden: torch.Tensor) -> torch.Tensor:
        """Return what the adapter adds to ``hidden``: ``scaling * up(f(down(hidden)))``.

        Args:
            adapter_name: Which adapter.
            hidden: Shape (..., d), any floating dtype; the result has both.

        Raises:
            AdapterError: the adapted module puts out another number of features.
        """
        down, up = self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name]
        if hidden.shape[-1] != down.in_features:
            raise AdapterError(_wrong_width(self.site, hidden.shape[-1], down.in_features))
        inner = self.bottleneck_activation[adapter_name](down(hidden.to(down.weight.dtype)))
        added = up(inner)
        if (scaling := self.bottleneck_scaling[adapter_name]) != 1.0:
            added = added * scaling
        return self.bottleneck_dropout[adapter_name](added).to(hidden.dtype)

    def adapt(self, output: Any) -> Any:
        """Return a tensor of shape (..., d), or the first of a tuple, after all active adapters."""
        if isinstance(output, tuple):
            return (self.adapt(output[0]), *output[1:])
        for name in self.active_names():
            output = output + self.delta(name, output)
        return output

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse.

        Raises:
            AdapterError: always, with the reason.
        """
        raise AdapterError(MERGE_REFUSED)

    def unmerge(self) -> None:
        """Do nothing: nothing can be merged."""


class AfterModule(BottleneckLayer):
    """``y + f(y)`` with ``y`` the wrapped module's output: a sub-layer's dropout or last map."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the base layer's output (a tensor or the first of a tuple) after the adapters."""
        return self.adapt(self.base_layer(*args, **kwargs))


class AroundNorm(BottleneckLayer):
    """``norm(x + f(norm(x)))``: Pfeiffer's placement in a block that ends in a norm.

    ``x`` is the residual sum, so this is the adapter on ``norm(x)`` with its residual taken before
    the norm and the block's own norm after it (Pfeiffer et al., 2021, AdapterFusion, appendix A).
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the norm of ``hidden``, shape (..., d), after the adapters."""
        for name in self.active_names():
            hidden = hidden + self.delta(name, self.base_layer(hidden))
        return self.base_layer(hidden)


class AfterParts(AfterModule):
    """``y + f(y)`` with ``y`` the output of a module with parts: a block, an MLP.

    A hook on that module, and a child of it, not a wrapper around it: so the names of its parts,
    which other adapters look for and find their saved weights by, stay as they were. transformers
    records ``hidden_states`` by hooks on the block's class; this one goes before those, or the
    recorded values would miss the adapter.
    """

    CHILD = "adapter_after"

    def __init__(self, module: nn.Module) -> None:
        """Become a child of ``module`` and hook the adapters to its output."""
        super().__init__(nn.Identity())
        self.training = module.training
        module.add_module(self.CHILD, self)
        self._handle = module.register_forward_hook(self._adapt_output, prepend=True)

    def _adapt_output(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return self.adapt(output)

    def release(self, parent: nn.Module) -> None:
        """Take the hook and the child off the module."""
        self._handle.remove()
        delattr(parent, self.CHILD)


def wrap(module: nn.Module) -> BottleneckLayer:
    """Return the layer that adapts a module, a new one that fits it if there is none."""
    if isinstance(module, BottleneckLayer):
        return module
    if known := getattr(module, AfterParts.CHILD, None):
        return known
    if "Norm" in type(module).__name__:
        return AroundNorm(module)
    return AfterParts(module) if next(module.children(), None) is not None else AfterModule(module)


def check_width(site: str, module: nn.Module, hidden_size: int) -> None:
    """Compare what a module puts out, where its parts say so, with the model's hidden size.

    Raises:
        AdapterError: nothing of it has the hidden size. What no weight tells, such as a dropout's
            width, is seen at the first forward.
    """
    widths = [width for part in module.modules() if (width := _output_width(part))]
    if widths and hidden_size not in widths:
        raise AdapterError(_wrong_width(site, widths[-1], hidden_size))


def _output_width(module: nn.Module) -> int | None:
    for name in ("out_features", "nf", "embedding_dim", "out_channels"):
        if isinstance(found := getattr(module, name, None), int):
            return found
    weight = getattr(module, "weight", None) if "Norm" in type(module).__name__ else None
    return None if weight is None else weight.shape[-1]


def _wrong_width(site: str, width: int, hidden_size: int) -> str:
    return (
        f"Name in target_modules only modules that put out the model's hidden size, {hidden_size}, "
        f"or leave it unset for the placement's own sites: {site} puts out {width} features."
    )


def _initialise(down: nn.Linear, up: nn.Linear, how: str) -> None:
    """Draw the weights; the sources stand in ``BottleneckConfig``. Biases start at zero."""
    if how == "identity":  # down keeps torch's uniform initialisation, as A does in LoRA
        nn.init.zeros_(up.weight)
    for linear in (down, up):
        nn.init.zeros_(linear.bias)
        if how == "bert":
            nn.init.normal_(linear.weight, std=0.02)
        elif how == "houlsby":
            nn.init.trunc_normal_(linear.weight, std=0.01, a=-0.02, b=0.02)
