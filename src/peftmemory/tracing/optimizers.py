"""The optimiser of a traced step: AdamW as it runs on a GPU, and bitsandbytes' without values."""

from collections.abc import Iterable

import torch

from peftmemory.constants import ADAM_BLOCK, ADAM_SMALLEST, BYTE_CODES


class FakeAdamW8bit(torch.optim.Optimizer):
    """bitsandbytes' ``AdamW8bit`` without values: the same states, no arithmetic.

    The real one calls its kernels by address, which fake tensors do not have.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], *, lr: float = 1e-4):
        """Hold the parameters; the states are made at the first step."""
        super().__init__(params, {"lr": lr})
        self.maps: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self, closure=None):
        """Create the states of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = self._states(parameter)

    def _states(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        if parameter.numel() < ADAM_SMALLEST:
            return {f"state{n}": torch.zeros_like(parameter, dtype=torch.float32) for n in (1, 2)}
        if not self.maps:  # two tables, shared by all parameters
            self.maps = [parameter.new_zeros(BYTE_CODES, dtype=torch.float32) for _ in range(2)]
        blocks = -(-parameter.numel() // ADAM_BLOCK)
        states: dict[str, torch.Tensor] = {}
        for number, table in enumerate(self.maps, start=1):
            states[f"state{number}"] = torch.zeros_like(parameter, dtype=torch.uint8)
            states[f"absmax{number}"] = parameter.new_zeros(blocks, dtype=torch.float32)
            states[f"qmap{number}"] = table
        return states


def build_optimizer(name: str, params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return an optimiser by the Trainer's name.

    ``torch.optim.AdamW`` picks its foreach implementation on a GPU and a plain loop on a CPU;
    a trace on a CPU has to ask for the GPU's.
    """
    if name == "adamw_8bit":
        return FakeAdamW8bit(params)
    if name == "adamw_torch_fused":
        return torch.optim.AdamW(params, lr=1e-4, fused=True)
    return torch.optim.AdamW(params, lr=1e-4, foreach=True)
