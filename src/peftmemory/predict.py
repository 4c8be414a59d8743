"""One question, whichever way it is answered: the closed form, or a trace where it has no formula."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from peftmemory.errors import NoFormulaError
from peftmemory.estimate import estimate
from peftmemory.phases import Estimate


def predict(
    model: Any,
    method: Any = "full",
    *,
    batch: int,
    seq: int,
    trace: bool = False,
    before_trace: Callable[[], None] = lambda: None,
    **options: Any,
) -> Estimate:
    """Return a step's peak: by the closed form where it covers the question, else by a trace.

    Only a trace imports torch. Its notes say what the closed form does not cover.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        batch: sequences per step.
        seq: tokens per sequence.
        trace: trace it in any case.
        before_trace: called before a trace: what makes methods of others known to PEFT.
        options: fields of ``StepSetting``.

    Raises:
        EstimateError: something in the question cannot be; the sentence says what to change.
    """
    why: tuple[str, ...] = ()
    if not trace:
        try:
            return estimate(model, method, batch=batch, seq=seq, **options)
        except NoFormulaError as error:
            why = (str(error).split(": trace it")[0] + ": traced.",)
    before_trace()
    from peftmemory.tracing import trace_step

    found = trace_step(model, method, batch=batch, seq=seq, **options)
    return replace(found, notes=(*why, *found.notes))
