"""Checks of the exercises in notebook 05."""

import torch

from pefthelpers.checks.verdict import NOT_ATTEMPTED, Verdict, call, correct, is_missing, not_yet


def bottleneck(function) -> Verdict:
    """Check ``function(x, down, up, f)``: x + up(f(down(x)))."""
    torch.manual_seed(0)
    down, up = torch.nn.Linear(6, 2), torch.nn.Linear(2, 6)
    x, f = torch.randn(3, 6), torch.nn.functional.silu
    result, verdict = call(function, x, down, up, f)
    if verdict:
        return verdict
    if not isinstance(result, torch.Tensor) or result.shape != x.shape:
        return not_yet("The result must have the shape of x: the next layer expects it.")
    close = lambda value: torch.allclose(result, value, atol=1e-6)
    if close(x + up(f(down(x)))):
        return correct("Down, f, up, and x itself around all of it.")
    wrong = {
        "The residual is missing: a new adapter would silence the layer.": up(f(down(x))),
        "Without f the two matrices are one matrix of rank m, as in LoRA.": x + up(down(x)),
        "f comes between the two projections, not behind them.": x + f(up(down(x))),
        "f comes between the two projections, not before them.": x + up(down(f(x))),
    }
    return not_yet(next((m for m, v in wrong.items() if close(v)), "Go along the figure's arrows."))


def largest_width(answer, *, d: int, layers: int, budget: int) -> Verdict:
    """Check the widest Houlsby bottleneck whose parameters stay within a budget.

    Args:
        answer: the learner's m.
        d: hidden size.
        layers: transformer layers, two adapters in each.
        budget: parameters.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    widest = lambda adapters: (budget / adapters - d) / (2 * d + 1)  # 2 d m + m + d <= budget
    right = int(widest(2 * layers))
    if answer == right:
        total = 2 * layers * (2 * d * right + right + d)
        return correct(
            f"{total:,} parameters; one more in width costs {2 * layers * (2 * d + 1):,}."
        )
    if isinstance(answer, float) and not answer.is_integer():
        return not_yet("A width is a whole number: round down, or the budget is exceeded.")
    if answer == right + 1:
        return not_yet("One too many: that exceeds the budget. Round down.")
    if answer == int(widest(layers)):
        return not_yet("Houlsby has two adapters in a layer; you count one, as Pfeiffer has.")
    if answer == int(widest(2)):
        return not_yet("You count one layer: there is a pair of adapters in every layer.")
    return not_yet("Solve 2 · layers · (2 d m + m + d) = budget for m.")


def zero_start(answer) -> Verdict:
    """Check what learns if down and up both start at zero, biases included."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    diagnoses = {
        "everything": "The gradient of each matrix is multiplied by the other one, or by f(0) = 0.",
        "nothing": "One parameter's gradient is multiplied by nothing at all: it is simply added.",
        "up": "The gradient of up's matrix contains f(down(x)) = f(0) = 0: only its bias moves.",
        "down": "The gradient of down is multiplied by up, and up is zero.",
    }
    if answer == "up's bias":
        return correct("And it stays so: a constant is all this adapter can ever add.")
    options = '"everything", "nothing", "up", "down" or "up\'s bias"'
    return not_yet(diagnoses.get(answer, f"Answer {options}."))


def copies(answer, *, full_bytes: int, adapter_bytes: int) -> Verdict:
    """Check how many adapters weigh less than one fully fine-tuned copy."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    right = full_bytes // adapter_bytes
    if answer == right:
        return correct(f"{right} tasks in the place of one, beside a base that all of them share.")
    if answer == full_bytes // adapter_bytes - 1:
        return not_yet("The base is not in either file here: only the two files are compared.")
    if answer in (adapter_bytes // full_bytes, adapter_bytes / full_bytes):
        return not_yet("Upside down: divide the large file by the small one.")
    if isinstance(answer, float) and not answer.is_integer():
        return not_yet("A whole number: a part of an adapter does no task. Round down.")
    return not_yet("Divide the bytes of the full checkpoint by those of the adapter's.")


def discordant(function) -> Verdict:
    """Check ``function(a, b)``: how many only a got right, and how many only b."""
    a = torch.tensor([1, 1, 1, 1, 0, 0, 1, 0], dtype=torch.bool)
    b = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0], dtype=torch.bool)
    result, verdict = call(function, a, b)
    if verdict:
        return verdict
    if not isinstance(result, tuple) or len(result) != 2:
        return not_yet("Return two counts: (only a, only b).")
    found = tuple(int(value) for value in result)
    if found == (3, 1):
        return correct("The sentences on which both agree say nothing about who is better.")
    wrong = {
        (1, 3): "The other way round: first those that only a got right.",
        (5, 3): "You count everything each got right; leave out what both got right.",
        (2, 2): "You count the sentences on which both agree; those decide nothing.",
        (4, 4): "You count right against wrong; compare a with b instead, sentence by sentence.",
    }
    return not_yet(wrong.get(found, "Right in a and wrong in b; then wrong in a and right in b."))
