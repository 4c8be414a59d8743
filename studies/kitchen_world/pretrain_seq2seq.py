"""Pre-train the collection's encoder-decoder on the recipe world (about 15 minutes on one core).

    python -m studies.kitchen_world.pretrain_seq2seq --seed 1 --out data/kitchen/seq2seq

Deterministic: the same seed, steps, thread count and package versions give the same weights. One
thread, so that it can share a machine, and so that sums are always added in the same order.
"""

import argparse
import json
import random
import time
from datetime import datetime, timezone
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from pefthelpers.measure import exact_match, mean_loss
from pefthelpers.training import Pair, collate, encode
from studies.kitchen_world import summary_language, summary_tasks

SPECIALS = ["<pad>", "</s>", "<unk>", *summary_language.SENTINELS]
EXAMPLES_PER_STEP = 40
LEARNING_RATE = 4e-3
# T5 does not divide attention scores by sqrt(d_kv), so its query weights want smaller steps; the
# embedding starts with standard deviation 1 and has a longer way to go than the other weights.
QUERY_FACTOR, EMBEDDING_FACTOR = 0.2, 3.0


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer that knows every word of the world; ids in fixed order."""
    words = SPECIALS + sorted(summary_tasks.vocabulary() - set(SPECIALS))
    words += [f"<spare_{i}>" for i in range(-len(words) % 64)]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def build_model(vocab_size: int, seed: int) -> T5ForConditionalGeneration:
    """Return an untrained T5 of 1.5 million parameters, float32.

    Linear inputs are multiples of 64 and outputs of 32, as 4-bit kernels ask; heads times d_kv is
    d_model and both stacks are equally deep, as PEFT's prefix tuning asks.
    """
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocab_size,
            d_model=128,
            d_kv=32,
            d_ff=384,
            num_layers=3,
            num_decoder_layers=3,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def build_optimizer(model: T5ForConditionalGeneration) -> torch.optim.AdamW:
    """Return AdamW with three groups; each keeps its peak rate under the key ``peak``."""
    groups = {1.0: [], QUERY_FACTOR: [], EMBEDDING_FACTOR: []}
    for name, parameter in model.named_parameters():
        is_query = name.endswith(".q.weight")
        factor = QUERY_FACTOR if is_query else EMBEDDING_FACTOR if name == "shared.weight" else 1.0
        groups[factor].append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "peak": LEARNING_RATE * factor} for factor, p in groups.items()],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )


def length_bucketed(tokenizer, seed: int):
    """Yield batches of ``EXAMPLES_PER_STEP`` encoded pairs of about equal length, endlessly."""
    stream, shuffle = summary_tasks.stream(seed), random.Random(seed)
    size = EXAMPLES_PER_STEP
    while True:
        pairs: list[Pair] = encode(tokenizer, [next(stream) for _ in range(16 * size)])
        pairs.sort(key=lambda pair: (len(pair[0]), len(pair[1])))
        buckets = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        shuffle.shuffle(buckets)
        yield from buckets


def evaluate(model, tokenizer) -> dict[str, float]:
    """Return the exact match of each skill and the general loss, on held-out draws."""
    held_out = dict(summary_tasks.retention())
    scores = {"general_loss": mean_loss(model, tokenizer, held_out.pop("general"))}
    held_out |= {f"task {kind}": summary_tasks.tasks(200, kind) for kind in summary_language.TASKS}
    scores |= {name: exact_match(model, tokenizer, rows) for name, rows in held_out.items()}
    model.train()
    return {name: round(score, 4) for name, score in scores.items()}


def train(model, tokenizer, *, seed: int, steps: int, evaluate_every: int):
    """Train in place; yield the growing log: step, CPU seconds, loss, held-out scores."""
    optimizer, log, losses = build_optimizer(model), [], []
    batches, start = length_bucketed(tokenizer, seed), time.process_time()
    model.train()
    for step in range(steps):
        factor = min(1.0, (step + 1) / 100) * max(0.02, 1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        loss = model(**collate(tokenizer, next(batches), seq2seq=True)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % evaluate_every == 0 or step + 1 == steps:
            row = {"step": step + 1, "cpu_s": round(time.process_time() - start)}
            row |= {"loss": round(sum(losses[-100:]) / len(losses[-100:]), 4)}
            log.append(row | evaluate(model, tokenizer))
            yield log


CARD = """---
license: apache-2.0
library_name: transformers
tags: [t5, text2text-generation, synthetic]
---
# The recipe world's encoder-decoder, pre-training seed {seed}

A T5 of {parameters:,} parameters (float32, 3 + 3 layers of width 128), pre-trained on a synthetic
world of English recipes and their summaries, so that prefix tuning and its rivals can be measured
on two CPU cores. It knows nothing beyond that world: for teaching, not for use.

- **Data**: `studies.kitchen_world.summary_tasks.stream({seed})`, generated; no text from elsewhere.
- **Made by**: `python -m studies.kitchen_world.pretrain_seq2seq --seed {seed} --steps {steps}`, {cpu_s} CPU
  seconds on one thread; torch {torch}, transformers {transformers}, tokenizers {tokenizers}; {date}.
- **Held-out scores at the end** (exact match; loss in nats per token of span corruption):

{scores}

- **Limits**: a closed vocabulary of {vocab_size} words split at spaces; anything else is `<unk>`.
  It tells words apart by their kind, less well by their place: lists are often copied wrong.
- **Licence**: Apache-2.0, like the collection.
"""


def model_card(log: list[dict], facts: dict) -> str:
    """Return the model card: what it is, how it was made, what it scored."""
    last = {k: v for k, v in log[-1].items() if k not in ("step", "cpu_s", "loss")}
    table = [f"| {name} | {score:.3f} |" for name, score in last.items()]
    scores = "\n".join(["| held-out set | score |", "|---|---:|", *table])
    return CARD.format(scores=scores, steps=log[-1]["step"], cpu_s=log[-1]["cpu_s"], **facts)


def save(model, tokenizer, log: list[dict], *, seed: int, out: Path) -> None:
    """Write weights, configuration, tokenizer, log and model card into ``out``."""
    model.generation_config.max_new_tokens = 40
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    facts = {
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocab_size": len(tokenizer),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    (out / "README.md").write_text(model_card(log, facts), encoding="utf-8")
    record = json.dumps(facts | {"log": log}, indent=1)
    (out / "training_log.json").write_text(record + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line, train, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True, help="of weights, examples and order")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--evaluate-every", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer), options.seed)
    schedule = {"steps": options.steps, "evaluate_every": options.evaluate_every}
    for log in train(model, tokenizer, seed=options.seed, **schedule):
        print(json.dumps(log[-1]), flush=True)
        save(model, tokenizer, log, seed=options.seed, out=options.out)


if __name__ == "__main__":
    main()
