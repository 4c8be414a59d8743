"""What a notebook's tests and its companion's share, and the table of the runs on the simulated card."""

import copy

import pytest
import torch

ROWS = pytest.StashKey[dict]()


@pytest.fixture(params=["random", "heavy-tailed", "kitchen"])
def matrix(request):
    """Return a weight matrix, (d_out, d_in)."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(320, 192, generator=generator)
    if request.param == "heavy-tailed":
        return random.pow(3)
    if request.param == "kitchen":
        from pefthelpers import models

        return models.load("decoder")[0].model.layers[1].mlp.up_proj.weight.detach()
    return random


@pytest.fixture
def wrapped():
    """Return a function: a PEFT model with a prefix or prompt, its virtual numbers, a batch of two rows."""

    def wrap(model, config):
        from peft import get_peft_model

        torch.manual_seed(3)
        model = get_peft_model(copy.deepcopy(model), config).eval()
        numbers = model.prompt_encoder["default"].embedding.weight.detach()
        return model, numbers, torch.arange(3, 17).reshape(2, 7)

    return wrap


def pytest_terminal_summary(terminalreporter, config):
    """Show notebook by scenario: cells that failed, bases alive, the card's peak."""
    if rows := config.stash.get(ROWS, {}):
        terminalreporter.section(
            "notebooks on a machine with a GPU (simulated, training shortened)"
        )
    for (stem, profile), found in sorted(rows.items()):
        failed = ", ".join(cell["cell"] for cell in found["failed"]) or "no cell failed"
        terminalreporter.line(
            f"{stem:26} {profile:5} {failed}; {len(found['misplaced'])} models misplaced; "
            f"{found['bases']} bases alive after {found['bases_after']}; "
            f"{found['card_bytes'] / 2**20:.0f} MiB on the card; {found['seconds']:.0f} s"
        )
