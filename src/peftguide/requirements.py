"""The requirements that the guide is asked to meet."""

from dataclasses import dataclass

from peftguide import memory_need
from peftguide.evidence import KINDS, TaskKind, kind_of
from pefthelpers.errors import UserError
from peftmemory.cards import check_card

# Which tasks a model's role is put to.
ROLE_TASKS = {"encoder": ("classify",), "seq2seq": ("summarise", "learn"), "decoder": tuple(KINDS)}


@dataclass(frozen=True)
class Requirements:
    """What a method is wanted for, and under which limits.

    Attributes:
        task: ``chat`` (not tried yet), ``elicit`` (asked with three examples in the prompt, the
            base does it), ``learn`` (it does not: new facts or a new format), ``classify``
            (labels) or ``summarise``.
        model: a name of ``model_names()``, its name on the hub, a folder or a config.json.
        card_gib: the card's memory as it is sold; None for no GPU.
        tasks: how many tasks one base serves.
        examples: how many examples there are to train on.
        latency: ``merged`` (not a layer more than the base) or ``small`` (a little more will do).
        tooling: ``peft`` alone, ``vllm`` (vLLM or SGLang serve it), or ``any``: this package's or
            AdapterHub's bottlenecks too.
        batch: sequences per training step.
        seq: tokens per sequence.

    Raises:
        UserError: one of them cannot be; the sentence lists what can.
    """

    task: str
    model: str = "llama-3.2-3b"
    card_gib: float | None = 24
    tasks: int = 1
    examples: int = 1000
    latency: str = "small"
    tooling: str = "any"
    batch: int = 1
    seq: int = 1024

    def __post_init__(self) -> None:
        """Check every field."""
        kind_of(self.task)
        allowed = {"latency": ("small", "merged"), "tooling": ("any", "peft", "vllm")}
        for name, values in allowed.items():
            if (given := getattr(self, name)) not in values:
                raise UserError(f"There is no {name} {given!r}: take one of {', '.join(values)}.")
        if self.card_gib is not None:
            check_card(self.card_gib)
        for name in ("tasks", "batch", "seq", "examples"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, not {value!r}.")
        memory_need.check_length(self.model, self.seq)
        if self.task not in (fit := ROLE_TASKS[self.role]):
            raise UserError(
                f"{self.model} is for task {' or '.join(map(repr, fit))} here: take a Llama, Qwen or "
                f"SmolLM model for {self.task!r}."
            )

    @property
    def role(self) -> str:
        """What the model is: ``decoder``, ``seq2seq`` or ``encoder``."""
        return memory_need.role_of(self.model) or "decoder"

    @property
    def kind(self) -> TaskKind:
        """The kind of task, for a model of this role: where its rows are."""
        return kind_of(self.task, self.role)

    @property
    def parameters(self) -> int:
        """The model's parameters."""
        return memory_need.weights(self.model).total

    def peak(self, method: str) -> float | None:
        """Return the peak of a method's step in GiB; None where no formula covers it."""
        return memory_need.peak(self.model, method, self.batch, self.seq)

    def need(self, method: str) -> float:
        """Return the peak of a method's step in GiB, or what it needs before any activation."""
        return self.peak(method) or memory_need.least(self.model, method)

    def fits(self, gib: float) -> bool:
        """Tell whether these GiB fit the card with headroom; without a card RAM is not known."""
        return self.card_gib is None or gib <= memory_need.room(self.card_gib)
