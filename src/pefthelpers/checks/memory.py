"""Checks of the exercises in notebook 01."""

from pefthelpers.checks.verdict import Verdict, call, judge, same


def model_states(answer, *, parameters: int) -> Verdict:
    """Check the GB (1e9 bytes) of weights, gradients, states under autocast with accumulation."""
    each = parameters / 1e9  # GB of one byte per parameter
    wrong = {
        "backward": 16 * each,
        "no accumulation": 14 * each,
        "weights and states": 12 * each,
        "pure bf16": 8 * each,
        "gib": 18 * parameters / 1024**3,
    }
    return judge("model_states", answer, right=18 * each, wrong=wrong, tolerance=0.01)


def checkpointed(function) -> Verdict:
    """Check ``function(h, layers, batch, seq)``: bytes of the layer inputs in bf16."""
    h, layers, batch, seq = 96, 5, 3, 40
    right = 2 * h * layers * batch * seq
    wrong = {
        "one layer": right // layers,
        "four bytes": 2 * right,
        "elements": right // 2,
        "one sequence": right // batch,
        "quadratic": right * seq,
    }
    return judge("checkpointed", call(function, h, layers, batch, seq), right=right, wrong=wrong)


def peak(function) -> Verdict:
    """Check ``function(moments)``: the peak of a step from bytes by moment and kind."""
    moments = {
        "forward": {"weights": 10, "activations": 50},
        "backward": {"weights": 10, "activations": 20, "gradients": 10},
        "optimizer": {"weights": 10, "gradients": 10, "temporaries": 35},
    }
    wrong = {"other type": lambda found: not isinstance(found, int | float | str)}
    return judge("peak", call(function, moments), right=60, wrong=wrong)


def what_helps(answer, *, peaks_gib: dict[str, float], card_gib: float) -> Verdict:
    """Check which single change makes a LoRA step fit.

    Args:
        answer: a key of ``peaks_gib``.
        peaks_gib: change to the peak with that change alone.
        card_gib: what must not be exceeded.
    """
    fits = lambda change: peaks_gib[change] <= card_gib
    wrong = {"another": lambda change: change in peaks_gib}
    gib = next((gib for change, gib in peaks_gib.items() if same(answer, change)), 0.0)
    numbers = {"gib": gib, "options": ", ".join(peaks_gib)}
    return judge("what_helps", answer, right=fits, wrong=wrong, **numbers)
