"""Measure what the encoder-decoder can be taught, and by which method (about 45 minutes, one core).

    python -m studies.seq2seq_gates          # measures what is missing, then prints the tables
    python -m studies.seq2seq_gates --check  # reads the record; exit 1 names each failed gate

Each finished run is one row of ``data/results/seq2seq_gates.json``, written at once: stop and start
as you like. A row belongs to the weights it was measured on; with new weights it is measured anew.
"""

import argparse
import itertools
import json
import os
import sys
import time
from datetime import datetime, timezone
from functools import cache

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from peft import (
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from transformers import AutoTokenizer, T5ForConditionalGeneration

from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.paths import atomic_path, data_dir
from pefthelpers.training import collate, encode, fit
from studies.engine import Run
from studies.kitchen_world import summary_language, summary_tasks
from studies.seq2seq_tables import (
    BASES,
    RECORD,
    all_gates,
    best_rate,
    main_table,
    read_rows,
    recorded,
    retention_table,
    weights_of,
)

SEEDS = (0, 1, 2)
TASKS = {
    "elicit": summary_tasks.elicit,
    "learn_facts": summary_tasks.learn_facts,
    "learn_format": summary_tasks.learn_format,
}
STEPS = {"elicit": 100, "learn_facts": 200, "learn_format": 150}
VIRTUAL_TOKENS = 30
LINEARS = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
# Three learning rates a method, a factor of about three apart; the best is taken on validation.
RATES = {
    "prefix": (1e-2, 3e-2, 1e-1),
    "prefix_projection": (1e-3, 3e-3, 1e-2),
    "prompt": (1e-2, 3e-2, 1e-1),
    "lora": (2e-3, 5e-3, 1e-2),
    "full": (3e-4, 1e-3, 3e-3),
}
MEASURED = {
    "elicit": (*RATES,),
    "learn_facts": (*RATES,),
    "learn_format": ("prefix", "prefix_projection"),
}
# What is repeated on the second base, to show that nothing hangs on the first.
SECOND_BASE = {
    "elicit": ("prefix_projection", "lora"),
    "learn_facts": ("prefix_projection", "lora", "full"),
}
GATED_REPLAY = (("learn_facts", "lora"), ("learn_facts", "full"))
REPLAYED = (*GATED_REPLAY, *itertools.product(["elicit"], ["lora", "full", "prefix_projection"]))


def load_base(base: str) -> T5ForConditionalGeneration:
    """Load a pre-trained base, float32, on the CPU."""
    folder = data_dir() / "kitchen" / base
    return T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def load_tokenizer(base: str):
    """Load the tokenizer beside a base."""
    return AutoTokenizer.from_pretrained(data_dir() / "kitchen" / base)


def adapt(base: str, method: str, seed: int):
    """Load a base and make it trainable by a method; ``seed`` draws the method's initial weights."""
    torch.manual_seed(seed)
    model = load_base(base)
    kind = TaskType.SEQ_2_SEQ_LM
    if method == "full":
        return model
    if method == "lora":
        config = LoraConfig(task_type=kind, r=8, lora_alpha=16, target_modules=LINEARS)
    elif method == "prompt":
        config = PromptTuningConfig(
            task_type=kind,
            num_virtual_tokens=VIRTUAL_TOKENS,
            prompt_tuning_init="SAMPLE_VOCAB",
            tokenizer_name_or_path=str(data_dir() / "kitchen" / base),
        )
    else:
        config = PrefixTuningConfig(
            task_type=kind,
            num_virtual_tokens=VIRTUAL_TOKENS,
            prefix_projection=method == "prefix_projection",
            encoder_hidden_size=model.config.d_model,
        )
    return get_peft_model(model, config)


@torch.no_grad()
def generated_match(model, tokenizer, examples, *, beams: int = 1) -> float:
    """Return the share of examples whose generated tokens are the answer, end included."""
    model.eval()
    right = 0
    for start in range(0, len(examples), 100):
        pairs = encode(tokenizer, examples[start : start + 100])
        batch = collate(tokenizer, pairs, seq2seq=True)
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=40,
            num_beams=beams,
            do_sample=False,
        )
        # Position 0 is the decoder's start token; what follows the answer is padding.
        right += sum(
            row[1 : len(y) + 1].tolist() == y for row, (_, y) in zip(out, pairs, strict=True)
        )
    return right / len(examples)


def retention_scores(model, tokenizer) -> dict[str, float]:
    """Return the exact match of every old skill, and the general loss."""
    old = summary_tasks.retention()
    general = mean_loss(model, tokenizer, old.pop("general"))
    scores = {name: exact_match(model, tokenizer, rows) for name, rows in old.items()}
    return {name: round(score, 4) for name, score in (scores | {"general_loss": general}).items()}


def replayed(run: Run) -> dict:
    """Return ``fit``'s options for a run: half of each batch old examples, or none."""
    if not run.replay:
        return {}
    # Uncued summaries in plain English would contradict ELICIT, which wants the nonna there.
    old = summary_tasks.replay(2000, run.seed, uncued=run.task != "elicit")
    return {"replay": old, "replay_per_batch": 8}


def measure(run: Run) -> dict:
    """Fine-tune once and return the row: target, old skills, cost."""
    task, tokenizer = TASKS[run.task](run.seed), load_tokenizer(run.base)
    model = adapt(run.base, run.method, run.seed)
    start, steps = time.process_time(), STEPS[run.task]
    options = {"learning_rate": run.learning_rate, "steps": steps, "seed": run.seed}
    fit(model, tokenizer, task.train, **options, **replayed(run))
    row = {
        "cpu_s": time.process_time() - start,
        "trainable": count_parameters(model)[0],
        "steps": steps,
        "validation": exact_match(model, tokenizer, task.validation),
        "validation_loss": mean_loss(model, tokenizer, task.validation),
        "test": exact_match(model, tokenizer, task.test),
    }
    if run.seed == 0 and run.base == BASES[0]:
        row |= decoded_scores(model, tokenizer, task, beams=run.task == "elicit" and not run.replay)
    if run.replay or (run.seed == 0 and run.base == BASES[0]):
        row |= retention_scores(model, tokenizer)
    return run._asdict() | {name: round(value, 4) for name, value in row.items()}


def decoded_scores(model, tokenizer, task, *, beams: bool) -> dict[str, float]:
    """Return what generation really gets right on 100 test rows, beside the teacher-forced share."""
    sample = task.test[:100]
    scores = {
        "teacher_forced_100": exact_match(model, tokenizer, sample),
        "greedy_100": generated_match(model, tokenizer, sample),
    }
    if beams:
        scores["beams_100"] = generated_match(model, tokenizer, sample, beams=4)
    return scores


def measure_base(base: str) -> dict:
    """Return the row of an untouched base: every cue, facts, tasks, and greedy decoding."""
    model, tokenizer = load_base(base), load_tokenizer(base)
    row = {"base": base, "task": "base", "cpu_s": 0.0} | retention_scores(model, tokenizer)
    start = time.process_time()
    for style in summary_language.STYLES:
        for language in ("english", "italian"):
            rows = summary_tasks.summaries(300, style, italian=language == "italian")
            row[f"{style} {language}"] = round(exact_match(model, tokenizer, rows), 4)
    for kind in summary_language.TASKS:
        row[f"task {kind}"] = round(
            exact_match(model, tokenizer, summary_tasks.tasks(300, kind)), 4
        )
    row["nonna uncued"] = exact_match(model, tokenizer, summary_tasks.elicit().test)
    sample = summary_tasks.retention()["cued"]
    row["teacher_forced_cued"] = round(exact_match(model, tokenizer, sample), 4)
    row["greedy_cued"] = round(generated_match(model, tokenizer, sample), 4)
    return row | {"cpu_s": round(time.process_time() - start, 1)}


def append(rows: list[dict], row: dict) -> None:
    """Add a row to the list and to the file."""
    stamp = {
        "weights": weights_of(row["base"]),
        "date": datetime.now(timezone.utc).isoformat()[:16],
    }
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    rows.append(row | stamp | {"versions": versions})
    lines = ",\n".join(" " + json.dumps(row) for row in rows)
    with atomic_path(RECORD) as path:
        path.write_text(f'{{"rows": [\n{lines}\n]}}\n', encoding="utf-8")


def ensure(rows: list[dict], run: Run) -> None:
    """Measure a run unless it is on record."""
    if not recorded(rows, **run._asdict()):
        append(rows, measure(run))
        row = {k: v for k, v in rows[-1].items() if k not in ("versions", "date", "weights")}
        print(*row.values(), flush=True)


def measure_everything(rows: list[dict]) -> None:
    """Measure every row of the tables that is not on record: learning rates, then seeds."""
    for base in BASES:
        if not recorded(rows, base=base, task="base"):
            append(rows, measure_base(base))
    measure_rates(rows, pairs(MEASURED), replay=False)
    measure_rates(rows, GATED_REPLAY, replay=True)
    repeat(rows, BASES[0], pairs(MEASURED), SEEDS)
    repeat(rows, BASES[1], pairs(SECOND_BASE), SEEDS[:1])
    repeat(rows, BASES[0], GATED_REPLAY, SEEDS, replay=True)
    measure_rates(rows, REPLAYED, replay=True)
    repeat(rows, BASES[1], pairs(SECOND_BASE), SEEDS)


def pairs(methods_of: dict) -> list[tuple[str, str]]:
    """Return every (task, method) of a table."""
    return [(task, method) for task, methods in methods_of.items() for method in methods]


def measure_rates(rows: list[dict], chosen, *, replay: bool) -> None:
    """Measure tasks and methods at each learning rate, first base, seed 0."""
    for task, method in chosen:
        for rate in RATES[method]:
            ensure(rows, Run(BASES[0], task, method, rate, replay=replay))


def repeat(rows: list[dict], base: str, chosen, seeds, *, replay: bool = False) -> None:
    """Measure tasks and methods at their chosen learning rates, on a base, for some seeds."""
    for (task, method), seed in itertools.product(chosen, seeds):
        rate = best_rate(rows, task, method, replay=replay)
        ensure(rows, Run(base, task, method, rate, seed, replay))


def main() -> int:
    """Measure, print the tables and the gates; return 1 if a gate failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="read the record, measure nothing")
    check_only = parser.parse_args().check
    torch.set_num_threads(1)
    rows = read_rows()
    if not check_only:
        measure_everything(rows)
    print(*main_table(rows, TASKS, RATES), sep="\n", end="\n\n")
    print(*retention_table(rows, ("elicit", "learn_facts"), RATES), sep="\n", end="\n\n")
    gates = all_gates(rows)
    failed = [gate for gate in gates if not gate.passed]
    print(*gates, sep="\n")
    print(f"{len(gates) - len(failed)} of {len(gates)} gates passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
