"""The largest batch and the longest sequence that fit a card, and a table of both."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

from peftmemory.advice import named
from peftmemory.cards import verdict
from peftmemory.configs import ModelConfig, load_config
from peftmemory.constants import GIB
from peftmemory.errors import check_size
from peftmemory.phases import Estimate
from peftmemory.predict import predict

BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
# A length is found in multiples of so many tokens; no batch is looked for beyond the last number.
TOKENS, MOST = 64, 1 << 16
WORDS = {"fits": "", "uncertain": "?", "does not fit": "x"}


def capacity(
    model: Any,
    method: Any = "full",
    *,
    card_gib: float | str,
    batch: int = 1,
    seq: int = 1024,
    batches: tuple[int, ...] = BATCHES,
    lengths: tuple[int, ...] = LENGTHS,
    ask: Callable[..., Estimate] = predict,
    **options: Any,
) -> dict[str, Any]:
    """Return what a card has room for: peaks by batch and length, the largest of each.

    A question without a formula is traced, cell by cell; what is no smaller than a step that does
    not fit is not asked for.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        card_gib: the card's memory as it reports it, or its name.
        batch: the sequences per step for which the longest length is found.
        seq: the length for which the largest batch is found.
        batches: the table's rows.
        lengths: the table's columns.
        ask: what gives a step's peak: ``predict``, ``per_device``, ``dpo``, ``grpo``.
        options: its options, fields of ``StepSetting`` among them.

    Returns:
        ``card_gib``; ``rows`` with batch, seq, peak_gib (None where it was not asked for) and
        verdict; ``largest_batch`` and ``longest_seq``, each with what fits and what may fit (0: not
        even the smallest); ``positions``, the model's own limit, which no length is beyond.

    Raises:
        EstimateError: a card without memory, or what ``ask`` refuses.
    """
    _, gib = named(card_gib)
    config = load_config(model)
    for name, sizes in (("batch", (batch, *batches)), ("seq", (seq, *lengths))):
        for size in sizes:
            check_size(name, size)

    @cache
    def word(batch: int, seq: int) -> tuple[float, str]:
        peak = ask(config, method, batch=batch, seq=seq, **options).peak
        return peak / GIB, verdict(peak, gib)

    most = positions(config) // TOKENS
    limit = positions(config)
    lengths = tuple(each for each in lengths if each <= limit) or (limit,)
    return {
        "card_gib": gib,
        "rows": table(word, batches, lengths),
        "largest_batch": largest(lambda size: word(size, seq)[1], MOST),
        "longest_seq": {
            key: TOKENS * size
            for key, size in largest(lambda size: word(batch, TOKENS * size)[1], most).items()
        },
        "positions": positions(config),
    }


def positions(config: ModelConfig) -> int:
    """Return the longest sequence that a model's file allows for."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    return next((size for name in names if isinstance(size := config.raw.get(name), int)), 1 << 20)


def table(word: Callable, batches: tuple[int, ...], lengths: tuple[int, ...]) -> list[dict]:
    """Return a row for each batch and length, the smaller ones first."""
    rows, beyond = [], []
    for batch, seq in product(sorted(batches), sorted(lengths)):
        asked = not any(batch >= b and seq >= s for b, s in beyond)
        peak_gib, found = word(batch, seq) if asked else (None, "does not fit")
        if found == "does not fit":
            beyond.append((batch, seq))
        rows.append({"batch": batch, "seq": seq, "peak_gib": peak_gib, "verdict": found})
    return rows


def largest(word: Callable[[int], str], most: int) -> dict[str, int]:
    """Return the largest size up to ``most`` that fits, and that may fit; 0 if 1 does not."""
    found = {}
    for key, good in (("fits", ("fits",)), ("may fit", ("fits", "uncertain"))):
        low, high = 0, 1
        while high <= most and word(high) in good:
            low, high = high, 2 * high
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if word(middle) in good else (low, middle)
        found[key] = low
    return found


def in_words(found: dict[str, Any], batch: int, seq: int) -> list[str]:
    """Return what ``capacity`` found as lines: the table, then the largest of each."""
    lengths = sorted({row["seq"] for row in found["rows"]})
    lines = [f"Peak in GiB on {found['card_gib']:g} GiB; ?: it may fit, x: it does not fit."]
    lines.append(f"{'batch':>6}" + "".join(f"{each:>10,}" for each in lengths) + "  tokens")
    for size in sorted({row["batch"] for row in found["rows"]}):
        cells = [row for row in found["rows"] if row["batch"] == size]
        words = (
            f"{'' if row['peak_gib'] is None else format(row['peak_gib'], '.1f')}"
            f"{WORDS[row['verdict']]:1}"
            for row in cells
        )
        lines.append(f"{size:>6,}" + "".join(f"{word:>10}" for word in words))
    for name, what in (("largest_batch", f"Largest batch of {seq:,} tokens"),
                       ("longest_seq", f"Longest sequence at batch {batch:,}")):  # fmt: skip
        fits, may = found[name]["fits"], found[name]["may fit"]
        more = f" ({may:,} may fit)" if may > fits else ""
        limit = ", the model's own limit" if fits and fits + TOKENS > found["positions"] else ""
        lines.append(f"{what}: {format(fits, ',') if fits else 'none fits'}{more}{limit}.")
    return lines
