"""Peak memory of a real training step without weights and without a GPU."""

from peftmemory.tracing.step import Trace, trace_step

__all__ = ["Trace", "trace_step"]
