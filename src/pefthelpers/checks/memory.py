"""Checks of the exercises in notebook 01."""

from pefthelpers.checks.verdict import Verdict, call, call_each, judge, same


def model_states(answer, *, parameters: int) -> Verdict:
    """Check the GB (1e9 bytes) of weights, gradients, states under autocast with accumulation."""
    return judge("model_states", answer, tolerance=0.01, parameters=parameters)


def checkpointed(function) -> Verdict:
    """Check ``function(h, layers, batch, seq)``: bytes of the layer inputs in bf16."""
    first = {"h": 96, "layers": 5, "batch": 3, "seq": 40}
    cases = [first, first | {"h": 64, "layers": 3}]  # a constant is right once at most
    verdicts = [judge("checkpointed", call(function, *c.values()), **c) for c in cases]
    return next((each for each in verdicts if each.status != "correct"), verdicts[0])


def peak(function) -> Verdict:
    """Check ``function(moments)``: the peak of a step from bytes by moment and kind."""
    early = {
        "forward": {"weights": 10, "activations": 50},
        "backward": {"weights": 10, "activations": 20, "gradients": 10},
        "optimizer": {"weights": 10, "gradients": 10, "temporaries": 35},
    }
    late = {**early, "forward": early["optimizer"], "optimizer": {"weights": 10, "gradients": 60}}
    found = call_each(function, [(early,), (late,)])
    if isinstance(found, list) and not same(found, [60, 70]):
        found = found[1] if same(found[0], 60) else found[0]
    wrong = {"other type": lambda found: not isinstance(found, int | float | str)}
    return judge("peak", found, right=[60, 70], wrong=wrong)


def what_helps(answer, *, peaks_gib: dict[str, float], card_gib: float) -> Verdict:
    """Check which change, a key of ``peaks_gib``, is the only one whose peak the card holds."""
    fit = [change for change, gib in peaks_gib.items() if gib <= card_gib]
    right, wrong = lambda change: fit == [change], {"another": lambda change: change in peaks_gib}
    gib = next((gib for change, gib in peaks_gib.items() if same(answer, change)), 0.0)
    numbers = {"gib": gib, "options": ", ".join(peaks_gib)}
    return judge("what_helps", answer, right=right, wrong=wrong, **numbers)
