"""Checks of the exercises in notebook 07."""

from pefthelpers.checks.verdict import check as __getattr__
