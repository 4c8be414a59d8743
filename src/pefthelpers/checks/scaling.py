"""Checks of the exercises in notebook 10b: each tries a function on random inputs."""

from functools import partial

from pefthelpers.checks.verdict import tried

ring_bytes = partial(tried, "ring_bytes")  # (size, ranks): bytes that each rank sends
held_bytes = partial(tried, "held_bytes")  # (frozen, trained, devices): bytes at rest on one
combined = partial(tried, "combined")  # (means, tokens): the gradient of the mean over all tokens
rows_of = partial(tried, "rows_of")  # (rows, devices, rank): start and stop
newest = partial(tried, "newest")  # (names): step of the newest whole checkpoint, 0 without one
