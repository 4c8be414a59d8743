"""Operations of a traced step."""

import pytest

import peftmemory
from studies.memory_flops import trace_flops
from support.memory_models import TOY

ALL = peftmemory.method("lora", r=8, target_modules="all-linear")


def test_flops_follow_the_products():
    """Forward 2, weight gradients 2, input gradients 2 per weight and token."""
    full, lora = (trace_flops(TOY, m, batch=1, seq=64) for m in ("full", ALL))
    assert full.total / full.forward == pytest.approx(3, abs=0.1)
    assert lora.total < 0.85 * full.total
    again = trace_flops(TOY, "full", batch=1, seq=64, checkpointing=True)
    assert full.forward == again.forward and again.backward > full.backward
