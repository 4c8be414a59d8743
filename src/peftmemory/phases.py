"""The peak of a step: a maximum over moments, whether a formula or a trace gives them."""

from dataclasses import asdict, dataclass
from typing import Any

from peftmemory.settings import Setting

GIB = 1024**3


@dataclass(frozen=True)
class Moments:
    """What a step holds, moment by moment.

    Attributes:
        model: the model's name.
        method: the method in words.
        setting: the step's setting.
        trainable: trained parameters.
        moments: moment to bytes by kind. A step passes through all of them; the peak is the
            largest, not their sum: activations go as gradients come.
    """

    model: str
    method: str
    setting: Setting
    trainable: int
    moments: dict[str, dict[str, int]]

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
        """Return the moments as a table."""
        from peftmemory.table import table

        return table(self)
