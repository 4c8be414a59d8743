"""The requirements that the guide is asked to meet."""

from dataclasses import dataclass

from peftguide import memory_need
from peftguide.evidence import KINDS
from pefthelpers.errors import UserError
from peftmemory.cards import CARD_OVERHEAD_GIB, check_card


@dataclass(frozen=True)
class Requirements:
    """What a method is wanted for, and under which limits.

    Attributes:
        task: ``elicit`` (the base can do it when asked), ``learn`` (new facts or a new format),
            ``classify`` (labels) or ``summarise``.
        model: a name of ``model_names()``.
        card_gib: the card's memory; None for no limit.
        tasks: how many tasks one base serves.
        latency: ``merged`` (not a layer more than the base) or ``small`` (a little more will do).
        tooling: ``peft`` alone, or ``any``: this package's or AdapterHub's bottlenecks too.
        batch: sequences per training step.
        seq: tokens per sequence.

    Raises:
        UserError: one of them cannot be; the sentence lists what can.
    """

    task: str
    model: str = "llama-3.2-3b"
    card_gib: float | None = 24
    tasks: int = 1
    latency: str = "small"
    tooling: str = "any"
    batch: int = 1
    seq: int = 1024

    def __post_init__(self) -> None:
        """Check every field."""
        allowed = {"task": tuple(KINDS), "model": memory_need.model_names()}
        allowed |= {"latency": ("small", "merged"), "tooling": ("any", "peft")}
        for name, values in allowed.items():
            if (given := getattr(self, name)) not in values:
                raise UserError(f"There is no {name} {given!r}: take one of {', '.join(values)}.")
        if self.card_gib is not None:
            check_card(self.card_gib)
        for name in ("tasks", "batch", "seq"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if (only := memory_need.SPECIAL.get(self.model, self.task)) != self.task:
            other = f"take a Llama, Qwen or SmolLM model for {self.task!r}"
            raise UserError(f"{self.model} is for task {only!r} here: {other}.")

    def peak(self, method: str) -> float | None:
        """Return the peak of a method's step in GiB; None where no formula covers it."""
        return memory_need.peak(self.model, method, self.batch, self.seq)

    def fits(self, gib: float | None) -> bool:
        """Tell whether a peak fits the card beside the CUDA context; without a card all does."""
        return None in (gib, self.card_gib) or gib + CARD_OVERHEAD_GIB <= self.card_gib
