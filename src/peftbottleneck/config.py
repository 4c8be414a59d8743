"""The configuration of a bottleneck adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from peft import PeftConfig, PeftType
from transformers.activations import ACT2FN

from peftbottleneck.errors import AdapterError

NAME = "bottleneck"
# What stands as `peft_type` in a saved adapter_config.json. Without this package, peft looks the
# value up and shows it in a KeyError: so the value is the sentence the reader needs.
SAVED_TYPE = "BOTTLENECK: run `import peftbottleneck` before you load this adapter"
# AdapterHub's choices for its `double_seq_bn` and `seq_bn`.
DEFAULT_NON_LINEARITY = {"houlsby": "swish", "pfeiffer": "relu"}
INITIALISATIONS = ("identity", "bert", "houlsby")


@dataclass
class BottleneckConfig(PeftConfig):
    """Bottleneck adapters: ``h + up(f(down(h)))`` inside every block of a frozen transformer.

    With ``d`` the model's hidden size and ``m = d // reduction_factor`` the bottleneck's width, one
    adapter has ``2 d m + m + d`` parameters. Houlsby places two in a block, Pfeiffer one.

    Attributes:
        placement: ``"houlsby"``: after both sub-layers, before residual and norm (Houlsby et al.,
            2019). ``"pfeiffer"``: one per block, after the residual of the feed-forward sub-layer
            (Pfeiffer et al., 2021).
        reduction_factor: Hidden size over bottleneck width; between 1 and the hidden size.
        non_linearity: An activation's name in transformers; swish for Houlsby and ReLU for
            Pfeiffer where none is given.
        dropout: Probability, on the adapter's output before its residual sum.
        scaling: Factor on the adapter's output before its residual sum (He et al., 2022, eq. 9).
        init_weights: ``"identity"``: the up-projection starts at zero, so the adapted model starts
            as the base model, exactly. ``"bert"``: both projections from N(0, 0.02), AdapterHub's
            default. ``"houlsby"``: both from N(0, 0.01) cut at two deviations, the paper's
            near-identity.
        target_modules: Names or a pattern of the modules to wrap; where none is given, the
            placement's sites of the architecture. A module whose class name contains ``Norm`` is
            adapted on its input, ``norm(x + f(norm(x)))``; any other on its output.
        modules_to_save: Modules to train and save whole, such as a classification head.

    Raises:
        AdapterError: an unknown placement, non-linearity or initialisation, a reduction factor
            below 1, or a dropout that is no probability.
    """

    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    reduction_factor: float = 16
    non_linearity: str | None = None
    dropout: float = 0.0
    scaling: float = 1.0
    init_weights: Literal["identity", "bert", "houlsby"] = "identity"
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        """Check the values and fill in the placement's non-linearity."""
        super().__post_init__()
        self.peft_type = PeftType.BOTTLENECK
        if self.placement not in DEFAULT_NON_LINEARITY:
            raise AdapterError(f"Set placement to 'houlsby' or 'pfeiffer', not {self.placement!r}.")
        if self.init_weights not in INITIALISATIONS:
            choices = "', '".join(INITIALISATIONS)
            raise AdapterError(
                f"Set init_weights to one of '{choices}', not {self.init_weights!r}."
            )
        if not isinstance(self.reduction_factor, (int, float)) or not self.reduction_factor >= 1:
            raise AdapterError(
                f"Set reduction_factor to 1 or more, not {self.reduction_factor!r}: below 1 the "
                "bottleneck would be wider than the layer."
            )
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout <= 1:
            raise AdapterError(
                f"Set dropout to a probability between 0 and 1, not {self.dropout!r}."
            )
        self.non_linearity = self.non_linearity or DEFAULT_NON_LINEARITY[self.placement]
        if self.non_linearity not in ACT2FN:
            raise AdapterError(
                f"Set non_linearity to one of {', '.join(sorted(ACT2FN))}, "
                f"not {self.non_linearity!r}."
            )
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as ``peft`` saves them, with a type that says what to import."""
        return {**super().to_dict(), "peft_type": SAVED_TYPE}

    def width(self, hidden_size: int) -> int:
        """Return the bottleneck's width ``m`` for a model of this hidden size.

        Raises:
            AdapterError: the reduction factor leaves a width below 1.
        """
        if self.reduction_factor > hidden_size:
            raise AdapterError(
                f"Set reduction_factor to {hidden_size} (the model's hidden size) or less: "
                f"{self.reduction_factor} leaves no bottleneck."
            )
        return int(hidden_size // self.reduction_factor)
