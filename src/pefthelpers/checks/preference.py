"""Checks of the exercises in notebook 09: losses, tried on random numbers."""

from pefthelpers.checks.verdict import check as __getattr__
from pefthelpers.checks.verdict import tried
