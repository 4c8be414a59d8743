"""How many floating-point operations a step takes: a pass of its own over the same fake tensors."""

from dataclasses import dataclass
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from peftmemory.configs import load_config
from peftmemory.settings import read_setting
from peftmemory.tracing.build import build_model, materialise
from peftmemory.tracing.heads import batch_of
from peftmemory.tracing.step import check, forward, packed, quiet


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of matrix products, a multiply-add counted as two."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward and backward together; the optimiser's are negligible."""
        return self.forward + self.backward


def trace_flops(model: Any, method: Any = "full", *, batch: int, seq: int, **options) -> Flops:
    """Count the operations of one training step; the arguments are those of ``trace_step``.

    Counted apart from the memory, because the counter keeps tensors alive. Attention is counted
    as plain matrix products over all positions: a causal kernel skips up to half of those.

    Raises:
        EstimateError: something in the question cannot be.
    """
    config, setting = load_config(model), read_setting(batch=batch, seq=seq, **options)
    check(config, method, setting)
    with quiet(), packed(setting):
        built = build_model(config, method, setting)
        with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
            materialise(built)
            with FlopCounterMode(display=False) as counter:
                _, loss = forward(built, batch_of(config, setting), setting)
                before = counter.get_total_flops()
                loss.backward()
                return Flops(before, counter.get_total_flops() - before)
