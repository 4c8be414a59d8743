"""Answers to the exercises of notebook 09, right and plausibly wrong, as learners would hand them in."""

import torch
from torch.nn.functional import logsigmoid

from pefthelpers.checks import preference

CHECKS = {
    "with_margin": preference.with_margin,
    "dpo": preference.dpo,
    "leave_one_out": preference.leave_one_out,
    "whole_loss": preference.whole_loss,
    "gae": preference.gae,
}


def far(gap):
    """Return the mean loss of a gap."""
    return -logsigmoid(gap).mean()


def others(rewards, size):
    """Compare each reward with the mean of the others of its group."""
    table = rewards.view(-1, size)
    return (table - (table.sum(1, keepdim=True) - table) / (size - 1)).flatten()


def in_words(rewards, size):
    """Do the same without tensors, as a list."""
    found = []
    for start in range(0, len(rewards), size):
        group = [float(r) for r in rewards[start : start + size]]
        found += [r - (sum(group) - r) / (size - 1) for r in group]
    return found


def whole(pick=torch.min, kl=True, clip_it=True, by_answer=True, use_mask=True, turn=1):
    """Return GRPO's whole loss, with a mistake or without."""

    def loss(new, old, reference, advantages, mask, clip, beta):
        ratio, gain = (new - old).exp(), advantages[:, None]
        free, cut = ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain
        gap = turn * (reference - new)
        each = -(pick(free, cut) if clip_it else free) + kl * beta * (gap.exp() - gap - 1)
        if not use_mask:
            return each.mean()
        return ((each * mask).sum(1) / mask.sum(1)).mean() if by_answer else each[mask].mean()

    return loss


def credit(rewards, values, decay, following=True):
    """Sum up the surprises from the last token to the first."""
    found, ahead, after = [], 0.0, 0.0
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        ahead = reward + following * after - value + decay * ahead
        found, after = [ahead, *found], value
    return found


def taken_off_in_place(chosen, rejected, margin):
    """Change the scores that were given."""
    chosen -= margin
    return far(chosen - rejected)


def bare(new, old, reference, advantages, mask, clip, beta):
    """Forget the clip's lower side, the mask and the leash."""
    return -((new - old).exp() * advantages[:, None]).sum()


RIGHT = {
    "with_margin": [
        lambda c, r, m: far(c - r - m), lambda c, r, m: far(c - r - m).item(),
        lambda c, r, m: torch.log1p((r + m - c).exp()).mean(),
    ],
    "dpo": [
        lambda c, r, rc, rr, b: far(b * ((c - rc) - (r - rr))),
        lambda c, r, rc, rr, b: -torch.sigmoid(b * (c - r - rc + rr)).log().mean().item(),
    ],
    "leave_one_out": [others, in_words, lambda r, size: others(r, size).numpy()],
    "whole_loss": [whole(), lambda *a: whole()(*a).item()],
    "gae": [credit, lambda *a: torch.tensor(credit(*a))],
}  # fmt: skip

WRONG = {
    "with_margin": [
        (lambda c, r, m: far(c - r), "no margin"), (lambda c, r, m: far(c - r + m), "added"),
        (lambda c, r, m: far(r - c - m), "turned"), (lambda c, r, m: -far(c - r - m), "sign"),
        (lambda c, r, m: -logsigmoid(c - r - m).sum(), "summed"), (lambda c, r, m: 0.5, "else"),
        (lambda c, r, m: torch.sigmoid(c - r - m).mean(), "probability"),
        (lambda c, r, m: -logsigmoid(c - r - m), "each"), (taken_off_in_place, "changed"),
    ],
    "dpo": [
        (lambda c, r, rc, rr, b: far(b * (c - r)), "no reference"),
        (lambda c, r, rc, rr, b: far(b * ((r - rr) - (c - rc))), "turned"),
        (lambda c, r, rc, rr, b: far((c - rc) - (r - rr)), "no beta"),
        (lambda c, r, rc, rr, b: b * far((c - rc) - (r - rr)), "outside"),
        (lambda c, r, rc, rr, b: far(b * ((c - rr) - (r - rc))), "crossed"),
        (lambda c, r, rc, rr, b: -far(b * ((c - rc) - (r - rr))), "sign"),
        (lambda c, r, rc, rr, b: 0.693, "else"),
    ],
    "leave_one_out": [
        (lambda r, size: r - r.mean(), "all"), (lambda r, size: -others(r, size), "sign"),
        (lambda r, size: others(r, size).view(-1, size), "form"),
        (lambda r, size: (r.view(-1, size) - r.view(-1, size).mean(1, keepdim=True)).flatten(), "own mean"),
        (lambda r, size: (others(r, size).view(-1, size) / r.view(-1, size).std(1, keepdim=True)).flatten(), "divided"),
        (lambda r, size: torch.ones_like(r), "else"), (lambda r, size: r, "else"),
    ],
    "whole_loss": [
        (whole(kl=False), "no kl"), (whole(turn=-1), "turned"), (whole(clip_it=False), "no clip"),
        (whole(pick=torch.max), "largest"), (whole(by_answer=False), "tokens"),
        (whole(use_mask=False), "padding"), (whole(pick=lambda free, cut: cut), "always"),
        (bare, "else"),
    ],
    "gae": [
        (lambda r, v, d: credit(r, v, 0.0), "one step"), (lambda r, v, d: credit(r, v, 1.0), "no decay"),
        (lambda r, v, d: credit(r, v, d)[::-1], "backwards"),
        (lambda r, v, d: credit(r, v, d, following=False), "no next"),
        (lambda r, v, d: [a + b for a, b in zip(credit(r, v, d), v, strict=True)], "returns"),
        (lambda r, v, d: [0.0] * len(r), "else"), (lambda r, v, d: r, "else"),
    ],
}  # fmt: skip
