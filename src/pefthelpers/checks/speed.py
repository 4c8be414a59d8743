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


def counted(function, *arguments) -> tuple[object, int]:
    """Return what a function returns, and how many numbers the largest tensor that it made has."""
    with Largest() as seen:
        return function(*arguments), seen.numbers


def label_log_probs(function) -> Verdict:
    """Check ``function(hidden, weight, labels, size)``: log-probabilities (n,), made in pieces."""
    run = getattr(
        function, "there", lambda run, *given: run(function, *given)
    )  # where it makes them
    seen = []

    def watched(*arguments):
        answer, *seen[:] = run(counted, *arguments)
        return answer

    watch = watched if callable(function) else function
    return tried("label_log_probs", watch, largest=lambda: seen[0])
