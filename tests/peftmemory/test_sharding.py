"""One of several devices: against ZeRO's paper, and against PyTorch's own DDP and FSDP2."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from torch.testing._internal.distributed.fake_pg import FakeStore

import peftmemory
from peftmemory.errors import EstimateError
from peftmemory.sharding import STRATEGIES, per_device
from peftmemory.tracing.build import build_model
from studies.memory_measure import highest, quantisation_tensors, quantise_really
from support.memory_models import TOY

DEVICES = 4
SMALL = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "vocab_size": 1024}
SMALL |= {"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
ALL = peftmemory.method("lora", r=16, target_modules="all-linear")
STEP = {"batch": 1, "seq": 16, "optimizer": "adamw_torch_fused"}
STATES = ("frozen_weights", "trainable_weights", "gradients", "optimizer_states")
# Rajbhandari et al., 2020, table 1: GB of model states per device for 7.5 billion parameters.
TABLE_1 = {
    4: (52.5, 41.3, 30.0),
    16: (35.6, 21.6, 7.5),
    64: (31.4, 16.6, 1.88),
    256: (30.4, 15.4, 0.47),
}


@pytest.mark.parametrize("devices", TABLE_1)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_model_states_are_those_of_zeros_paper(stage, devices):
    found = per_device("llama-2-7b", devices=devices, strategy=f"zero{stage}", **STEP)
    states = sum(found.moments["optimizer"].get(kind, 0) for kind in STATES)
    per_parameter = TABLE_1[devices][stage - 1] / 7.5
    assert states / found.trainable == pytest.approx(per_parameter, rel=5e-3)


@pytest.fixture(scope="module")
def mesh():
    """Four devices, of which one is here: collectives of the fake group do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=DEVICES)
    yield init_device_mesh("cpu", (DEVICES,))
    dist.destroy_process_group()


def done(state, bucket):
    """Reduce nothing: the fake group has no hook's result."""
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def shared(model, strategy, mesh):
    if strategy == "ddp":
        model = DistributedDataParallel(model)
        model.register_comm_hook(None, done)
        return model
    for layer in model.get_submodule(
        "base_model.model.model" if hasattr(model, "peft_config") else "model"
    ).layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def real_step(method, strategy, mesh, seq, **options):
    """Run one step and return the peak: resting local bytes, then the allocator's record."""
    config = peftmemory.load_config(SMALL)
    setting = peftmemory.StepSetting(batch=1, seq=seq, **options)
    model = shared(build_model(config, method, setting, device="cpu"), strategy, mesh)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=True)
    ids = torch.zeros(1, seq, dtype=torch.long)

    def step():
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    states = [s for each in optimizer.state.values() for s in each.values()]
    local = [t.to_local() if hasattr(t, "to_local") else t for t in [*model.parameters(), *states]]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    return sum(t.nbytes for t in local) + highest(record)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("strategy", "method", "seq", "options", "rel"),
    [
        ("ddp", "full", 16, {}, 0.001),
        ("ddp", ALL, 16, {}, 0.001),
        ("fsdp", "full", 16, {}, 0.03),
        ("fsdp", "full", 256, {}, 0.03),
        ("fsdp", "full", 256, {"checkpointing": True}, 0.03),
        ("fsdp", ALL, 16, {}, 0.03),
        ("fsdp", ALL, 256, {"checkpointing": True}, 0.03),
    ],
)
def test_a_device_holds_what_pytorchs_own_step_holds(mesh, strategy, method, seq, options, rel):
    measured = real_step(method, strategy, mesh, seq, **options)
    asked = {"batch": 1, "seq": seq, "optimizer": "adamw_torch", **options}
    found = per_device(SMALL, method, devices=DEVICES, strategy=strategy, **asked)
    assert found.peak == pytest.approx(measured, rel=rel)


def test_data_parallelism_on_one_device_is_the_step_itself():
    alone = peftmemory.estimate(TOY, **STEP)
    assert per_device(TOY, devices=1, strategy="ddp", **STEP).moments == alone.moments


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "ddp"])
def test_more_devices_hold_no_more_each(strategy):
    asked = {**STEP, "seq": 1024, "strategy": strategy, "checkpointing": True}
    peaks = [per_device("llama-3.1-8b", ALL, devices=n, **asked).peak for n in (2, 4, 8)]
    assert peaks == sorted(peaks, reverse=True)


def test_fsdp_qlora_parts_packed_weights_and_repeats_bitsandbytes_constants():
    config, setting = peftmemory.load_config(SMALL), peftmemory.StepSetting(1, 8, precision="nf4")
    model = build_model(config, ALL, setting, device="cpu", quantise=quantise_really)
    states = [getattr(p, "quant_state", None) for p in model.parameters()]
    constants = sum(t.nbytes for state in states for t in quantisation_tensors(state))
    found = per_device(SMALL, ALL, devices=10**9, precision="nf4", **STEP)
    assert found.kinds["frozen_weights"] == constants + 1  # and one byte, rounded up


@pytest.mark.parametrize(
    ("strategy", "offload", "left"),
    [
        ("zero2", "optimizer", {"trainable_weights"}),
        ("zero3", "all", set()),
        ("fsdp", "all", set()),
    ],
)
def test_what_is_offloaded_is_not_on_the_card(strategy, offload, left):
    found = per_device(TOY, devices=2, strategy=strategy, offload=offload, **STEP)
    assert set(found.moments["optimizer"]) & set(STATES) == left


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"devices": 0}, "devices must be a whole number of at least 1"),
        ({"devices": 2, "strategy": "zero4"}, "strategy must be one of ddp, zero1"),
        (
            {"devices": 2, "strategy": "ddp", "offload": "all"},
            "With ddp offload is none, not 'all'",
        ),
        ({"devices": 2, "offload": "optimizer"}, "With fsdp offload is none or all"),
    ],
)
def test_what_cannot_be_shared_is_said_in_one_sentence(asked, sentence):
    with pytest.raises(EstimateError, match=sentence):
        per_device(TOY, **STEP, **asked)
