"""Checks of the exercises in notebook 06."""

import torch

from pefthelpers.checks.verdict import Verdict, tried
from pefthelpers.checks.verdict import check as __getattr__


def quantise_block(function) -> Verdict:
    """Check ``function(w, levels)``: a block's packed codes, (n / 2,), and its constant."""

    def restored(pair, levels):
        packed = torch.as_tensor(pair[0])
        whole = packed.long()  # beyond a byte a code has no level: raises
        codes = torch.stack([whole >> 4, whole & 15], dim=1).flatten()
        assert not packed.is_floating_point()
        return levels[codes] * torch.as_tensor(pair[1])

    return tried("quantise_block", function, restored=restored)
