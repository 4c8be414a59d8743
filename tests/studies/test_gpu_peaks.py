"""The script that measures on a GPU, with counters that stand in for the card's."""

import pytest
import torch

from peftmemory.settings import read_setting
from peftmemory.tracing.step import autocast_as_on_gpu
from studies import gpu_peaks
from studies.memory_cases import key_of, method_of
from support.memory_models import TOY


class Counting(gpu_peaks.Gauge):
    """Answers the number of the call."""

    def __init__(self):
        self.calls = 0

    def reset(self):
        pass

    def peaks(self):
        self.calls += 1
        return {"requested": self.calls, "allocated": self.calls + 1, "reserved": self.calls + 2}

    def used(self):
        return 99

    def asked(self):
        return 98


def test_each_case_can_be_read_and_stands_once():
    cases = list(gpu_peaks.cases())
    assert len(cases) == len({key_of(case) for case in cases}) > 90
    for _, described, batch, seq, options in cases:
        assert method_of(described)
        assert read_setting(batch=batch, seq=seq, **options).optimizer.startswith("adamw_torch")


@pytest.mark.parametrize("options", [{}, {"autocast": True, "accumulation": True}])
def test_a_row_holds_the_second_steps_peaks_and_what_is_there_at_rest(options):
    case = (TOY, gpu_peaks.FULL, 2, 16, {**gpu_peaks.FUSED, **options})
    row = gpu_peaks.row_of(case, Counting(), "cpu")
    micro = 2 if options else 1
    first = 1 + 2 * micro + 1  # peaks of the first step are looked at, and left aside
    assert row["requested"] == 2 * first and row["reserved"] == row["requested"] + 2
    assert list(row["moments"]) == ["forward", "backward", "optimizer"]
    # bf16 weights and two moments of each; a count per tensor, rotary tables and the batch.
    assert 6 * row["trained"] < row["at_rest"]["tensors"] < 6.1 * row["trained"]


def test_what_goes_wrong_is_a_row_too():
    row = gpu_peaks.row_of((TOY, {"name": "lora", "r": 999}, 2, 16, {}), Counting(), "cpu")
    assert "EstimateError" in row["error"] and "allocated" not in row


def test_autocast_is_bf16_on_a_gpu_and_ends():
    before = torch.get_autocast_dtype("cuda")
    with autocast_as_on_gpu():
        assert torch.is_autocast_enabled("cuda")
        assert torch.get_autocast_dtype("cuda") is torch.bfloat16
    assert not torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") is before
