"""Checks of the exercises in notebook 10."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pefthelpers.checks.verdict import Verdict, tried
from pefthelpers.checks.verdict import check as __getattr__


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor made has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and look at what it returns."""
        out = func(*args, **(kwargs or {}))
        found = out if isinstance(out, tuple | list) else (out,)
        places = {each.data_ptr() for each in args if isinstance(each, torch.Tensor)}  # of views
        made = (each for each in found if isinstance(each, torch.Tensor))
        sizes = [each.numel() for each in made if each.data_ptr() not in places]
        self.numbers = max([self.numbers, *sizes])
        return out


def label_log_probs(function) -> Verdict:
    """Check ``function(hidden, weight, labels, size)``: log-probabilities (n,), made in pieces."""
    seen = Largest()

    def watched(*arguments):
        seen.numbers = 0
        with seen:
            return function(*arguments)

    watch = watched if callable(function) else function
    return tried("label_log_probs", watch, largest=lambda: seen.numbers)
