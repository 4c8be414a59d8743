"""Checks of the exercise in notebook 00."""

from pefthelpers.checks.verdict import check as __getattr__
