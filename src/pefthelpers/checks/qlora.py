"""Checks of the exercises in notebook 06."""

import math

import torch

from pefthelpers.checks.verdict import NOT_ATTEMPTED, Verdict, call, correct, is_missing, not_yet


def _diagnosed(results: list, wrong: dict[str, list], otherwise: str) -> Verdict:
    """Return the message of the wrong answers that these results equal."""
    for message, values in wrong.items():
        if all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(results, values, strict=True)):
            return not_yet(message)
    return not_yet(otherwise)


def bits(function) -> Verdict:
    """Check ``function(block, group)``: bits per weight; ``group`` None: no double quantisation."""
    cases = [(64, None), (64, 256), (128, 512)]
    results = []
    for case in cases:
        result, verdict = call(function, *case)
        if verdict:
            return verdict
        results.append(result)
    two_levels = lambda small, large: [
        4 + (32 / b if g is None else small / b + large / (b * g)) for b, g in cases
    ]
    right = two_levels(8, 32)
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(results, right, strict=True)):
        return correct(f"{right[0]:.3f} and {right[1]:.3f} bits: constants are not free.")
    wrong = {
        "You count the codes alone; each block keeps a constant beside them.": [4] * 3,
        "One constant serves a block of weights: divide its bits by the block size.": [
            4 + (32 if g is None else 8 + 32 / g) for b, g in cases
        ],
        "The second level serves `group` constants, so `block * group` weights.": [
            4 + (32 / b if g is None else 8 / b + 32 / g) for b, g in cases
        ],
        "With double quantisation the constants have 8 bits, not 32.": two_levels(32, 32),
        "The constants of the constants are missing: 32 bits each.": two_levels(8, 0),
    }
    return _diagnosed(results, wrong, "4 bits, plus the constants' bits shared by their weights.")


def unpack(function) -> Verdict:
    """Check ``function(packed)``: two codes of each byte, the first weight in the high half."""
    packed = torch.tensor([0x1F, 0x80, 0x27], dtype=torch.uint8)
    result, verdict = call(function, packed)
    if verdict:
        return verdict
    if not isinstance(result, torch.Tensor):
        return not_yet("Return a tensor of codes.")
    codes = result.flatten().tolist()
    if codes == [1, 15, 8, 0, 2, 7]:
        return correct("Two weights a byte, the first in the high half.")
    swapped, grouped = [15, 1, 0, 8, 7, 2], [1, 8, 2, 15, 0, 7]
    wrong = {
        "The halves are swapped: the first weight of a pair is in the high four bits.": swapped,
        "All high halves come first: interleave, a byte's two codes are neighbours.": grouped,
    }
    for message, value in wrong.items():
        if codes == value:
            return not_yet(message)
    if len(codes) != 6:
        return not_yet(f"Three bytes hold six codes; you return {len(codes)}.")
    return not_yet("Shift right by four for the high half, & 15 for the low half.")


def weights_gb(answer, *, linear: int, rest: int, bits: float) -> Verdict:
    """Check the bytes, in GB, of a model whose linear layers are in 4 bits and whose rest is not.

    Args:
        answer: the learner's figure, in GB (1e9 bytes).
        linear: weights that are quantised.
        rest: weights that stay in bfloat16.
        bits: per quantised weight.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    figure = lambda quantised, others: (linear * quantised / 8 + rest * others) / 1e9
    if math.isclose(answer, figure(bits, 2), rel_tol=0.002):
        return correct(f"{rest * 2 / 1e9:.1f} GB of it are embeddings and head, in 16 bits.")
    wrong = {
        "You put everything in 4 bits; embeddings and head stay in 16.": [figure(bits, bits / 8)],
        "That is 4 bits flat for everything: no constants, no 16-bit embeddings.": [figure(4, 0.5)],
        "The constants are missing: a weight takes more than 4 bits.": [figure(4, 2)],
        "Only the layers are counted: embeddings and head are in memory too.": [figure(bits, 0)],
        "Four bytes a weight is float32: the rest is loaded in bfloat16.": [figure(bits, 4)],
    }
    wanted = "Linear weights times bits / 8, plus the rest times two bytes, in units of 1e9."
    return _diagnosed([answer], wrong, wanted)


def input_gradient(function) -> Verdict:
    """Check ``function(g, W)``: what a frozen linear layer hands back to its input."""
    generator = torch.Generator().manual_seed(0)
    g, w = torch.randn(3, 4, generator=generator), torch.randn(4, 6, generator=generator)
    result, verdict = call(function, g, w)
    if verdict:
        return verdict
    shape = tuple(getattr(result, "shape", ()))
    if shape == (3, 6) and torch.allclose(result, g @ w, atol=1e-5):
        return correct("W once more: a frozen weight is still needed on the way back.")
    if shape == (3, 6) and not result.any():
        return not_yet("Frozen means that W gets no gradient; x does, for the adapters below.")
    if shape == (4, 6):
        return not_yet("That has the shape of W's own gradient, which a frozen W does not need.")
    if shape != (3, 6):
        return not_yet(f"The gradient of x has x's shape, (tokens, d_in); yours is {shape}.")
    return not_yet("y = x Wᵀ, so dL/dx = g W.")


def same_scale(answer, *, r: int, article: tuple[int, int]) -> Verdict:
    """Check which alpha gives rank ``r`` the scale of the article's ``(r, alpha)``."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    article_r, article_alpha = article
    if answer == r * article_alpha / article_r:
        return correct(f"alpha / r = {article_alpha / article_r:g}, an eighth of alpha = 2 r.")
    if answer == article_alpha:
        times = article_r / r
        return not_yet(
            f"The same alpha is {times:g} times the scale: B A is multiplied by alpha/r."
        )
    if answer == 2 * r:
        return not_yet("alpha = 2 r is the other rule; the article's 64 and 16 do not follow it.")
    if answer == article_alpha * article_r / r:
        return not_yet("You divided the wrong way round: a lower rank needs a lower alpha here.")
    return not_yet("Solve alpha / r = 16 / 64 for alpha.")


def adam_bytes(function) -> Verdict:
    """Check ``function(n)``: bytes of 8-bit Adam's states for a tensor of ``n`` parameters."""
    sizes = [65_536, 4_096, 2_048]
    results = []
    for size in sizes:
        result, verdict = call(function, size)
        if verdict:
            return verdict
        results.append(result)
    eight = lambda n: 2 * n + 2 * 4 * math.ceil(n / 256)
    right = [8 * n if n < 4096 else eight(n) for n in sizes]
    if all(a == b for a, b in zip(results, right, strict=True)):
        return correct("Two bytes and a little for large tensors, eight for small ones.")
    wrong = {
        "Tensors below 4,096 elements keep two float32 states: eight bytes each.": [
            eight(n) for n in sizes
        ],
        "At exactly 4,096 elements the states are already in 8 bits.": [
            8 * n if n <= 4096 else eight(n) for n in sizes
        ],
        "A float32 constant per block of 256 is missing, for each of the two states.": [
            8 * n if n < 4096 else 2 * n for n in sizes
        ],
        "Adam keeps two states, m and v, each with its constants.": [
            8 * n if n < 4096 else eight(n) / 2 for n in sizes
        ],
        "Each of the two states has its own constants: count them twice.": [
            8 * n if n < 4096 else 2 * n + 4 * math.ceil(n / 256) for n in sizes
        ],
    }
    return _diagnosed(results, wrong, "Two states; a byte an element; 4 bytes a block of 256.")
