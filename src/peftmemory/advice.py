"""Does it fit a card, what would make it fit, and which common settings do."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from itertools import chain, product
from typing import Any

from peftmemory import cards
from peftmemory.cards import check_card, in_words, verdict
from peftmemory.configs import LLAMA_LIKE, ModelConfig, load_config, model_names
from peftmemory.constants import GIB
from peftmemory.counts import base_parameters
from peftmemory.estimate import closed_form
from peftmemory.methods import EVERYWHERE, Full, Lora, Method, Prefix, method, read_method
from peftmemory.settings import StepSetting, read_setting

CARDS_GIB = (16, 24, 40, 48, 80)
# What people call a precision, as fields of ``StepSetting``.
PRECISIONS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "mixed": {"precision": "fp32", "autocast": True},
    "fp32": {"precision": "fp32"},
    "nf4": {"precision": "nf4"},
}
QUANTISED = {**PRECISIONS["nf4"], "autocast": False}
Step = dict[str, Any]


@dataclass(frozen=True)
class Advice:
    """Whether a step fits a card, and what would make it fit.

    Attributes:
        card_gib: the card's memory as it reports it.
        peak_gib: what the step asks for at its worst moment.
        word: fits, uncertain or does not fit (``peftmemory.cards.verdict``).
        changes: the fewest changes found that make it fit, or all there are if it may fit with them.
        changed_gib: the peak with the changes, or the lowest one found.
        changed_word: the verdict with the changes.
        smallest_card_gib: the smallest of ``CARDS_GIB`` that has room for it as it is, or None.
        card: the card's name, if it was named.
    """

    card_gib: float
    peak_gib: float
    word: str
    changes: tuple[str, ...]
    changed_gib: float
    changed_word: str
    smallest_card_gib: int | None
    card: str = ""

    @property
    def fits(self) -> bool:
        """Whether it fits as it is; a verdict of uncertain is not enough."""
        return self.word == "fits"

    @property
    def verdict(self) -> str:
        """Say whether it fits as it is."""
        other = "" if self.fits else self.smallest_card_gib
        holds = f" (a card of {other} GiB holds it)" if other else ""
        return in_words(self.word, self.card_gib, self.peak_gib, self.card, holds)

    @property
    def remedy(self) -> str:
        """Say what would make it fit; nothing if it fits."""
        if self.fits:
            return ""
        if not self.changes:
            least = f"the least that was found is {self.changed_gib:.1f} GiB"
            return f"No change listed here makes it fit: {least}."
        with_these = ", ".join(self.changes[:-1]) + " and " * (len(self.changes) > 1)
        would = "would" if self.changed_word == "fits" else "may"
        return f"It {would} fit with {with_these}{self.changes[-1]}: {self.changed_gib:.1f} GiB."

    def __str__(self) -> str:
        """Return the advice as a sentence or two."""
        return f"{self.verdict} {self.remedy}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "fits": self.fits, "sentence": str(self)}


def changes(described: Method, setting: StepSetting) -> list[list[Any]]:
    """Return what could be changed, from what costs nothing to what costs accuracy or time.

    Each is a name, another method or None, and fields of the step.
    """
    full, optimizer = isinstance(described, Full), setting.optimizer
    adapted = isinstance(described, Lora) and not described.use_dora
    recomputes = setting.checkpointing or isinstance(described, Prefix)
    bf16, one = {"precision": "bf16", "autocast": False}, {"batch": 1, "accumulation": True}
    possible = (
        (setting.attention == "eager", "fused attention (sdpa)", None, {"attention": "sdpa"}),
        (optimizer == "adamw_torch", "fused AdamW", None, {"optimizer": "adamw_torch_fused"}),
        (setting.loss == "plain", "the chunked loss", None, {"loss": "chunked"}),
        (not recomputes, "gradient checkpointing", None, {"checkpointing": True}),
        (setting.batch > 1, "a batch of 1 and accumulation", None, one),
        (optimizer.startswith("adamw_torch"), "8-bit AdamW", None, {"optimizer": "adamw_8bit"}),
        (setting.precision == "fp32", "bf16 weights", None, bf16),
        (full, "LoRA instead of full fine-tuning", EVERYWHERE, {}),
        (full, "QLoRA instead of full fine-tuning", EVERYWHERE, QUANTISED),
        (adapted and setting.precision != "nf4", "a 4-bit base (QLoRA)", None, QUANTISED),
    )
    return [change for applies, *change in possible if applies]


def advise(model: Any, what: Any = "full", *, card_gib: float | str, **step: Any) -> Advice:
    """Say whether a step fits a card and, if not, the fewest changes that make it fit.

    Args:
        model: what ``load_config`` takes.
        what: the method: a PEFT configuration, a light description, or a name.
        card_gib: the card's memory as it reports it, or a name of ``peftmemory.cards.CARDS``.
        step: batch, seq and the other fields of ``StepSetting``.

    Raises:
        EstimateError: a card without memory, or what ``estimate`` refuses.
    """
    card, gib = named(card_gib)
    config, described = load_config(model), read_method(what)

    def ask(chosen: tuple, gib: float = gib) -> tuple[int, str]:
        using, new = described, dict(step)
        for _, other, fields in chosen:
            using, new = other or using, {**new, **fields}
        setting = read_setting(**new)
        peak = peak_of(config, using, setting)
        return peak, verdict(peak, gib)

    before, word = ask(())
    smallest = next((size for size in CARDS_GIB if ask((), size)[1] == "fits"), None)
    possible = () if word == "fits" else tuple(changes(described, read_setting(**step)))
    chosen = fewest(possible, lambda chosen: ask(chosen)[1] == "fits")
    after, then = ask(chosen)
    names = tuple(name for name, *_ in chosen) if then != "does not fit" else ()
    return Advice(gib, before / GIB, word, names, after / GIB, then, smallest, card)


def named(card: Any) -> tuple[str, float]:
    """Return a card's name, if it was given by name, and its memory.

    Raises:
        EstimateError: an unknown name, or no memory.
    """
    name, gib = (card, cards.card_gib(card)) if isinstance(card, str) else ("", card)
    check_card(gib)
    return name, gib


@lru_cache(maxsize=10_000)
def peak_of(config: ModelConfig, method: Method, setting: StepSetting) -> int:
    """Return the closed form's peak in bytes: advice asks for the same step again and again."""
    return closed_form(config, method, setting).peak


def fewest(possible: tuple, fitting: Callable[[tuple], bool]) -> tuple:
    """Return one change that fits, or several none of which can be left out, or all of them."""
    first = (possible[:count] for count in range(2, len(possible) + 1))
    chosen = next(filter(fitting, chain(((one,) for one in possible), first)), None)
    if chosen is None or len(chosen) == 1:
        return chosen or possible
    for one in reversed(chosen):
        fewer = tuple(other for other in chosen if other is not one)
        chosen = fewer if fitting(fewer) else chosen
    return chosen


# What people try, from the most to the least memory, roughly: label, method, fields of the step.
COMMON: dict[str, tuple[Any, Step]] = {
    "full, fp32 + autocast": ("full", PRECISIONS["mixed"]),
    "full, bf16": ("full", {}),
    "full, bf16, 8-bit Adam": ("full", {"optimizer": "adamw_8bit"}),
    "LoRA r=16 all-linear, bf16": (EVERYWHERE, {}),
    "LoRA r=8 q,v, bf16": (method("lora", r=8, target_modules=("q_proj", "v_proj")), {}),
    "QLoRA r=16 all-linear, NF4": (EVERYWHERE, PRECISIONS["nf4"]),
}


def fits(
    model: Any,
    *,
    card_gib: float | str = 24.0,
    batch: int = 1,
    seq: int = 1024,
    optimizer: str = "adamw_torch_fused",
) -> list[dict[str, Any]]:
    """Return which common settings fit a card, full fine-tuning first.

    Args:
        model: what ``load_config`` takes.
        card_gib: the card's memory as it reports it.
        batch: sequences per step.
        seq: tokens per sequence.
        optimizer: the optimiser where a candidate names none.

    Returns:
        Rows with ``method``, ``checkpointing``, ``loss``, ``peak_gib``, ``verdict`` and ``fits``.

    Raises:
        EstimateError: a card without memory, or what ``estimate`` refuses.
    """
    _, card_gib = named(card_gib)
    config, rows = load_config(model), []
    for label, checkpointing, loss in product(COMMON, (False, True), ("plain", "chunked")):
        what, options = COMMON[label]
        switches = {"checkpointing": checkpointing, "loss": loss}
        step = {"batch": batch, "seq": seq, "optimizer": optimizer, **options, **switches}
        peak = peak_of(config, read_method(what), read_setting(**step))
        word = verdict(peak, card_gib)
        found = {"peak_gib": peak / GIB, "verdict": word, "fits": word == "fits"}
        rows.append({"method": label, **switches, **found})
    return rows


@cache
def covered_models() -> tuple[str, ...]:
    """Return the collection's models that the closed form covers, from the smallest to the largest."""
    covered = [c for c in map(load_config, model_names(more=False)) if c.model_type in LLAMA_LIKE]
    return tuple(each.name for each in sorted(covered, key=base_parameters))


def largest_fitting(what: Any, *, card_gib: float | str, **step: Any) -> str | None:
    """Return the largest model among ``covered_models()`` whose step fits a card, or None.

    Raises:
        EstimateError: a card without memory, or what ``estimate`` refuses.
    """
    _, card_gib = named(card_gib)
    described, setting = read_method(what), read_setting(**step)

    def holds(name: str) -> bool:
        peak = peak_of(load_config(name), described, setting)
        return verdict(peak, card_gib) == "fits"

    return next(filter(holds, reversed(covered_models())), None)
