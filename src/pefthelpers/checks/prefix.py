"""Checks of the exercises in notebook 04."""

from pefthelpers.checks.verdict import check as __getattr__
