"""What each switch of a training step is worth on SmolLM2-135M, on one CPU thread, and what the loss does.

One step of the article's recipe in float32 (LoRA r = 16 on q, k, v, o; batches of 4 padded to their longest; loss on
every token; logits in full; dropout 0.05) against the same eight examples with one switch changed, and against all
that pay. Four parts, each row of ``data/results/speed_smollm2.json`` written as it ends:

- ``time``: CPU and wall seconds of one step, the variants in turn; each repeat has other examples, so another share
  of padding. The mild mix has fewer and shorter lists, so less padding. The compiler ran in one repeat.
- ``data``: seconds that tokenising and padding a step's examples take, with 0, 1 and 2 worker processes.
- ``curve``: held-out loss of answers against trained tokens, four recipes at one rate: the lowest of ``LADDER`` that
  ties on the held-out examples for *fast, same loss*, whose gradient is the literal one's.
- ``equal``: loss and gradient of some switches against the literal step's.

    pefthelpers fetch laptop
    python -m studies.speed_study            (what is missing; about 45 CPU minutes in all)
    python -m studies.speed_study --retime   (the times anew, about 9 minutes; the rest stays)
"""

import argparse
import copy
import functools
import random
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import repeat_kv

from pefthelpers import data, models, results, training
from pefthelpers.data import Example
from studies import engine

EXAMPLES = 8  # of one optimiser step: two batches of four
BATCH, ROW = 4, 256  # examples of a padded batch; tokens of a packed row
REPEATS = 3
STEPS, EVERY, SEEDS, HELD_OUT = 24, 6, (0, 1, 2), 32
LADDER = (3e-4, 1e-3, 3e-3, 1e-2)
MARGIN = 0.05  # nats: held-out losses this near count as equal
LITERAL = {
    "rows": "padded",  # padded (in the order drawn), grouped (by length), packed (first fit), one or flat (one row)
    "loss": "all",  # on all tokens, or on the answers
    "head": "full",  # logits of every position, or chunked: of those with a label, piece by piece
    "dropout": 0.05,
    "checkpointing": False,
    "optimizer": "adamw_8bit",
    "dtype": "float32",  # of the frozen base; what is trained stays in float32
    "compile": False,
}
# One at a time, then added up in this order.
SWITCHES = {
    "grouped by length": {"rows": "grouped"},
    "packed, masked": {"rows": "packed"},
    "one row, masked": {"rows": "one"},
    "packed, by example": {"rows": "flat"},
    "checkpointing": {"checkpointing": True},
}
SUMS = {
    "+ loss on answers": {"rows": "flat", "loss": "answers"},
    "+ chunked loss": {"rows": "flat", "loss": "answers", "head": "chunked"},
    "+ no dropout": {"rows": "flat", "loss": "answers", "head": "chunked", "dropout": 0.0},
}
FAST = SUMS["+ no dropout"] | {"optimizer": "adamw_torch_fused"}
# The loss of the literal recipe, on all tokens and with dropout.
SAME = {"rows": "flat", "head": "chunked", "optimizer": "adamw_torch_fused"}
VARIANTS = {"literal": {}} | SWITCHES | SUMS | {"fast": FAST, "fast, same loss": SAME}
IN_BF16 = {
    f"{name}, bf16": setting | {"dtype": "bfloat16"}
    for name, setting in {"literal": {}, "fast": FAST, "fast, same loss": SAME}.items()
}
VARIANTS |= IN_BF16 | {"compiled": {"compile": True}}
CURVES = ("fast, same loss", "literal", "fast", "fast, same loss, bf16")

Pair = tuple[list[int], list[int]]


def mix(split: str, *, mild: bool = False) -> list[Example]:
    """Return the chat examples: pizza questions, general ones, and lists of two to ten pieces of advice.

    Args:
        split: ``train``, or ``validation``, which has no general questions of its own.
        mild: two lists a topic instead of four.
    """
    rows = data.json_lines(data.data_dir() / "pizza" / "instructions.jsonl", ("split", "topic"))
    topics: dict[str, list[str]] = {}
    for row in rows:
        if row["split"] == split:
            topics.setdefault(row["topic"], []).append(row["instruction"])
    lists = []
    for number, (topic, advice) in enumerate(topics.items()):
        sizes = (2 + number % 9, 10 - number % 9, 4 + number % 7, 10)
        for count in sizes[:2] if mild else sizes:
            name = topic.replace("_", " ")
            lists.append(
                Example(f"List {count} pieces of advice on {name}.", " ".join(advice[:count]))
            )
    general = data.general_questions().replay if split == "train" else []
    return [*getattr(data.pizza(), split), *general, *lists]


def first_fit(lengths: list[int], room: int) -> list[list[int]]:
    """Return rows of positions: each, the longest first, goes to the first row with room for it."""
    rows: list[list[int]] = []
    used: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        needs = lengths[position]
        row = next((i for i, taken in enumerate(used) if taken + needs <= room), len(rows))
        if row == len(rows):
            rows.append([])
            used.append(0)
        rows[row].append(position)
        used[row] += needs
    return rows


def batches(pairs: list[Pair], tokenizer, *, rows: str, loss: str) -> Iterator[dict]:
    """Yield the batches of one step's examples, as the model takes them, labels included."""
    labels = [[-100] * len(p) + a if loss == "answers" else [*p, *a] for p, a in pairs]
    ids = [[*p, *a] for p, a in pairs]
    filler = training.filler_id(tokenizer)
    if rows in ("packed", "one", "flat"):
        room = max(ROW, *map(len, ids)) if rows == "packed" else sum(map(len, ids))
        chosen = first_fit([*map(len, ids)], room)
        joined = lambda parts: [[each for i in row for each in parts[i]] for row in chosen]
        starts = [[-100, *each[1:]] for each in labels]  # no example's last token predicts the next
        positions = [[*range(len(each))] for each in ids]
        ends = [*accumulate(len(ids[i]) for i in chosen[0])]
        more = {"cu_seq_lens_q": (0, *ends)} if rows == "flat" else {}
        yield more | {
            "input_ids": training.pad(joined(ids), filler),
            "position_ids": training.pad(joined(positions), 0),
            "labels": training.pad(joined(starts), -100),
        }
        return
    order = (
        sorted(range(len(ids)), key=lambda i: len(ids[i])) if rows == "grouped" else range(len(ids))
    )
    order = [*order]
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        yield {
            "input_ids": training.pad([ids[i] for i in part], filler),
            "attention_mask": training.pad([[1] * len(ids[i]) for i in part], 0),
            "labels": training.pad([labels[i] for i in part], -100),
        }


def by_example(module, query, key, value, attention_mask, scaling, cu_seq_lens_q, **_):
    """Attend within each example of one packed row: causal attention, one call an example, no mask.

    Shapes (1, heads, tokens, d_head), of keys and values with fewer heads; returns (1, tokens, heads, d_head).
    """
    key, value = (repeat_kv(each, module.num_key_value_groups) for each in (key, value))
    cuts = [each.tensor_split(cu_seq_lens_q[1:-1], dim=2) for each in (query, key, value)]
    attend = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    return torch.cat([*map(attend, *cuts)], dim=2).transpose(1, 2), None


AttentionInterface.register("by_example", by_example)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of a frozen head: the gradient is made with the loss, a piece of rows at a time."""

    @staticmethod
    def forward(ctx, hidden, weight, labels, size=64):
        """Return the sum; hidden (n, d_model), weight (vocabulary, d_model), labels (n,)."""
        total, gradient = hidden.new_zeros(()), torch.empty_like(hidden)
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            logits = hidden[part] @ weight.T  # (size, vocabulary), then gone
            log_p = F.log_softmax(logits.float(), dim=-1)
            total -= log_p.gather(1, labels[part, None]).sum()
            p = log_p.exp_()
            p[torch.arange(len(p)), labels[part]] -= 1
            gradient[part] = p.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, upstream):
        """Return the gradient of ``hidden`` alone."""
        return upstream * ctx.saved_tensors[0], None, None, None


def summed_loss(model, batch: dict, *, head: str) -> torch.Tensor:
    """Return the summed cross-entropy of a batch's labelled tokens."""
    inputs = {name: each for name, each in batch.items() if name != "labels"}
    labels = batch["labels"][:, 1:]
    if head == "full":
        logits = model(**inputs, use_cache=False).logits[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    base = model.get_base_model()
    hidden = base.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    kept = labels != -100
    weight = base.lm_head.weight
    return ChunkedCrossEntropy.apply(hidden[kept].to(weight.dtype), weight, labels[kept])


@functools.cache
def base(dtype: str = "float32"):
    """Return the frozen model in a data type and its tokenizer, read once."""
    return models.load("decoder", "laptop", dtype=dtype)


def build(setting: dict, seed: int = 0):
    """Return model, tokenizer and optimiser of a variant."""
    model, tokenizer = copy.deepcopy(base(setting["dtype"]))
    if setting["rows"] == "flat":
        model.set_attn_implementation("by_example")
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=16,
        lora_alpha=32,
        lora_dropout=setting["dropout"],
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
    )
    model = get_peft_model(model, config).train()
    if setting["checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    trained = [p for p in model.parameters() if p.requires_grad]
    if setting["optimizer"] == "adamw_8bit":
        import bitsandbytes

        optimizer = bitsandbytes.optim.AdamW8bit(trained, lr=0.0, weight_decay=0.0)
    else:
        optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)
    if setting["compile"]:
        # The first step pays for all compiling, as on a new machine.
        torch._inductor.config.force_disable_caches = True
        model.forward = torch.compile(model.forward, dynamic=True)
    return model, tokenizer, optimizer


def gradient(model, tokenizer, pairs: list[Pair], setting: dict) -> float:
    """Add up the gradient of the mean loss of a step's tokens; return that mean."""
    made = [*batches(pairs, tokenizer, rows=setting["rows"], loss=setting["loss"])]
    count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in made)
    total = 0.0
    for batch in made:
        loss = summed_loss(model, batch, head=setting["head"]) / count
        loss.backward()
        total += loss.item()
    return total


def step(model, tokenizer, optimizer, pairs: list[Pair], setting: dict, rate: float) -> float:
    """Take one optimiser step on the examples; return their mean loss."""
    loss = gradient(model, tokenizer, pairs, setting)
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def drawn(tokenizer, steps: int, *, mild: bool = False) -> Iterable[list[Pair]]:
    """Return the examples of each timed step, the same for every variant."""
    pairs = training.encode(tokenizer, data.chat_examples(tokenizer, mix("train", mild=mild)))
    return training.batches(pairs, size=EXAMPLES, steps=steps, seed=0)


def held_out(tokenizer) -> list[Pair]:
    """Return the held-out questions and lists, drawn once for all runs."""
    chosen = random.Random(0).sample(mix("validation"), HELD_OUT)
    return training.encode(tokenizer, data.chat_examples(tokenizer, chosen))


def counts(pairs: list[Pair], tokenizer, setting: dict) -> dict:
    """Return what a step computes: tokens with padding, real ones, and those of answers."""
    made = [*batches(pairs, tokenizer, rows=setting["rows"], loss=setting["loss"])]
    return {
        "tokens": sum(batch["input_ids"].numel() for batch in made),
        "real_tokens": sum(len(p) + len(a) for p, a in pairs),
        "answer_tokens": sum(len(a) for _, a in pairs),
        "batches": len(made),
    }


def held_out_loss(model, tokenizer, pairs: list[Pair], rows: str) -> float:
    """Return the mean loss of the held-out answers' tokens, dropout off."""
    model.eval()
    setting = {"rows": "flat" if rows == "flat" else "packed", "loss": "answers"}
    total = count = 0.0
    with torch.no_grad():
        for start in range(0, len(pairs), EXAMPLES):
            for batch in batches(pairs[start : start + EXAMPLES], tokenizer, **setting):
                total += summed_loss(model, batch, head="chunked").item()
                count += int((batch["labels"][:, 1:] != -100).sum())
    model.train()
    return total / count


def curve(recipe: str, learning_rate: float, seed: int) -> dict:
    """Train by a recipe; return held-out losses against trained tokens, those of answers."""
    setting = LITERAL | VARIANTS[recipe]
    model, tokenizer, optimizer = build(setting, seed)
    train = training.encode(tokenizer, data.chat_examples(tokenizer, mix("train")))
    held = held_out(tokenizer)
    tokens, points = 0, [(0, held_out_loss(model, tokenizer, held, setting["rows"]))]
    drawn = training.batches(train, size=EXAMPLES, steps=STEPS, seed=seed)
    for number, pairs in enumerate(drawn, start=1):
        rate = learning_rate * training.learning_rate_factor(number - 1, STEPS)
        step(model, tokenizer, optimizer, pairs, setting, rate)
        tokens += sum(len(a) for _, a in pairs)
        if number % EVERY == 0:
            points.append((tokens, held_out_loss(model, tokenizer, held, setting["rows"])))
    last = points[-1][1]
    return {"validation": -last, "validation_loss": last, "trained": points, "held_out": len(held)}


def timed(variant: str, repeat: int, mix: str = "long") -> dict:
    """Time one step of a variant, after a step on the same examples, which fills caches and compiles.

    A step at rate 0 changes nothing; every repeat has other examples, every variant the same.
    """
    setting = LITERAL | VARIANTS[variant]
    model, tokenizer, optimizer = build(setting)
    pairs = [*drawn(tokenizer, 1 + repeat, mild=mix == "mild")][repeat]
    began = time.process_time()
    step(model, tokenizer, optimizer, pairs, setting, 0.0)
    first = time.process_time() - began
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step(model, tokenizer, optimizer, pairs, setting, 0.0)
    spent = {
        "first_step_cpu_s": first,
        "step_cpu_s": time.process_time() - cpu,
        "step_wall_s": time.perf_counter() - wall,
    }
    return {"loss": loss, **spent, **counts(pairs, tokenizer, setting)}


def loading(workers: int, steps: int = 32) -> dict:
    """Time the data side of a step alone: tokenise and pad eight examples, in worker processes or not."""
    _, tokenizer = base()
    examples = data.chat_examples(tokenizer, mix("train"))[: steps * EXAMPLES]

    def collate(part: list[Example]) -> list[dict]:
        pairs = training.encode(tokenizer, part)
        return [*batches(pairs, tokenizer, rows="padded", loss="all")]

    wall = time.perf_counter()
    loader = DataLoader(examples, EXAMPLES, num_workers=workers, collate_fn=collate)
    made = sum(1 for _ in loader)
    return {"step_wall_s": (time.perf_counter() - wall) / made, "steps": made}


def equal(variant: str) -> dict:
    """Compare a variant's loss and gradient with the literal recipe's on one step's examples, dropout off."""
    found = []
    for setting in (LITERAL, LITERAL | VARIANTS[variant]):
        model, tokenizer, _ = build(setting | {"dropout": 0.0, "loss": "all"})
        pairs = next(iter(drawn(tokenizer, 1)))
        loss = gradient(model, tokenizer, pairs, setting | {"loss": "all"})
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss, torch.cat(grads)))
    (loss, first), (other, second) = found
    distance = ((first - second).norm() / first.norm()).item()
    return {"loss_difference": abs(loss - other), "gradient_difference": distance}


def main() -> None:
    """Run what the record does not hold yet; with ``--retime``, the times once more."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--retime", action="store_true", help="measure the times anew")
    parser.add_argument("--only", choices=("time", "curve", "equal"), help="one part alone")
    wanted = parser.parse_args()
    study = engine.start("speed_smollm2")
    if wanted.retime:
        study.rows = [row for row in study.rows if row["part"] not in ("time", "data")]
    if wanted.only in (None, "time"):
        keys = [
            ("long", n, v) for n in range(REPEATS) for v in VARIANTS if not n or v != "compiled"
        ]
        keys += [
            ("mild", n, v) for n in range(REPEATS) for v in ("literal", "fast, same loss", "fast")
        ]
        for kind, repeat, variant in keys:
            key = {"variant": variant, "repeat": repeat, "mix": kind}
            study.measure(lambda key=key: timed(**key), part="time", **key)
        for workers in (0, 1, 2):
            study.measure(lambda n=workers: loading(n), part="data", workers=workers)
    if wanted.only in (None, "curve"):
        run = lambda part, **key: curve(**key)
        tried = [study.one(run, {"part": "curve", "recipe": CURVES[0]}, rate) for rate in LADDER]
        rate = results.mildest(tried, MARGIN)["learning_rate"]
        for seed in SEEDS:
            for recipe in CURVES:
                study.one(run, {"part": "curve", "recipe": recipe}, rate, seed)
    if wanted.only in (None, "equal"):
        for variant in (
            "grouped by length",
            "packed, masked",
            "fast, same loss",
            "fast",
            "checkpointing",
        ):
            study.measure(lambda v=variant: equal(v), part="equal", variant=variant)


if __name__ == "__main__":
    main()
