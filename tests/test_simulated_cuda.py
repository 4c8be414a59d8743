"""The simulated card refuses what a GPU refuses, and answers what a GPU answers."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from support.simulated_cuda import A100, T4, Card, simulated

TWO = "Expected all tensors to be on the same device"


@pytest.fixture
def card():
    with simulated() as card:
        yield card


@pytest.mark.parametrize(
    "moved",
    [
        lambda y: y.to("cuda"),
        lambda y: y.cuda(),
        lambda y: y.to(0),
        lambda y: y.to(torch.ones(1, device="cuda")),
        lambda y: torch.ones(3, device="cuda") + 1,
        lambda y: torch.tensor([1, 2], device="cuda"),
        lambda y: torch.ones(2, device="cuda").new_zeros(3),
        lambda y: torch.zeros_like(torch.ones(2, device="cuda")),
        lambda y: torch.ones(2, 3, device="cuda").T,
        lambda y: torch.ones(2, device="cuda").half(),
        lambda y: copy.deepcopy(torch.ones(2, device="cuda")),
        lambda y: torch.stack([torch.ones(2, device="cuda")] * 2),
        lambda y: torch.vmap(lambda a: a + 1)(torch.ones(2, 3, device="cuda")),
        lambda y: torch.ones(3, device="cuda")[torch.tensor([0, 1])],
        lambda y: torch.tensor(2.0) * torch.ones(3, device="cuda"),
        lambda y: torch.randn(3, device="cuda", generator=torch.Generator("cuda").manual_seed(1)),
        lambda y: y.cuda().cpu().to("cuda", torch.float16),
        lambda y: nn.Linear(3, 2).cuda().weight,
    ],
)
def test_it_lies_on_the_card(card, moved):
    found = moved(torch.ones(3))
    assert found.is_cuda and not found.is_cpu and found.device == torch.device("cuda", 0)


@pytest.mark.parametrize(
    "kept",
    [
        lambda x: x.cpu(),
        lambda x: x.to("cpu", torch.float64),
        lambda x: torch.zeros_like(x, device="cpu"),
        lambda x: torch.ones(2),
        lambda x: torch.tensor(x.tolist()),
        lambda x: torch.from_numpy(x.cpu().numpy()),
        lambda x: nn.Linear(3, 2).cuda().cpu().weight,
    ],
)
def test_it_lies_on_the_cpu(card, kept):
    found = kept(torch.ones(3, device="cuda"))
    assert found.is_cpu and not found.is_cuda and found.device.type == "cpu"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda x, y: x + y, TWO),
        (lambda x, y: x @ y, TWO),
        (lambda x, y: torch.cat([x, y]), TWO),
        (lambda x, y: x.sum() + y, TWO),
        (lambda x, y: torch.where(x > 0, y, x), TWO),
        (lambda x, y: x.add_(y), TWO),
        (lambda x, y: nn.Linear(3, 2).cuda()(y), TWO),
        (lambda x, y: nn.Embedding(3, 2).cuda()(torch.tensor([1])), TWO),
        (lambda x, y: nn.functional.cross_entropy(x, torch.tensor([0, 1, 2])), TWO),
        (lambda x, y: torch.bucketize(x, y[0]), TWO),
        (lambda x, y: x.gather(0, torch.zeros(1, 3, dtype=torch.long)), TWO),
        (lambda x, y: x.index_put_((torch.tensor([0]),), y[:1]), TWO),
        (lambda x, y: y[torch.tensor([0], device="cuda")], "indices should be either on cpu"),
        (lambda x, y: x.numpy(), "can't convert cuda:0"),
        (lambda x, y: np.asarray(x), "can't convert cuda:0"),
        (lambda x, y: x.pin_memory(), "cannot pin"),
        (lambda x, y: x.long() @ x.long(), "not implemented"),
        (lambda x, y: torch.randn(3, device="cuda", generator=torch.Generator()), "generator"),
        (
            lambda x, y: torch.empty(3, device="cuda").normal_(generator=torch.Generator()),
            "generator",
        ),
        (lambda x, y: torch.randn(3, generator=torch.Generator("cuda")), "generator"),
    ],
)
def test_it_refuses_what_a_gpu_refuses(card, wrong, says):
    with pytest.raises((RuntimeError, TypeError), match=says):
        wrong(torch.ones(3, 3, device="cuda"), torch.ones(3, 3))


def test_without_it_nothing_of_it_is_left():
    with simulated():
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available() and not torch.ones(2).is_cuda


@pytest.mark.parametrize("form", [{}, {"foreach": True}, {"fused": True}])
def test_a_step_stays_on_the_card(card, form):
    layer = nn.Linear(3, 2).cuda()
    optimizer = torch.optim.AdamW(layer.parameters(), **form)
    layer(torch.ones(4, 3, device="cuda")).sum().backward()
    optimizer.step()
    assert all(p.grad.is_cuda and p.is_cuda for p in layer.parameters())
    assert all(s["exp_avg"].is_cuda for s in optimizer.state.values())


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_computed_again_is_computed_on_the_card(card, reentrant):
    layer, seen = nn.Linear(3, 2).cuda(), []

    def run(x):
        seen.append(x.device.type)
        return layer(x) + torch.ones(2, device=x.device)

    x = torch.ones(4, 3, device="cuda", requires_grad=True)
    torch.utils.checkpoint.checkpoint(run, x, use_reentrant=reentrant).sum().backward()
    assert seen == ["cuda", "cuda"] and layer.weight.grad.is_cuda


def test_a_mode_of_the_notebooks_own_changes_no_place(card):
    """It passes on what C++ asks for, with the device that C++ sees."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Passes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    layer, x = nn.Linear(3, 2).cuda(), torch.ones(4, 3, device="cuda")
    with Passes():
        y = layer(x)
        nn.functional.cross_entropy(y.float(), torch.tensor([0] * 4, device="cuda")).backward()
        here, back = torch.zeros(2, device="cuda"), y.cpu()
    assert layer.weight.grad.is_cuda and here.is_cuda and not back.is_cuda


def test_memory_is_counted_as_the_allocator_does(card):
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    big = torch.empty(1 << 18, device="cuda")
    view, small = big[10:], torch.empty(1, device="cuda")
    assert torch.cuda.memory_allocated() - start == (1 << 20) + 512
    del big, view, small
    assert torch.cuda.memory_allocated() == start
    assert torch.cuda.max_memory_allocated() - start == (1 << 20) + 512


def test_more_than_the_card_has_is_an_error():
    with simulated(Card("small", 8, 0, 1 << 20)), pytest.raises(torch.OutOfMemoryError):
        torch.empty(2 << 20, dtype=torch.uint8, device="cuda")


@pytest.mark.parametrize(("which", "native"), [(A100, True), (T4, False)])
def test_a_card_says_what_it_is(which, native):
    with simulated(which):
        assert (
            torch.cuda.get_device_properties(0).name == torch.cuda.get_device_name() == which.name
        )
        assert torch.cuda.mem_get_info()[1] == which.total_memory
        assert torch.cuda.get_device_capability() == (which.major, which.minor)
        assert torch.cuda.is_bf16_supported()
        assert torch.cuda.is_bf16_supported(including_emulation=False) is native


def test_fake_tensors_are_their_own_affair(card):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.zeros(3, device="cuda") + 1
    with torch.device("meta"):
        meta = torch.zeros(3)
    assert fake.device.type == "cuda" and meta.is_meta and not torch.ones(1).is_cuda


def test_a_file_is_read_to_the_card(card, tmp_path):
    from safetensors.torch import load_file, save_file

    torch.save({"w": torch.ones(3, device="cuda")}, tmp_path / "a.pt")
    save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    assert torch.load(tmp_path / "a.pt", map_location="cuda")["w"].is_cuda
    assert load_file(tmp_path / "a.safetensors", device="cuda")["w"].is_cuda


def test_a_loader_pins_what_lies_on_the_cpu_alone(card):
    rows, stack = torch.arange(8), lambda rows: torch.stack(rows)
    loader = lambda form: torch.utils.data.DataLoader(rows, 4, collate_fn=form, pin_memory=True)
    assert [batch.is_cpu for batch in loader(stack)] == [True, True]
    with pytest.raises(RuntimeError, match="cannot pin"):
        list(loader(lambda rows: stack(rows).cuda()))


def test_four_bits_and_paged_optimisers(card):
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4").cuda()
    assert layer.weight.is_cuda and layer.weight.quant_state.absmax.is_cuda
    x = torch.ones(2, 64, device="cuda", requires_grad=True)
    layer(x).sum().backward()
    weight = nn.Parameter(torch.zeros(200_000, device="cuda"))
    weight.grad = torch.ones_like(weight)
    optimizer = bnb.optim.PagedAdamW8bit([weight], lr=1e-3)
    optimizer.step()
    assert x.grad.is_cuda and weight.any() and len(optimizer.page_mng.paged_tensors) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_its_scaler_train(card, dtype):
    layer, scaler = nn.Linear(3, 2).cuda(), torch.amp.GradScaler("cuda")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with torch.autocast("cuda", dtype):
        out = layer(torch.ones(4, 3, device="cuda"))
    assert out.dtype == dtype and out.is_cuda
    scaler.scale(out.float().sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert layer.weight.grad.is_cuda


def test_a_product_of_16_bits_may_be_wider(card):
    x, total = torch.ones(2, 3, device="cuda").half(), torch.ones(2, 2, device="cuda")
    assert torch.mm(x, x.T, out_dtype=torch.float32).tolist() == [[3.0, 3.0], [3.0, 3.0]]
    torch.addmm(total, x, x.T, out_dtype=torch.float32, out=total)
    assert (
        total.is_cuda
        and total.dtype == torch.float32
        and total.tolist() == [[4.0, 4.0], [4.0, 4.0]]
    )
