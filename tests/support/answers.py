"""Answers to the exercises, right and plausibly wrong, as learners would hand them in."""

import copy
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from pefthelpers.checks import (
    adapters,
    comparison,
    lora,
    memory,
    merge,
    prefix,
    qlora,
    scaling,
    speed,
    start,
    variants,
)
from peftmemory import load_config
from support import answers_preference

LLAMA = load_config("llama-3.1-8b")
MIB = 8 * 100 * 2 * LLAMA.layers * LLAMA.kv_dim * 2 / 2**20
PEAKS = {
    "rank 4": 29.0,
    "8-bit AdamW": 30.0,
    "the chunked loss": 28.5,
    "gradient checkpointing": 14.4,
}
NOISE = 2**-7 / (2 * 7**0.5)
GIB = (7 * 10**9 * 4.127 / 8 + 2 * 10**9) / 2**30
SCORES = [0.79, 0.80, 0.84]
DEVIATION = np.std(SCORES, ddof=1)
cat = torch.cat


class LoRALinear(nn.Module):
    """As in notebook 02 (a test runs this check with the notebook's own class)."""

    def __init__(self, linear, *, r, alpha):
        """Freeze the layer, add the factors."""
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(r, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, r))
        self.scale = alpha / r

    def forward(self, x):
        """Add the correction."""
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)


def added_up(W, dW, n, dtype=torch.float32):
    """Add dW in n parts, and keep the sum in a dtype."""
    for _ in range(n):
        W = (W.float() + dW / n).to(dtype)
    return W


def trained_numbers(width=None, vectors=1, bias=1, kinds=2, layers=None):
    """Count what a prefix's projection trains; each argument makes a mistake."""

    def count(n, L, hidden, heads, kv_heads, h):
        d, m = width(hidden, heads) if width else hidden // heads * kv_heads, layers or L
        return vectors * n * d + d * h + bias * h + (h + bias) * kinds * m * d

    return count


CHECKS = {
    "first_try": start.first_try,
    "model_states": lambda a: memory.model_states(a, parameters=2**30),
    "checkpointed": memory.checkpointed,
    "lora_kept": memory.lora_kept,
    "what_helps": lambda a: memory.what_helps(a, peaks_gib=PEAKS, card_gib=23),
    "largest_rank": lambda a: lora.largest_rank(a, shapes=[(192, 512)] * 2, budget_bytes=2**16),
    "lowest": lambda f: lora.lowest(f, score=SCORED.get, rates=[*SCORED]),
    "labels": lora.labels,
    "replaced": lambda f: lora.replaced(f, layer=LoRALinear),
    "merged_weight": merge.merged_weight,
    "smallest_ratio": lambda a: merge.smallest_ratio(a, share=0.01),
    "route": lambda f: merge.route(
        f, distances={"dequantised": 1e-6, "original": 0.2, "re-quantised": 0.3}
    ),
    "concatenated": merge.concatenated,
    "nightly": merge.nightly,
    "customers": lambda a: merge.customers(
        a, base_bytes=1000, adapter_bytes=100, budget_bytes=10_000
    ),
    "cache_mib": lambda a: prefix.cache_mib(a, config=LLAMA, tokens=100, batch=8),
    "without_prefix": prefix.without_prefix,
    "answer_logits": prefix.answer_logits,
    "may_look": prefix.may_look,
    "projection": prefix.projection,
    "bottleneck": adapters.bottleneck,
    "largest_width": lambda a: adapters.largest_width(a, d=768, layers=12, budget=1_250_000),
    "zero_start": adapters.zero_start,
    "copies": lambda a: adapters.copies(a, full_bytes=1000, adapter_bytes=9),
    "discordant": adapters.discordant,
    "bits": qlora.bits,
    "quantise_block": qlora.quantise_block,
    "weights_gib": lambda a: qlora.weights_gib(a, linear=7 * 10**9, rest=10**9, bits=4.127),
    "input_gradient": qlora.input_gradient,
    "adam_bytes": qlora.adam_bytes,
    "rate": comparison.rate,
    "half_width": lambda a: comparison.half_width(a, values=SCORES),
    "sentence": lambda a: comparison.sentence(a, low=-0.1, high=0.2),
    "facts_at": comparison.facts_at,
    "ring_bytes": scaling.ring_bytes,
    "held_bytes": scaling.held_bytes,
    "combined": scaling.combined,
    "rows_of": scaling.rows_of,
    "newest": scaling.newest,
    "pissa_init": variants.pissa_init,
    "dora_forward": variants.dora_forward,
    "plus_groups": variants.plus_groups,
    "flat_scale": variants.flat_scale,
    "padding_share": speed.padding_share,
    "grouped_batches": speed.grouped_batches,
    "best_fit": speed.best_fit,
    "packed_mask": speed.packed_mask,
    "label_log_probs": speed.label_log_probs,
}
SCORED = {
    2e-3: {"validation": 1.0, "other texts": 0.82},
    1e-3: {"validation": 0.98, "other texts": 0.62},
    5e-4: {"validation": 0.65, "other texts": 0.62},
}


def kinds(value):
    """Return a number in every type that a learner may compute it with."""
    whole = value == int(value)
    counts = [int(value), np.int64(value), torch.tensor(int(value))] if whole else []
    return [
        float(value), np.float32(value), np.float64(value), np.array(float(value)),
        np.array([float(value)]), torch.tensor(float(value)), torch.tensor([float(value)]),
        torch.tensor(float(value), requires_grad=True), Fraction(value), Decimal(value), *counts,
    ]  # fmt: skip


FIRST = ["prompt", "retrieval", "fine-tuning", "fine-tuning"]


# Exercise 3 of 01.


def lora_kept(c, batch, seq, r, *, copies=2, width=4, inner=True, norms=2, inputs=True, first=True):
    """Count what full fine-tuning keeps, change what LoRA on q and v changes."""
    h, layers, n = c.hidden_size, c.num_hidden_layers, batch * seq
    q, kv, i = h, c.num_key_value_heads * c.head_dim, c.intermediate_size
    norm = 4 * h + 4 + (2 - norms) * h
    linear = (4 * h + 2 * i) * (not inputs)
    attention = 2 * q + 4 * kv + 2 * q + 4 * c.num_attention_heads
    adapter = copies * (width * h + (4 * r if inner else 0))
    per_layer = 2 * norm + linear + attention + 6 * i + adapter
    head = norm + 2 * h * (not inputs) + 4 * c.vocab_size + 8
    total = n * (layers * per_layer + head - first * (4 * h + 4))
    return total + 4 * seq * c.head_dim + 8 * (batch == 1) + 4


def changed(**options):
    """Return the count with a mistake in it."""
    return lambda c, batch, seq, r: lora_kept(c, batch, seq, r, **options)


# Exercise 2 of 02.


def lowest(pick=min, column="validation", solves=float.__ge__, keeps=float.__lt__):
    """Return a choice of a rate."""

    def choose(score, rates, solved, limit):
        rows = {rate: score(rate) for rate in rates}
        fit = [
            rate
            for rate, row in rows.items()
            if solves(row[column], float(solved)) and keeps(row["other texts"], limit)
        ]
        return pick(fit)

    return choose


ANY = lambda value, bound: True
first = lambda fit: fit[0]


# Exercise 3 of 02.


def row(end=True, prompt=False, padding=False, front=False):
    """Return a function that makes labels, with a mistake or without."""

    def labels(p, a, length, pad):
        masked = p if prompt else [-100] * len(p)
        answer = a if end else a[:-1] + [-100]
        rest = [pad if padding else -100] * (length - len(p + a))
        return rest + masked + answer if front else masked + answer + rest

    return labels


def filled_in_place(prompt, answer, length, pad):
    """Change the answer that was given."""
    answer += [-100] * (length - len(prompt) - len(answer))
    return [-100] * len(prompt) + answer


# Exercise 4 of 02.


def replaced(*, skip=("lm_head",), freeze=True, late=False, alpha_of=None, r_of=None, only=""):
    """Return a function that puts LoRA layers into a model, with a mistake or without."""

    def replace(model, r, alpha):
        if freeze and not late:
            model.requires_grad_(False)
        for name, module in [*model.named_modules()]:
            if isinstance(module, nn.Linear) and name not in skip and only in name:
                parent, _, child = name.rpartition(".")
                size = {"r": r_of or r, "alpha": alpha_of(r, alpha) if alpha_of else alpha}
                setattr(model.get_submodule(parent), child, LoRALinear(module, **size))
        return model.requires_grad_(False) if late else model

    return replace


def wrapped_twice(model, r, alpha):
    """Walk over what is being changed."""
    model = replaced()(model, r, alpha)
    for module in [*model.modules()]:
        if isinstance(module, LoRALinear):
            module.linear = LoRALinear(module.linear, r=r, alpha=alpha)
    return model


def spoiled(model, r, alpha):
    """Put new linear layers into the LoRA layers."""
    model = replaced()(model, r, alpha)
    for module in model.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.linear.weight)
    return model


# Exercise 3 of 03.


def route(aim="low", pick=min, within=True):
    """Return a choice of a route."""

    def choose(W, delta, quantise, allowed):
        low = quantise(W)
        merges = {"original": W + delta, "dequantised": low + delta}
        merges["re-quantised"] = quantise(low + delta)
        target = {"low": low + delta, "W": W + delta, "base": low}[aim]
        names = allowed if within else merges
        return pick(names, key=lambda name: (merges[name] - target).norm())

    return choose


# Exercise 4 of 04.


def may_look(*, diagonal=0, pad="keys", causal=True, order="front", dtype=torch.bool):
    """Return a mask, with a mistake or without."""

    def mask(attention_mask, n):
        batch, seq = attention_mask.shape
        words = attention_mask.bool()
        part = torch.ones(batch, seq, seq, dtype=torch.bool)
        part = part.tril(diagonal) if causal else part
        if pad in ("keys", "both"):
            part = part & words[:, None]
        if pad in ("queries", "both"):
            part = part & words[:, :, None]
        ahead = torch.ones(batch, seq, n, dtype=torch.bool)
        parts = {"front": [ahead, part], "back": [part, ahead], "none": [part]}[order]
        return cat(parts, -1).to(dtype)

    return mask


def mask_in_loops(attention_mask, n):
    """Write the mask as nested lists."""
    seq = attention_mask.shape[1]
    return [
        [[True] * n + [j <= i and bool(words[j]) for j in range(seq)] for i in range(seq)]
        for words in attention_mask
    ]


# Exercise 2 of 06.


def quantised(*, scale=True, swap=False, halves=False, packs=True, constant=None, step="near"):
    """Return a function that quantises a block, with a mistake or without."""

    def quantise(w, levels):
        absmax = w.abs().max()
        scaled = w / absmax.clamp(min=1e-38) if scale else w
        if step == "near":
            codes = (scaled[:, None] - levels).abs().argmin(1)
        else:
            below = torch.searchsorted(levels, scaled, right=True) - 1
            codes = below if step == "below" else torch.searchsorted(levels, scaled)
        codes = codes.clamp(0, 15)
        pairs = codes.view(2, -1) if halves else codes.view(-1, 2).T
        high, low = pairs.flip(0) if swap else pairs
        packed = (high << 4 | low).to(torch.uint8) if packs else codes
        return packed, absmax if constant is None else constant(w)

    return quantise


def near(runs, tie, *, pick=min, column="validation", seeds=(0,)):
    """Choose among the runs that tie."""
    runs = [run for run in runs if run["seed"] in seeds]
    bar = max(run[column] for run in runs) - tie
    return pick(run["learning_rate"] for run in runs if run[column] >= bar)


def sorted_in_place(runs, tie):
    """Choose rightly, and leave the runs sorted."""
    runs.sort(key=lambda run: run["learning_rate"])
    return near(runs, tie)


def between(pick):
    """Return a reading of a path, from the two points beside the target."""

    def read(path, target):
        at = next(i for i, point in enumerate(path) if point[0] >= target)
        return pick(path[at - 1], path[at], target)

    return read


def line(one, other, target):
    """Read the straight line."""
    return one[1] + (target - one[0]) / (other[0] - one[0]) * (other[1] - one[1])


def prefix_share(w, v):
    """Return the part of the prefix, and its share."""
    return w[:, : len(v)] @ v, w[:, : len(v)].sum(-1, keepdim=True)


# Exercises 3 and 5 of 10b.


def weighted_mean(means, tokens):
    """Return the gradient of the mean over all tokens."""
    return sum(m * t for m, t in zip(means, tokens, strict=True)) / sum(tokens)


def weighted_in_place(means, tokens):
    """Return it, and spoil what was given."""
    found = weighted_mean(means, tokens)
    means[0].zero_()
    return found


def steps_of(names):
    """Return the steps of whole checkpoints, as listed."""
    return [int(n[5:]) for n in names if n.startswith("step-") and n[5:].isdigit()]


# Exercises of 08.


def pissa(*, scaled=True, first=True, residual=True, even=True, turned=False):
    """Return PiSSA's start, changed where asked."""

    def split(W, r, scale):
        U, S, V = torch.linalg.svd(W, full_matrices=False)
        pick = slice(None, r) if first else slice(len(S) - r, None)
        values = S[pick] / (scale if scaled else 1)
        left = values.sqrt() if even else torch.ones(r)
        A, B = (values / left)[:, None] * V[pick], U[:, pick] * left
        kept = W - scale * B @ A if residual else W
        return (B, A, kept) if turned else (A, B, kept)

    return split


def plus(*, rule=lambda name, p: "lora_B" in name, frozen=False, times=True):
    """Return LoRA+'s groups, by another rule where asked."""

    def groups(named, rate, ratio):
        kept = [(name, p) for name, p in named if frozen or p.requires_grad]
        fast = [p for name, p in kept if rule(name, p)]
        slow = [p for name, p in kept if not rule(name, p)]
        return [
            {"params": slow, "lr": rate if times else rate / ratio},
            {"params": fast, "lr": rate * ratio if times else rate},
        ]

    return groups


def unit(V):
    """Return rows of length one."""
    return V / V.norm(dim=1, keepdim=True)


def cut(order, size):
    """Cut a list into pieces."""
    return [order[i : i + size] for i in range(0, len(order), size)]


def padding_share(lengths, size, whole=False, last=False):
    """Return the share of padding, with a mistake or without."""
    wide = [max(lengths) if whole else max(batch) for batch in cut(lengths, size)]
    high = [size if last else len(batch) for batch in cut(lengths, size)]
    return 1 - sum(lengths) / sum(w * h for w, h in zip(wide, high, strict=True))


def by_length(lengths, *, up=False):
    """Return positions, the longest first, or last."""
    return sorted(range(len(lengths)), key=lambda i: lengths[i] if up else -lengths[i])


def fitted(choose, order=by_length):
    """Return a packing function that chooses among (tokens, row) of the rows with room."""

    def rows_of(lengths, room):
        rows, used = [], []
        for i in order(lengths):
            fits = [(used[r], r) for r in range(len(rows)) if used[r] + lengths[i] <= room]
            r = choose(fits)[1] if fits else len(rows)
            rows, used = (rows, used) if fits else ([*rows, []], [*used, 0])
            rows[r].append(i)
            used[r] += lengths[i]
        return rows

    return rows_of


fullest = fitted(lambda fits: max(fits, key=lambda fit: fit[0]))


def packed_mask(lengths):
    """Return the mask of a packed row."""
    return torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)).bool()


def pieces(hidden, weight, labels, size):
    """Return log-probabilities, made in pieces."""
    found = []
    for h, y in zip(hidden.split(size), labels.split(size), strict=True):
        found.append(torch.log_softmax(h @ weight.T, -1).gather(1, y[:, None])[:, 0])
    return cat(found)


def at_once(hidden, weight, labels, size):
    """Return log-probabilities, all logits at once."""
    return pieces(hidden, weight, labels, len(labels))


RIGHT = {
    "first_try": [FIRST, tuple(FIRST), np.array(FIRST), [word.title() for word in FIRST]],
    "model_states": kinds(18),
    "checkpointed": [
        lambda h, n, b, t: 2 * h * n * b * t,
        lambda h, layers, batch, seq: torch.zeros(layers, batch, seq, h, dtype=torch.bfloat16).nbytes,
        lambda *sizes: 2.0 * math.prod(sizes),
        lambda *sizes: np.prod(sizes) * 2,
        lambda *sizes: torch.tensor([2 * math.prod(sizes)]),
    ],
    "lora_kept": [
        lora_kept,
        lambda *a: float(lora_kept(*a)),
        lambda *a: torch.tensor(lora_kept(*a)),
        lambda *a: np.int64(lora_kept(*a)),
    ],
    "what_helps": ["gradient checkpointing", " Gradient checkpointing"],
    "largest_rank": kinds(11),
    "lowest": [
        lowest(),
        lambda score, rates, solved, limit: np.float64(lowest()(score, rates, solved, limit)),
        lambda score, rates, solved, limit: next(
            rate for rate in sorted(rates)
            if score(rate)["validation"] >= solved and score(rate)["other texts"] < limit
        ),
    ],
    "labels": [
        row(), lambda *a: torch.tensor(row()(*a)), lambda *a: np.array(row()(*a)),
        lambda *a: tuple(row()(*a)), lambda *a: iter(row()(*a)),
    ],
    "replaced": [replaced(), lambda model, r, alpha: replaced()(copy.deepcopy(model), r, alpha)],
    "merged_weight": [
        lambda W, A, B, alpha, r: W + alpha / r * B @ A,
        lambda W, A, B, alpha, r: W + (B * alpha / r) @ A,
        lambda W, A, B, alpha, r: (W.double() + alpha / r * B.double() @ A.double()),
        lambda W, A, B, alpha, r: (W + alpha / r * B @ A).numpy(),
        lambda W, A, B, alpha, r: (W + alpha / r * B @ A).tolist(),
        lambda W, A, B, alpha, r: W.clone().addmm_(B, A, alpha=alpha / r),
    ],
    "smallest_ratio": [*kinds(NOISE / 0.01), 0.148],
    "route": [
        route(),
        lambda W, delta, quantise, allowed: (
            "dequantised" if "dequantised" in allowed else route()(W, delta, quantise, allowed)
        ),
        lambda *a: route()(*a).upper(),
    ],
    "concatenated": [
        lambda A1, B1, A2, B2, w1, w2: (cat([w1 * A1, w2 * A2]), cat([B1, B2], 1)),
        lambda A1, B1, A2, B2, w1, w2: (cat([A1, A2]), cat([w1 * B1, w2 * B2], 1)),
        lambda A1, B1, A2, B2, w1, w2: [cat([A2, A1]), cat([w2 * B2, w1 * B1], 1)],
        lambda A1, B1, A2, B2, w1, w2: (
            np.concatenate([w1 * A1, w2 * A2]), np.concatenate([B1, B2], 1),
        ),
    ],
    "nightly": [
        lambda W, dW, n: added_up(W, dW, n).bfloat16(),
        lambda W, dW, n: (W.double() + dW.double()).bfloat16(),
        lambda W, dW, n: W.add_(dW).to(torch.bfloat16),
    ],
    "customers": kinds(90),
    "cache_mib": [*kinds(MIB), MIB * 1.001],
    "without_prefix": [
        lambda out, w, v: (out - prefix_share(w, v)[0]) / (1 - prefix_share(w, v)[1]),
        lambda out, w, v: (out - prefix_share(w, v)[0]) / w[:, len(v) :].sum(-1, keepdim=True),
        lambda out, w, v: (
            (out - prefix_share(w, v)[0]).double() / (1 - prefix_share(w, v)[1]).double()
        ).numpy(),
    ],
    "answer_logits": [
        lambda x, n, p, a: x[n + p - 1 : n + p + a - 1],
        lambda x, n, p, a: x[n:][p - 1 :][:a].double(),
        lambda x, n, p, a: x[-a - 1 : -1],
        lambda x, n, p, a: [*x[-a - 1 : -1]],
        lambda x, n, p, a: x[-a - 1 : -1].numpy(),
        lambda x, n, p, a: (x[i] for i in range(n + p - 1, n + p + a - 1)),
    ],
    "may_look": [
        may_look(), may_look(dtype=torch.float32), may_look(dtype=torch.int64), mask_in_loops,
        lambda m, n: may_look()(m, n)[:, None], lambda m, n: may_look()(m, n).numpy(),
    ],
    "projection": [
        trained_numbers(), lambda *a: float(trained_numbers()(*a)),
        lambda n, L, width, heads, kv_heads, h: (
            (n + h + 2 * L * h + 2 * L) * torch.tensor(width * kv_heads // heads) + h
        ),
    ],
    "bottleneck": [
        lambda x, down, up, f: x + up(f(down(x))),
        lambda x, down, up, f: x + f(x @ down.weight.T + down.bias) @ up.weight.T + up.bias,
        lambda x, down, up, f: x.add_(up(f(down(x)))),
    ],
    "largest_width": kinds(33),
    "zero_start": ["up's bias", "Up's bias "],
    "copies": kinds(111),
    "discordant": [
        lambda a, b: ((a & ~b).sum(), (~a & b).sum()),
        lambda a, b: [int((a & ~b).sum()), int((~a & b).sum())],
        lambda a, b: torch.stack([(a & ~b).sum(), (~a & b).sum()]),
        lambda a, b: np.array([(a > b).sum(), (b > a).sum()]),
        lambda a, b: (float((a > b).sum()), float((b > a).sum())),
    ],
    "bits": [
        lambda b, g: 4 + (32 / b if g is None else 8 / b + 32 / (b * g)),
        lambda b, g: torch.tensor(4 + (32 / b if g is None else 8 / b + 32 / (b * g))),
        lambda b, g: Fraction(4 * b + (32 if g is None else 8), b) + (Fraction(32, b * g) if g else 0),
    ],
    "quantise_block": [
        quantised(),
        lambda w, levels: [*quantised()(w, levels)],
        lambda w, levels: (quantised()(w, levels)[0].tolist(), w.abs().max().item()),
        lambda w, levels: (quantised()(w, levels)[0].int(), w.abs().max()[None]),
        lambda w, levels: (quantised()(w, levels)[0].numpy(), w.abs().max().numpy()),
    ],
    "weights_gib": [*kinds(GIB), GIB * 1.001],
    "input_gradient": [
        lambda g, W: g @ W, lambda g, W: g.double() @ W.double(), lambda g, W: (W.T @ g.T).T,
        lambda g, W: (g @ W).tolist(), lambda g, W: nn.functional.linear(g, W.T),
    ],
    "adam_bytes": [
        lambda n: 8 * n if n < 4096 else 2 * (n + 4 * n // 256),
        lambda n: 8.0 * n if n < 4096 else 2 * n + 2 * 4 * n / 256,
        lambda n: torch.tensor(8 * n if n < 4096 else 2 * n + 8 * -(-n // 256)),
    ],
    "rate": [near, lambda runs, tie: np.float64(near(runs, tie)), lambda *a: torch.tensor(near(*a))],
    "half_width": [*kinds(4.303 * DEVIATION / 3**0.5), 0.0657],
    "sentence": ["not told apart", "Not told apart"],
    "facts_at": [
        between(line),
        lambda path, target: float(np.interp(target, *zip(*path, strict=True))),
        lambda path, target: np.interp(target, *zip(*path, strict=True)),
        lambda path, target: torch.tensor(between(line)(path, target)),
    ],
    "ring_bytes": [
        lambda size, ranks: 2 * (ranks - 1) / ranks * size,
        lambda size, ranks: 2 * (ranks - 1) * size // ranks,
        lambda size, ranks: torch.tensor(2.0 * size * (ranks - 1) / ranks),
        lambda size, ranks: Fraction(2 * size * (ranks - 1), ranks),
    ],
    "held_bytes": [
        lambda frozen, trained, devices: (2 * frozen + 16 * trained) / devices,
        lambda frozen, trained, devices: (2 * frozen + 16 * trained) // devices,
        lambda frozen, trained, devices: np.float64(2 * frozen + 16 * trained) / devices,
    ],
    "combined": [
        lambda means, tokens: weighted_mean(means, tokens),
        lambda means, tokens: weighted_mean(means, tokens).double(),
        lambda means, tokens: weighted_mean(means, tokens).tolist(),
        lambda means, tokens: weighted_mean(means, tokens).numpy(),
    ],
    "rows_of": [
        lambda rows, n, k: (min(rows, k * -(-rows // n)), min(rows, (k + 1) * -(-rows // n))),
        lambda rows, n, k: [min(rows, (k + j) * math.ceil(rows / n)) for j in (0, 1)],
        lambda rows, n, k: torch.tensor([min(rows, (k + j) * -(-rows // n)) for j in (0, 1)]),
    ],
    "newest": [
        lambda names: max(steps_of(names), default=0),
        lambda names: float(max([0, *steps_of(names)])),
        lambda names: np.int64(max([0, *steps_of(names)])),
    ],
    "padding_share": [
        padding_share, lambda l, n: np.float64(padding_share(l, n)),
        lambda l, n: torch.tensor(padding_share(l, n), dtype=torch.float64),
    ],
    "grouped_batches": [
        lambda l, n: cut(by_length(l), n), lambda l, n: cut(by_length(l), n)[::-1],
        lambda l, n: [tuple(batch) for batch in cut(by_length(l), n)],
    ],
    "best_fit": [fullest, lambda l, room: [tuple(row) for row in fullest(l, room)]],
    "packed_mask": [
        packed_mask, lambda l: packed_mask(l).float(), lambda l: packed_mask(l).numpy(),
        lambda l: packed_mask(l).tolist(),
    ],
    "label_log_probs": [pieces, lambda *a: pieces(*a).tolist(), lambda *a: pieces(*a[:3], 1)],
    "pissa_init": [
        pissa(),
        lambda *a: [*pissa()(*a)],
        lambda *a: tuple(each.numpy() for each in pissa()(*a)),
        lambda *a: tuple(each.double() for each in pissa()(*a)),
    ],
    "dora_forward": [
        lambda x, W, A, B, m, s: m * (x @ unit(W + s * B @ A).T),
        lambda x, W, A, B, m, s: x @ (m[:, None] * unit(W + s * B @ A)).T,
        lambda x, W, A, B, m, s: m / (W + s * B @ A).norm(dim=1) * (x @ W.T + s * (x @ A.T @ B.T)),
        lambda x, W, A, B, m, s: (m * (x @ unit(W + s * B @ A).T)).numpy(),
    ],
    "plus_groups": [
        plus(),
        lambda *a: tuple(plus()(*a)),
        lambda named, rate, ratio: [
            {"params": [p], "lr": ratio * rate if "lora_B" in name else rate}
            for name, p in named if p.requires_grad
        ],
    ],
    "flat_scale": [
        lambda alpha, r, optimizer: alpha / (r if optimizer == "AdamW" else r**0.5),
        lambda alpha, r, optimizer: torch.tensor(alpha / r ** (0.5 + 0.5 * (optimizer == "AdamW"))),
        lambda alpha, r, optimizer: np.float64(alpha / r ** (1.0 if "Adam" in optimizer else 0.5)),
    ],
}  # fmt: skip

WRONG = {
    "first_try": [
        (["fine-tuning", *FIRST[1:]], "tone"), ([FIRST[0], "fine-tuning", *FIRST[2:]], "prices"),
        ([*FIRST[:2], "prompt", FIRST[3]], "messages"), ([*FIRST[:3], "retrieval"], "notation"),
        (FIRST[:3], "else"), ("prompt", "else"), (set(FIRST), "else"), ([1, 2, 3, 3], "else"),
    ],
    "model_states": [
        (16, "backward"), (14, "no accumulation"), (12, "weights and states"), (8, "pure bf16"),
        (18 * 2**30 / 1e9, "gb"), (18 * 2**30, "bytes"), (20, "else"), (0, "else"), ("18", "no number"),
    ],
    "checkpointed": [
        (lambda h, n, b, t: 4 * h * n * b * t, "four bytes"),
        (lambda h, n, b, t: h * n * b * t, "elements"),
        (lambda h, n, b, t: 2 * h * b * t, "one layer"),
        (lambda h, n, b, t: 2 * h * n * t, "one sequence"),
        (lambda h, n, b, t: 2 * h * n * b, "one token"),
        (lambda h, n, b, t: 2 * h * n * b * t * t, "quadratic"),
        (lambda h, n, b, t: 2 * h * (n + 1) * b * t, "else"),
        (lambda h, n, b, t: 2 * 96 * 5 * 3 * 40, "else"),
        (lambda h, n, b, t: 2 * h * n * b * t / 2**30, "else"),
        (lambda h, n, b, t: h, "else"),
    ],
    "lora_kept": [
        (changed(copies=1), "half the adapters"), (changed(width=0), "no copies"), (changed(width=2), "half the copies"),
        (changed(inner=False), "no A x"), (changed(copies=0), "no adapters"),
        (changed(norms=0), "else"), (changed(inputs=False), "inputs"),
        (changed(first=False), "first norm"), (changed(copies=7), "else"),
        (changed(copies=0, norms=0, inputs=False, first=False), "nothing"),
        (lambda c, batch, seq, r: lora_kept(c, batch, seq, 8), "else"),
        (lambda c, batch, seq, r: lora_kept(c, batch, seq, r) + 1, "else"),
        (lambda c, batch, seq, r: lora_kept(c, batch, seq, r) / 2**20, "else"),
    ],
    "what_helps": [
        ("rank 4", "rank 4"), ("8-bit AdamW", "8-bit AdamW"), (14.4, "else"), (True, "else"),
        ("the chunked loss", "the chunked loss"), ("a bigger card", "else"), (["rank 4"], "else"),
    ],
    "largest_rank": [
        (46, "one byte"), (23, "two bytes"), (12, "one more"), (11.6, "fraction"), (10, "else"),
        (22, "else"), ("eleven", "no number"),
    ],
    "lowest": [
        (lambda score, rates, solved, limit: min(rates), "at all"),
        (lambda score, rates, solved, limit: 1e-3, "else"),
        (lowest(keeps=ANY), "forgets"), (lowest(solves=ANY), "unsolved"),
        (lowest(column="test"), "by test"), (lowest(pick=max), "highest"),
        (lowest(pick=first), "listed"), (lowest(solves=float.__gt__), "above"),
        (lowest(keeps=float.__le__), "limited"), (lowest(pick=lambda fit: fit), "no number"),
        (lambda score, rates, *_: max(rates, key=lambda r: score(r)["validation"]), "best"),
        (lambda score, rates, *_: min(rates, key=lambda r: score(r)["other texts"]), "keeps most"),
        (lambda score, rates, *a: score(lowest()(score, rates, *a)), "scores"),
    ],
    "labels": [
        (row(end=False), "no end"), (row(prompt=True), "question"), (row(padding=True), "padding"),
        (row(front=True), "front"), (filled_in_place, "changed"), (lambda *a: [1], "long"),
        (lambda *a: [-100, -100, -100, 8, 9, 2, -100, -100], "else"),
        (lambda *a: [float(x) + 0.5 for x in row()(*a)], "fractions"),
        (lambda *a: list(map(float, row()(*a))), "fractions"), (lambda *a: a[1], "long"),
        (lambda *a: [-100] * a[2], "else"), (lambda *a: 5, "else"),
    ],
    "replaced": [
        (lambda model, r, alpha: model, "none"), (replaced(skip=()), "head"),
        (replaced(only="self_attn"), "missing"), (replaced(freeze=False), "trained"),
        (replaced(late=True), "frozen"), (wrapped_twice, "nested"), (spoiled, "else"),
        (replaced(alpha_of=lambda r, alpha: r), "else"), (replaced(r_of=8), "size"),
        (replaced(alpha_of=lambda r, alpha: alpha * r), "else"),
        (lambda model, r, alpha: LoRALinear, "no model"),
        (lambda model, r, alpha: [*replaced()(model, r, alpha).modules()], "no model"),
    ],
    "merged_weight": [
        (lambda W, A, B, alpha, r: W + B @ A, "no scale"),
        (lambda W, A, B, alpha, r: W + alpha * B @ A, "alpha alone"),
        (lambda W, A, B, alpha, r: W + B @ A / r, "rank"),
        (lambda W, A, B, alpha, r: W + alpha // r * B @ A, "whole"),
        (lambda W, A, B, alpha, r: W + alpha / r**0.5 * B @ A, "root"),
        (lambda W, A, B, alpha, r: W + r / alpha * B @ A, "upside down"),
        (lambda W, A, B, alpha, r: alpha / r * B @ A, "alone"),
        (lambda W, A, B, alpha, r: W - alpha / r * B @ A, "sign"),
        (lambda W, A, B, alpha, r: W.add_(alpha / r * B @ A), "changed"),
        (lambda W, A, B, alpha, r: (B @ A).T, "form"),
        (lambda W, A, B, alpha, r: W + 2.5 * B @ A, "else"),
        (lambda W, A, B, alpha, r: W, "unmerged"), (lambda W, A, B, alpha, r: "W + BA", "form"),
        (lambda W, A, B, alpha, r: W + A @ B, ""),
    ],
    "smallest_ratio": [
        (2**-10 / (2 * 7**0.5) / 0.01, "float16"), (2**-7 / 0.01, "spacing"), (3.0, "else"),
        (2**-8 / 0.01, "largest"), (NOISE * 0.01, "multiplied"), (NOISE, "at one"),
        (0.01, "else"), ("small", "no number"), (-NOISE / 0.01, "else"),
    ],
    "route": [
        (lambda *a: "dequantised", "outside"), (lambda *a: "original", "else"),
        (lambda *a: "4-bit", "else"), (route(aim="W"), "aim"), (route(aim="base"), "no delta"),
        (route(pick=max), "farthest"), (route(within=False), "outside"),
        (lambda W, delta, quantise, allowed: allowed[0], "else"),
        (lambda W, delta, quantise, allowed: allowed, "else"),
        (lambda W, delta, quantise, allowed: quantise(W) + delta, "matrix"),
    ],
    "concatenated": [
        (lambda A1, B1, A2, B2, w1, w2: (A1 + A2, w1 * B1 + w2 * B2), "added"),
        (lambda A1, B1, A2, B2, w1, w2: (cat([w1 * A1, w2 * A2]), cat([w1 * B1, w2 * B2], 1)), "twice"),
        (lambda A1, B1, A2, B2, w1, w2: (cat([A1, A2]), cat([B1, B2], 1)), "unweighted"),
        (lambda A1, B1, A2, B2, w1, w2: (cat([w2 * A1, w1 * A2]), cat([B1, B2], 1)), "exchanged"),
        (lambda A1, B1, A2, B2, w1, w2: (cat([B1, B2], 1), cat([w1 * A1, w2 * A2])), "turned"),
        (lambda A1, B1, A2, B2, w1, w2: w1 * B1 @ A1 + w2 * B2 @ A2, "no pair"),
        (lambda A1, B1, A2, B2, w1, w2: (w1 * B1 @ A1 + w2 * B2 @ A2, torch.eye(5)), "size"),
        (lambda A1, B1, A2, B2, w1, w2: (torch.eye(6), w1 * B1 @ A1 + w2 * B2 @ A2), "size"),
        (lambda A1, B1, A2, B2, w1, w2: (w1 * A1, B1), "half"),
        (lambda A1, B1, A2, B2, w1, w2: (cat([A1, A2], 1), cat([B1, B2])), "form"),
        (lambda A1, B1, A2, B2, w1, w2: (A1, B2), "else"),
    ],
    "nightly": [
        (lambda W, dW, n: added_up(W, dW, n, torch.bfloat16), "each"),
        (added_up, "not rounded"), (lambda W, dW, n: W + dW, "not rounded"),
        (lambda W, dW, n: (W + dW / n).bfloat16(), "one part"), (lambda W, dW, n: W.bfloat16(), "base"),
        (lambda W, dW, n: (W + dW).half(), "half"), (lambda W, dW, n: (W - dW).bfloat16(), "else"),
        (lambda W, dW, n: [1, 2], "else"), (lambda W, dW, n: "bfloat16", "else"),
    ],
    "customers": [
        (100, "no base"), (10, "whole models"), (9, "base each"), (90.5, "fraction"), (42, "else"),
        (91, "else"), ("90", "no number"),
    ],
    "cache_mib": [
        (MIB / 8, "one row"), (MIB / 2, "one tensor"), (MIB * 2, "float32"), (MIB * 4, "query heads"),
        (MIB / 32, "one layer"), (MIB * 2**20 / 1e6, "mb"), (MIB * 2**20, "bytes"), (7, "else"),
        (MIB * 1.01, "else"), ("much", "no number"),
    ],
    "without_prefix": [
        (lambda out, w, v: out - prefix_share(w, v)[0], "not scaled"),
        (lambda out, w, v: out / (1 - prefix_share(w, v)[1]), "not subtracted"),
        (lambda out, w, v: out - v.mean(0), "unweighted"),
        (lambda out, w, v: (out - v.sum(0)) / (1 - prefix_share(w, v)[1]), "unweighted"),
        (lambda out, w, v: (out - prefix_share(w, v)[0]) / prefix_share(w, v)[1], "by share"),
        (lambda out, w, v: (out + prefix_share(w, v)[0]) / (1 - prefix_share(w, v)[1]), "added"),
        (lambda out, w, v: out, "untouched"), (lambda out, w, v: out[:2], "form"),
        (lambda out, w, v: torch.zeros_like(out), "else"), (lambda out, w, v: v @ out, ""),
    ],
    "answer_logits": [
        (lambda x, n, p, a: x[n + p : n + p + a], "too far"),
        (lambda x, n, p, a: x[p - 1 : p - 1 + a], "no virtual"),
        (lambda x, n, p, a: x[p : p + a], "both"), (lambda x, n, p, a: x[n + p - 1 :], "too many"),
        (lambda x, n, p, a: x[n + p - 2 : n + p + a - 2], "early"),
        (lambda x, n, p, a: x[-1:], "last"), (lambda x, n, p, a: x[6:8], "rows"),
        (lambda x, n, p, a: x[-a - 1 : -1].argmax(-1), "chosen"),
        (lambda x, n, p, a: x[-a - 1 : -1, :2], "columns"), (lambda x, n, p, a: x[n:], "rows"),
        (lambda x, n, p, a: cat([x[n + p - 1][None], x[:1].expand(a - 1, -1)]), "else"),
        (lambda x, n, p, a: x[n + p - 1].expand(a, -1), "else"), (lambda x, n, p, a: x[:a], "else"),
    ],
    "may_look": [
        (lambda m, n: ~may_look()(m, n), "inverted"), (may_look(pad="none"), "no padding"),
        (lambda m, n: may_look(dtype=torch.float32)(m, n).log(), "additive"),
        (may_look(causal=False), "future"), (may_look(diagonal=-1), "not itself"),
        (may_look(pad="queries"), "queries"), (may_look(pad="both"), "both"),
        (may_look(order="back"), "behind"), (may_look(order="none"), "no prefix"),
        (lambda m, n: may_look()(m, n) & m[:, :, None].bool(), "empty"),
        (lambda m, n: may_look()(m, n).tril(), "unshifted"), (may_look(diagonal=1), "else"),
        (lambda m, n: may_look(pad="none")(m, n)[0], "one row"),
        (lambda m, n: may_look()(m, n).mT, "form"), (lambda m, n: m, "form"),
        (lambda m, n: torch.ones_like(may_look()(m, n)), "else"),
    ],
    "projection": [
        (trained_numbers(lambda hidden, heads: hidden), "query heads"),
        (trained_numbers(lambda hidden, heads: hidden // heads), "one head"),
        (trained_numbers(vectors=0), "no vectors"), (trained_numbers(bias=0), "no biases"),
        (trained_numbers(kinds=1), "one tensor"), (trained_numbers(layers=1), "one layer"),
        (lambda n, L, width, heads, kv_heads, h: n * 2 * L * (width // heads * kv_heads), "prefix"),
        (lambda *a: 14_787_840, "else"), (lambda *a: str(trained_numbers()(*a)), "no number"),
    ],
    "bottleneck": [
        (lambda x, down, up, f: up(f(down(x))), "no residual"),
        (lambda x, down, up, f: x + up(down(x)), "no f"),
        (lambda x, down, up, f: x + f(up(down(x))), "f last"),
        (lambda x, down, up, f: x + up(down(f(x))), "f first"),
        (lambda x, down, up, f: f(x + up(down(x))), "f around"),
        (lambda x, down, up, f: f(x + up(f(down(x)))), "f twice"),
        (lambda x, down, up, f: x - up(f(down(x))), "sign"),
        (lambda x, down, up, f: down(x), "form"), (lambda x, down, up, f: x, "untouched"),
        (lambda x, down, up, f: x + 2 * up(f(down(x))), "else"), (lambda x, down, up, f: up(x), ""),
        (lambda x, down, up, f: x + up(nn.functional.silu(down(x))), "else"),
        (lambda x, down, up, f: [m.weight.data.zero_() for m in (down, up)] and x, "untouched"),
    ],
    "largest_width": [
        (34, "one more"), (67, "one a layer"), (406, "one layer"), (33.4, "fraction"), (48, "else"),
        (32, "else"), ("33", "no number"),
    ],
    "zero_start": [
        ("everything", "everything"), ("nothing", "nothing"), ("up", "up"), ("down", "down"),
        ("biases", "else"), (["up's bias"], "else"), (0, "else"),
    ],
    "copies": [
        (110, "with base"), (111.1, "fraction"), (0.009, "upside down"), (7, "else"), (0, "upside down"),
        (112, "else"), ("111", "no number"),
    ],
    "discordant": [
        (lambda a, b: ((~a & b).sum(), (a & ~b).sum()), "swapped"),
        (lambda a, b: (a.sum(), b.sum()), "each right"),
        (lambda a, b: ((a & b).sum(), (~a & ~b).sum()), "agreed"),
        (lambda a, b: ((a != b).sum(), (a == b).sum()), "against"),
        (lambda a, b: ((a > b).float().mean(), (b > a).float().mean()), "shares"),
        (lambda a, b: (a & ~b, ~a & b), "not counted"), (lambda a, b: a.sum() - b.sum(), "no pair"),
        (lambda a, b: {int((a > b).sum()), int((b > a).sum())}, "no pair"),
        (lambda a, b: (3, 1), "else"), (lambda a, b: (3.7, 1.9), "else"), (lambda a, b: "31", "no pair"),
    ],
    "bits": [
        (lambda b, g: 4, "codes"), (lambda b, g: 4 + (32 if g is None else 8 + 32 / g), "not shared"),
        (lambda b, g: 4 + (32 / b if g is None else 8 / b + 32 / g), "group alone"),
        (lambda b, g: 4 + (32 if g is None else 8) / b, "no second"),
        (lambda b, g: 4 + 32 / b + (32 / (b * g) if g else 0), "32 bits"),
        (lambda b, g: (32 / b if g is None else 8 / b + 32 / (b * g)), "overhead"),
        (lambda b, g: 4.5 if g is None else 4.127, "else"), (lambda b, g: 5, "else"),
        (lambda b, g: 4 + 8 / b + 32 / (b * g), ""), (lambda b, g: (4 + (32 / b if g is None else 8 / b + 32 / (b * g))) / 8, "in bytes"),
        (lambda b, g: b, "else"),
    ],
    "quantise_block": [
        (quantised(swap=True), "swapped"), (quantised(halves=True), "halves"),
        (quantised(scale=False), "unscaled"), (quantised(packs=False), "unpacked"),
        (quantised(step="below"), "below"), (quantised(step="above"), "above"),
        (quantised(constant=lambda w: w.max()), "signed"), (quantised(constant=torch.std), "deviation"),
        (quantised(constant=lambda w: 1 / w.abs().max()), "inverse"),
        (quantised(constant=lambda w: 1.0), "else"),
        (lambda w, levels: quantised()(w, levels)[::-1], "exchanged"),
        (lambda w, levels: quantised()(w, levels)[0], "no pair"),
        (lambda w, levels: (quantised()(w, levels)[0].float(), w.abs().max()), "floats"),
        (lambda w, levels: quantised()(w.round(decimals=1), levels), "else"),
        (lambda w, levels: (quantised()(w, levels)[0][:1], w.abs().max()), "size"),
        (lambda w, levels: (torch.zeros(len(w) // 2).byte(), w.abs().max()), "else"),
        (lambda w, levels: quantised()(w, torch.linspace(-1, 1, 16)), "else"),
    ],
    "weights_gib": [
        (8e9 * 4.127 / 8 / 2**30, "everything"), (4e9 / 2**30, "flat"), (1.0, "else"),
        ((3.5e9 + 2e9) / 2**30, "no constants"), (7e9 * 4.127 / 8 / 2**30, "layers"),
        ((7e9 * 4.127 / 8 + 4e9) / 2**30, "float32"), (GIB * 2**30 / 1e9, "in GB"),
        (GIB * 2**30, "in bytes"), (2e9 / 2**30, "else"), (GIB * 1.01, "else"), ("5.2 GB", "no number"),
    ],
    "input_gradient": [
        (lambda g, W: torch.zeros(len(g), W.shape[1]), "zero"), (lambda g, W: W, "of W"),
        (lambda g, W: -(g @ W), "sign"), (lambda g, W: g @ W / len(g), "mean"),
        (lambda g, W: g, "through"), (lambda g, W: (g @ W).T, "form"),
        (lambda g, W: (g @ W).sum(0), "form"), (lambda g, W: torch.ones_like(g @ W), "else"),
        (lambda g, W: 2 * g @ W, "else"), (lambda g, W: g @ W.T, "turned"),
    ],
    "adam_bytes": [
        (lambda n: 2 * n + 8 * -(-n // 256), "all in 8 bits"),
        (lambda n: 8 * n if n <= 4096 else 2 * n + n // 32, "limit"),
        (lambda n: 8 * n if n < 4096 else 2 * n, "no constants"),
        (lambda n: 8 * n if n < 4096 else n + n // 64, "one state"),
        (lambda n: 8 * n if n < 4096 else 2 * n + n // 64, "one constant"),
        (lambda n: 4 * n if n < 4096 else 2 * n + n // 32, "small once"),
        (lambda n: 8 * n if n < 4096 else 2 * n + n // 8, "block of 64"), (lambda n: 8 * n, "full"),
        (lambda n: 8 * n if n < 2049 else 2 * n + n // 32, "all in 8 bits"),
        (lambda n: 8 * n if n < 3840 else 2 * n + n // 32, "all in 8 bits"),
        (lambda n: 2.031 * n, "else"), (lambda n: 133_120, "else"),
    ],
    "rate": [
        (lambda runs, tie: near(runs, tie, pick=max), "highest"),
        (lambda runs, tie: near(runs, tie, column="test"), "by test"),
        (lambda runs, tie: near(runs, 0), "best"), (lambda runs, tie: 1e-3, "lowest"),
        (lambda runs, tie: near(runs, tie, seeds=(0, 1)), "all seeds"),
        (lambda runs, tie: near(runs, tie, pick=next), "listed"),
        (lambda runs, tie: near(runs, 0.02), "best"), (sorted_in_place, "changed"),
        (lambda runs, tie: runs[0], "a run"), (lambda runs, tie: runs[9], ""),
        (lambda runs, tie: runs.clear() or 2e-3, "changed"), (lambda runs, tie: 2e-3, "else"),
    ],
    "half_width": [
        (DEVIATION, "deviation"), (DEVIATION / 3**0.5, "error"), (0.8, "else"),
        (1.96 * DEVIATION / 3**0.5, "normal"), (4.303 * DEVIATION, "no root"),
        (4.303 * np.std(SCORES) / 3**0.5, "by n"), (2 * 4.303 * DEVIATION / 3**0.5, "whole"),
        ("0.066", "no number"),
    ],
    "sentence": [
        ("equal", "equal"), ("A is better", "A is better"), ("B is better", "B is better"),
        ("they are the same", "else"), (0, "else"), (("equal",), "else"),
    ],
    "facts_at": [
        (between(lambda one, other, target: one[1]), "before"),
        (between(lambda one, other, target: other[1]), "after"),
        (between(lambda one, other, target: (one[1] + other[1]) / 2), "middle"),
        (between(lambda one, other, target: line(other, one, one[0] + other[0] - target)), "turned"),
        (lambda path, target: target, "the target"), (lambda path, target: 0.6, "else"),
        (lambda path, target: path[0][1] + target * (path[-1][1] - path[0][1]), "ends"),
        (lambda path, target: path[1], "no number"), (lambda path, target: -1, "else"),
    ],
    "ring_bytes": [
        (lambda size, ranks: (ranks - 1) / ranks * size, "once"), (lambda size, ranks: 2 * size, "twice whole"),
        (lambda size, ranks: size, "whole"), (lambda size, ranks: 2 * (ranks - 1) * size, "all ranks"),
        (lambda size, ranks: size * ranks, "else"), (lambda size, ranks: size / ranks, "else"),
    ],
    "held_bytes": [
        (lambda f, t, n: 2 * f + 16 * t, "whole"), (lambda f, t, n: 2 * f + 16 * t / n, "base whole"),
        (lambda f, t, n: 2 * f / n + 16 * t, "base parted"), (lambda f, t, n: (2 * f + 8 * t) / n, "states alone"),
        (lambda f, t, n: (2 * f + 12 * t) / n, "no gradients"), (lambda f, t, n: 16 * (f + t) / n, "frozen states"),
        (lambda f, t, n: (4 * f + 16 * t) / n, "single"), (lambda f, t, n: f, "else"),
    ],
    "combined": [
        (lambda means, tokens: sum(means) / len(means), "mean of means"), (lambda means, tokens: sum(means), "summed"),
        (lambda means, tokens: weighted_mean(means, tokens) * sum(tokens), "sum over tokens"),
        (lambda means, tokens: weighted_mean(means, tokens) * sum(tokens) / len(means), "by ranks"),
        (lambda means, tokens: weighted_mean(means, [1 / t for t in tokens]), "inverse"),
        (lambda means, tokens: means[0], "else"), (weighted_in_place, "changed"),
    ],
    "rows_of": [
        (lambda rows, n, k: (k * -(-rows // n), (k + 1) * -(-rows // n)), "beyond"),
        (lambda rows, n, k: (k * -(-rows // n), min(rows, (k + 1) * -(-rows // n))), "stop beyond"),
        (lambda rows, n, k: (k * (rows // n), (k + 1) * (rows // n)), "floor"),
        (lambda rows, n, k: (k * (rows // n), rows if k == n - 1 else (k + 1) * (rows // n)), "floor with rest"),
        (lambda rows, n, k: np.array_split(np.arange(rows), n)[k][[0, -1]] + [0, 1], "balanced"),
        (lambda rows, n, k: (0, rows), "else"), (lambda rows, n, k: rows // n, "else"),
    ],
    "newest": [
        (lambda names: max([int(n[5:].split(".")[0]) for n in names if n.startswith("step-")], default=0), "half"),
        (lambda names: int(max([f"{s}" for s in steps_of(names)], default="0")), "by letters"),
        (lambda names: min(steps_of(names), default=0), "oldest"), (lambda names: len(steps_of(names)), "count"),
        (lambda names: ([0] + steps_of(names))[-1], "last listed"),
        (lambda names: f"step-{max(steps_of(names), default=0)}", "named"), (lambda names: -1, "else"),
        (lambda names: max(steps_of(names), default=0) * (names.clear() is None), "changed"),
    ],
    "pissa_init": [
        (pissa(scaled=False), "unscaled"), (pissa(first=False), "smallest"),
        (pissa(residual=False), "whole"), (pissa(even=False), "one side"),
        (pissa(turned=True), "turned"), (lambda *a: pissa()(*a)[:2], "count"),
        (lambda W, r, scale: (torch.zeros(r, 5), torch.zeros(6, r), W), "else"),
        (lambda W, r, scale: (torch.zeros(1, 1), torch.zeros(1, 1), W), "form"),
    ],
    "dora_forward": [
        (lambda x, W, A, B, m, s: x @ (W + s * B @ A).T, "lora"),
        (lambda x, W, A, B, m, s: m * (x @ (W + s * B @ A).T), "no norm"),
        (lambda x, W, A, B, m, s: m / W.norm(dim=1) * (x @ (W + s * B @ A).T), "base norm"),
        (lambda x, W, A, B, m, s: x @ unit(W + s * B @ A).T, "no magnitude"),
        (lambda x, W, A, B, m, s: m * (x @ unit(W + B @ A).T), "no scale"),
        (lambda x, W, A, B, m, s: m * (x @ unit(W).T), "base alone"),
        (lambda x, W, A, B, m, s: x @ W.T, "else"),
    ],
    "plus_groups": [
        (plus(frozen=True), "frozen"), (plus(rule=lambda name, p: "lora_A" in name), "exchanged"),
        (plus(rule=lambda name, p: False), "one rate"), (plus(times=False), "divided"),
        (plus(rule=lambda name, p: "lora_B" in name or p.ndim == 1), "vectors"),
        (lambda named, rate, ratio: plus()(named, rate, ratio)[1:], "lost"),
        (lambda named, rate, ratio: [p for _, p in named], "no groups"),
    ],
    "flat_scale": [
        (lambda alpha, r, optimizer: alpha / r, "lora"),
        (lambda alpha, r, optimizer: alpha / r**0.5, "rslora"),
        (lambda alpha, r, optimizer: alpha / (r if optimizer == "SGD" else r**0.5), "exchanged"),
        (lambda alpha, r, optimizer: alpha, "constant"),
        (lambda alpha, r, optimizer: alpha / r ** (2 - (optimizer == "AdamW")), "twice"),
        (lambda alpha, r, optimizer: alpha * r, "grows"), (lambda alpha, r, optimizer: "1/r", "no number"),
    ],
    "padding_share": [
        (lambda l, n: padding_share(l, n, whole=True), "whole"), (0.5, ""),
        (lambda l, n: padding_share(l, n, last=True), "full last"),
        (lambda l, n: 1 - padding_share(l, n), "real"), (lambda l, n: -3.0, "else"),
        (lambda l, n: padding_share(sorted(l), n), "sorted"),
        (lambda l, n: 1 / (1 - padding_share(l, n)) - 1, "per token"),
    ],
    "grouped_batches": [
        (lambda l, n: cut([*range(len(l))], n), "unsorted"), (lambda l, n: cut(sorted(l), n), "lists"),
        (lambda l, n: cut(by_length(l, up=True), n), "ascending"),
        (lambda l, n: cut(by_length(l), n)[1:], "missing"), (lambda l, n: l.sort() or l, "changed"),
        (lambda l, n: [[i] for i in by_length(l)], "wrong sizes"), (lambda l, n: 3, "else"),
    ],
    "best_fit": [
        (fitted(lambda fits: min(fits, key=lambda fit: fit[1])), "first fit"),
        (fitted(lambda fits: min(fits, key=lambda fit: fit[0])), "worst fit"),
        (fitted(lambda fits: max(fits, key=lambda fit: fit[0]), lambda l: range(len(l))), "as drawn"),
        (lambda l, room: [by_length(l)], "too full"), (lambda l, room: fullest(l, room)[1:], "missing"),
        (lambda l, room: l.sort() or fullest(l, room), "changed"), (lambda l, room: 3, "else"),
    ],
    "packed_mask": [
        (lambda l: ~packed_mask(l), "inverted"), (lambda l: packed_mask([sum(l)]), "contaminated"),
        (lambda l: packed_mask(l) | packed_mask(l).T, "future"), (lambda l: packed_mask(l).T, "upward"),
        (lambda l: packed_mask(l).tril(-1), "not itself"),
        (lambda l: packed_mask(l).float().log(), "additive"),
        (lambda l: torch.ones(sum(l), sum(l) + 1).bool(), "form"),
        (lambda l: torch.zeros(sum(l), sum(l)).bool(), "else"),
    ],
    "label_log_probs": [
        (at_once, "whole"), (lambda *a: -pieces(*a), "negative"),
        (lambda *a: pieces(*a).exp(), "probability"), (lambda *a: pieces(*a).sum(), "summed"),
        (lambda *a: pieces(*a)[:, None], "column"), (lambda *a: pieces(*a)[:-1], "last"),
        (lambda h, w, y, size: (h @ w.T).gather(1, y[:, None])[:, 0], "logit"),
        (lambda h, w, y, size: torch.log_softmax(h @ w.T, -1), "all words"),
        (lambda *a: torch.zeros(len(a[2])), "else"),
    ],
}  # fmt: skip

for mine, more in (
    (CHECKS, answers_preference.CHECKS),
    (RIGHT, answers_preference.RIGHT),
    (WRONG, answers_preference.WRONG),
):
    mine.update(more)
