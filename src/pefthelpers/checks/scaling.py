"""Checks of the exercises in notebook 10b: each tries a function on random inputs."""

from pefthelpers.checks.verdict import check as __getattr__
