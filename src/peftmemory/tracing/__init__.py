"""Peak memory and operations of a real training step without weights and without a GPU."""

from peftmemory.tracing.flops import Flops, trace_flops
from peftmemory.tracing.measure import measure_saved, measure_states, measure_step
from peftmemory.tracing.step import Trace, trace_step

__all__ = [
    "Flops",
    "Trace",
    "measure_saved",
    "measure_states",
    "measure_step",
    "trace_flops",
    "trace_step",
]
