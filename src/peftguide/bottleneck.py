"""Bottleneck adapters in plain torch, since peft has none: a recipe carries what stands below.

It computes what ``peftbottleneck`` computes (a test compares the two). The script that carries it
sets ``PLACEMENT``, ``REDUCTION`` and ``SITES``.
"""

import re

import torch

PLACEMENT, REDUCTION, SITES = "houlsby", 64, ""


class Bottleneck(torch.nn.Module):
    """What an adapter adds: ``up(f(down(x)))``. ``up`` starts at zero: nothing changes at first."""

    def __init__(self, width):
        """Make both projections: ``width`` features to ``width / REDUCTION``, and back."""
        super().__init__()
        inner = max(1, width // REDUCTION)
        self.down, self.up = torch.nn.Linear(width, inner), torch.nn.Linear(inner, width)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(zero)

    def forward(self, x):
        """Return what is added to ``x``, shape (..., width), in its dtype."""
        active = torch.nn.functional.silu if PLACEMENT == "houlsby" else torch.relu
        return self.up(active(self.down(x.to(self.down.weight.dtype)))).to(x.dtype)


def hook(adapter, module):
    """Add an adapter to a module's output; to a norm's input, where a block ends in a norm."""

    def before(norm, given):
        return (given[0] + adapter(norm.forward(given[0])),)

    def after(module, given, out):
        whole = isinstance(out, tuple)
        first = out[0] + adapter(out[0]) if whole else out + adapter(out)
        return (first, *out[1:]) if whole else first

    if "Norm" in type(module).__name__:
        module.register_forward_pre_hook(before)
    else:
        module.register_forward_hook(after)


def insert(model):
    """Freeze a model but a classifier's new head, and give each module that SITES names an adapter."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("classifier.", "pre_classifier.", "score."))
    sites = [module for name, module in model.named_modules() if re.fullmatch(SITES, name)]
    if not sites:
        raise SystemExit(f"No module of {type(model).__name__} is named as SITES says: change it.")
    width = model.config.get_text_config().hidden_size
    model.bottlenecks = torch.nn.ModuleList(Bottleneck(width) for _ in sites).to(model.device)
    for adapter, module in zip(model.bottlenecks, sites, strict=True):
        hook(adapter, module)
    return model


def saved(model):
    """Return what is trained, by name: the adapters and the head."""
    return {
        name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad
    }
