"""Optimisers: the states that stay, and what a step needs beside them."""

import pytest

import peftmemory
from peftmemory.constants import PAGED_SMALLEST
from peftmemory.optimizers import OPTIMIZERS, paged_bytes, state_bytes
from peftmemory.tracing import trace_step
from peftmemory.trained import trained_tensors
from studies.memory_measure import measure_step

# Wide enough that bitsandbytes pages some tensors, and that states outweigh activations.
WIDE = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "vocab_size": 1024}
WIDE |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
STEP = {"batch": 1, "seq": 8}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_of_the_optimiser_needs_what_the_trace_of_its_class_needs(optimizer, precision):
    asked = {**STEP, "optimizer": optimizer, "precision": precision}
    trace, found = (
        ask(WIDE, **asked).moments["optimizer"] for ask in (trace_step, peftmemory.estimate)
    )
    for kind in ("optimizer_states", "temporaries"):
        assert found.get(kind, 0) == pytest.approx(trace.get(kind, 0), rel=0.003, abs=64)


@pytest.mark.parametrize("optimizer", ["adafactor", "muon", "sgd_momentum"])
def test_a_real_step_of_the_real_class_peaks_where_the_formula_does(optimizer):
    asked = {**STEP, "optimizer": optimizer}
    found = peftmemory.estimate(WIDE, **asked)
    assert found.peak == pytest.approx(measure_step(WIDE, **asked), rel=0.03)


@pytest.mark.parametrize("optimizer", [name for name, kind in OPTIMIZERS.items() if kind.paged])
def test_paged_states_are_said_and_not_counted(optimizer):
    tensors = trained_tensors(peftmemory.load_config(WIDE), peftmemory.read_method("full"))
    paged, _ = paged_bytes(tensors, 2, optimizer)
    assert 0 < paged < state_bytes(tensors, 2, optimizer)
    found = peftmemory.estimate(WIDE, optimizer=optimizer, **STEP)
    assert found.kinds["optimizer_states"] == state_bytes(tensors, 2, optimizer) - paged
    assert f"{paged / 2**30:.2f} GiB lie in paged memory" in found.notes[-1]
    assert max(a * b for a, *rest in tensors for b in rest) >= PAGED_SMALLEST


def test_without_a_large_tensor_nothing_is_paged():
    lora = peftmemory.method("lora", r=4)
    assert not peftmemory.estimate(WIDE, lora, optimizer="paged_adamw_8bit", **STEP).notes
