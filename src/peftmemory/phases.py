"""The peak of a step: a maximum over moments, whether a formula or a trace gives them."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from peftmemory.constants import GIB
from peftmemory.settings import StepSetting

COLUMNS = {
    "frozen_weights": "frozen",
    "trainable_weights": "trained",
    "gradients": "gradients",
    "optimizer_states": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "temporaries": "temp",
}


@dataclass(frozen=True)
class Estimate:
    """What a step holds, moment by moment; by the closed form, the six that can be the worst.

    Attributes:
        model: the model's name.
        method: the method in words.
        setting: the step's setting.
        trainable: trained parameters.
        moments: moment to bytes by kind. A step passes through all of them; the peak is the
            largest, not their sum: activations go as gradients come.
        notes: what else there is to say, a sentence each.
    """

    model: str
    method: str
    setting: StepSetting
    trainable: int
    moments: dict[str, dict[str, int]]
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    traced: ClassVar[bool] = False

    @property
    def peak_moment(self) -> str:
        """The moment with the most bytes."""
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def kinds(self) -> dict[str, int]:
        """Bytes by kind at the worst moment."""
        return self.moments[self.peak_moment]

    @property
    def peak(self) -> int:
        """Bytes at the worst moment: storages asked for, no allocator slack, no CUDA context."""
        return sum(self.kinds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "peak": self.peak, "peak_moment": self.peak_moment}

    def __str__(self) -> str:
        """Return the moments as a table in GiB: a row per moment, the worst starred."""
        setting = self.setting
        extras = " autocast" * setting.autocast + ", prepared" * setting.prepare_kbit
        extras += ", checkpointing" * setting.checkpointing
        extras += f" ({setting.recompute})" * (setting.recompute != "layers")
        title = (
            f"{self.model}, {self.method}, batch {setting.batch} x {setting.seq} tokens,"
            f" {setting.precision}{extras}, {setting.optimizer}: {self.peak / GIB:.2f} GiB"
            f" ({self.peak / 1e9:.2f} GB), {self.trainable:,} trained"
        )
        heads = [*COLUMNS.values(), "sum"]
        widths = [max(len(head) + 2, 8) for head in heads]
        lines = [title, f"{'GiB':21}" + "".join(map("{:>{}}".format, heads, widths))]
        for moment, kinds in self.moments.items():
            worst = "*" if moment == self.peak_moment else " "
            cells = map("{:{}.2f}".format, in_columns(kinds), widths)
            lines.append(f"{worst}{moment:20}" + "".join(cells))
        return "\n".join([*lines, *self.notes])


def in_columns(kinds: dict[str, int]) -> list[float]:
    """Return a moment's GiB by column, and their sum; a trace's inputs count as activations."""
    rest = sum(size for kind, size in kinds.items() if kind not in COLUMNS)
    sizes = {**kinds, "activations": kinds.get("activations", 0) + rest}
    return [sizes.get(kind, 0) / GIB for kind in COLUMNS] + [sum(kinds.values()) / GIB]
