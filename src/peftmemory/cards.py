"""Cards by name with the memory they report, and what of it a step can count on."""

import difflib
from typing import Any

from peftmemory.constants import GIB
from peftmemory.errors import EstimateError

# What torch reports as "total capacity", in GiB: the lowest of several public reports of each. The
# number in a card's name is its vendor's, in GB or GiB, before the driver and ECC take their part.
CARDS: dict[str, float] = {
    "rtx-3060-12": 11.63,
    "t4": 14.56,
    "rtx-4060-ti-16": 15.46,
    "v100-16": 15.77,
    "l4": 22.03,
    "a10g": 22.06,
    "rtx-4090": 23.52,
    "rtx-3090": 23.55,
    "rtx-5090": 31.36,
    "v100-32": 31.73,
    "a100-40": 39.25,
    "l40s": 44.34,
    "a6000": 47.40,
    "h100": 79.11,
    "a100-80": 79.14,
    "h200": 139.72,
    "b200": 178.35,
}
# What a CUDA context takes, in GiB: the least that was measured (a T4), and a reserve that covers
# newer cards, their matrix products' workspaces and a desktop.
LEAST_CONTEXT_GIB, CARD_OVERHEAD_GIB = 0.14, 1.0
# What the allocator holds over the bytes that a step asks for: nine in ten of the tune rows of
# studies.memory_truth lie between (whose test computes the two again). It rounds sizes up, and holds on
# to what it has once had.
SLACK = (1.02, 1.37)
# What one in eight of them stay below: with less room than that for it a run is not worth the try.
TIGHT_SLACK = 1.05
VERDICTS = ("fits", "uncertain", "does not fit")


def card_gib(name: str) -> float:
    """Return the memory that a card of this name reports, in GiB.

    Raises:
        EstimateError: an unknown card; the sentence names those there are.
    """
    plain = name.lower().strip().replace(" ", "-").replace("_", "-").removeprefix("nvidia-")
    if plain in CARDS:
        return CARDS[plain]
    near = difflib.get_close_matches(plain, CARDS, n=2, cutoff=0.5)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise EstimateError(
        f"There is no card {name!r}{meant}: take one of {', '.join(CARDS)}, or give the memory that"
        " nvidia-smi reports, in GiB."
    )


def check_card(gib: Any) -> None:
    """Refuse a card without memory.

    Raises:
        EstimateError: it is not above 0 GiB, or no number.
    """
    good = isinstance(gib, int | float) and not isinstance(gib, bool) and 0 < gib < 100_000
    if not good:
        raise EstimateError(f"The card's memory must be above 0 GiB, not {gib!r}.")


def reported(sold_gb: float) -> float:
    """Return the memory that a card sold as so many GB reports at least, in GiB.

    The least of the cards here of that size; for a size that is not here the share of the T4's, the lowest.
    """
    known = [gib for gib in CARDS.values() if 0.9 * sold_gb <= gib <= sold_gb]
    return min(known, default=CARDS["t4"] / 16 * sold_gb)


def room(gib: float) -> float:
    """Return the GiB that a step may ask for to be worth a try: inside ``verdict``'s *uncertain*, towards its end.

    Args:
        gib: the card's memory as it reports it.
    """
    return (gib - CARD_OVERHEAD_GIB) / TIGHT_SLACK


def on_card_gib(peak_bytes: float) -> tuple[float, float]:
    """Return from and to what memory a card shows for a step (nvidia-smi's figure), in GiB."""
    peak = peak_bytes / GIB
    return SLACK[0] * peak + LEAST_CONTEXT_GIB, SLACK[1] * peak + CARD_OVERHEAD_GIB


def verdict(peak_bytes: float, gib: float) -> str:
    """Return which of ``VERDICTS`` a peak has on a card.

    It fits if there is room for the upper end of ``on_card_gib``, it does not if there is none for the
    lower; between the two nobody can say without running it.

    Args:
        peak_bytes: the bytes that a step asks for at its worst moment.
        gib: the card's memory as it reports it.
    """
    least, most = on_card_gib(peak_bytes)
    if least > gib:
        return "does not fit"
    return "fits" if most <= gib else "uncertain"


def in_words(word: str, gib: float, peak_gib: float, name: str = "", holds: str = "") -> str:
    """Return a verdict as a sentence; ``holds`` names a card that the step does fit."""
    start = {"fits": "It fits", "uncertain": "It may fit", "does not fit": "It does not fit"}[word]
    card = f"the {name.upper()} of {gib:g} GiB" if name else f"a card of {gib:g} GiB"
    slack = ", if the allocator wastes little" if word == "uncertain" else ""
    beside = f"{peak_gib:.1f} GiB beside the allocator's slack and the CUDA context{slack}"
    return f"{start} {card}: {beside}{holds}."


def range_in_words(peak_bytes: float) -> str:
    """Return ``on_card_gib`` as a sentence."""
    least, most = on_card_gib(peak_bytes)
    return f"A card shows {least:.1f} to {most:.1f} GiB for it, in nine of ten steps measured."
