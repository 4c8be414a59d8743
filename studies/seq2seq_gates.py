"""Measure what the encoder-decoder can be taught, and by which method (about 45 minutes, one core).

    python -m studies.seq2seq_gates          # measures what is missing, then prints the tables
    python -m studies.seq2seq_gates --check  # reads the record; exit 1 names each failed gate

Each finished run is one row of ``data/results/seq2seq_gates.json``, written at once: stop and start
as you like. A row belongs to the weights it was measured on; with new weights it is measured anew.
"""

import argparse
import itertools
import time

from pefthelpers import methods, models
from pefthelpers.measure import count_parameters, exact_match, generate, mean_loss
from pefthelpers.training import fit
from studies import engine, gates
from studies.engine import Gate
from studies.kitchen_world import summary_language, summary_tasks

BASES = ("seq2seq", "seq2seq_seed2")
TASKS = {
    "elicit": summary_tasks.elicit,
    "learn_facts": summary_tasks.learn_facts,
    "learn_format": summary_tasks.learn_format,
}
STEPS = {"elicit": 100, "learn_facts": 200, "learn_format": 150}
# Three learning rates a method, a factor of about three apart; the best is taken on validation.
RATES = {
    "prefix": (1e-2, 3e-2, 1e-1),
    "prefix_projection": (1e-3, 3e-3, 1e-2),
    "prompt": (1e-2, 3e-2, 1e-1),
    "lora": (2e-3, 5e-3, 1e-2),
    "full": (3e-4, 1e-3, 3e-3),
}
PREFIXES = ("prefix", "prefix_projection")
CELLS = [
    *itertools.product(("elicit", "learn_facts"), RATES),
    *itertools.product(("learn_format",), PREFIXES),
]
# What is repeated on the second base, to show that nothing hangs on the first.
SECOND_BASE = [
    *itertools.product(("elicit",), ("prefix_projection", "lora")),
    *itertools.product(("learn_facts",), ("prefix_projection", "lora", "full")),
]
GATED_REPLAY = [("learn_facts", "lora"), ("learn_facts", "full")]
REPLAYED = [*GATED_REPLAY, *itertools.product(["elicit"], ["lora", "full", "prefix_projection"])]
SKILLS = ("plain", "cued", "nonna", "facts", "tasks", "general_loss")


def adapt(base: str, method: str, seed: int):
    """Return a base made trainable by a method, and its tokenizer."""
    config = methods.config(method.removesuffix("_projection"), "seq2seq")
    if method == "prefix":
        config.prefix_projection = False
    return engine.tunable(config, **gates.place(base), seed=seed)


def generated_match(model, tokenizer, examples, *, beams: int = 1) -> float:
    """Return the share of examples whose generated text is the answer, and then ends."""
    texts = generate(model, tokenizer, examples, num_beams=beams, batch_size=100)
    return sum(text == e.answer for text, e in zip(texts, examples, strict=True)) / len(examples)


def retention_scores(model, tokenizer) -> dict[str, float]:
    """Return the exact match of every old skill, and the general loss."""
    old = summary_tasks.retention()
    general = mean_loss(model, tokenizer, old.pop("general"))
    scores = {name: exact_match(model, tokenizer, rows) for name, rows in old.items()}
    return scores | {"general_loss": general}


def measure(base, task, method, learning_rate, seed, replay) -> dict:
    """Fine-tune once and return the row: target, old skills, CPU seconds of the training."""
    data, steps = TASKS[task](seed), STEPS[task]
    model, tokenizer = adapt(base, method, seed)
    options = {"learning_rate": learning_rate, "steps": steps, "seed": seed}
    if (
        replay
    ):  # uncued summaries in plain English would contradict ELICIT, which wants the nonna there
        old = summary_tasks.replay(2000, seed, uncued=task != "elicit")
        options |= {"replay": old, "replay_per_batch": 8}
    start = time.process_time()
    fit(model, tokenizer, data.train, **options)
    row = {
        "cpu_s": time.process_time() - start,
        "trainable": count_parameters(model)[0],
        "steps": steps,
        "validation": exact_match(model, tokenizer, data.validation),
        "validation_loss": mean_loss(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
    }
    main_run = seed == 0 and base == BASES[0]
    if main_run:
        row |= decoded_scores(model, tokenizer, data, beams=task == "elicit" and not replay)
    if replay or main_run:
        row |= retention_scores(model, tokenizer)
    return {name: round(value, 4) for name, value in row.items()}


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
    model, tokenizer = models.load(**gates.place(base))
    row = retention_scores(model, tokenizer)
    for style in summary_language.STYLES:
        for language in ("english", "italian"):
            rows = summary_tasks.summaries(300, style, italian=language == "italian")
            row[f"{style} {language}"] = exact_match(model, tokenizer, rows)
    for kind in summary_language.TASKS:
        row[f"task {kind}"] = exact_match(model, tokenizer, summary_tasks.tasks(300, kind))
    row["nonna uncued"] = exact_match(model, tokenizer, summary_tasks.elicit().test)
    sample = summary_tasks.retention()["cued"]
    row["teacher_forced_cued"] = exact_match(model, tokenizer, sample)
    row["greedy_cued"] = generated_match(model, tokenizer, sample)
    return {name: round(value, 4) for name, value in row.items()}


def read_record() -> gates.Record:
    """Return the recorded rows of the weights in the checkout."""
    return gates.Record("seq2seq_gates", BASES, RATES)


def measure_everything(record: gates.Record) -> None:
    """Measure every row of the tables that is not on record."""
    for base in BASES:
        record.measure_base(measure_base, base)
    record.measure_cells(measure, CELLS)
    record.measure_cells(measure, GATED_REPLAY, replay=True)
    record.measure_cells(measure, SECOND_BASE, base=BASES[1])
    record.measure_cells(measure, REPLAYED, replay=True, seeds=())


def base_gates(record: gates.Record, base: str) -> list[Gate]:
    """Return the gates of a pre-trained base before any fine-tuning."""
    row = record.base(base)
    if not row:
        return [Gate(f"{base}: base scores", None, "least", 0)]
    cells = [name for name in row if name.endswith((" english", " italian"))]
    kinds = [f"task {kind}" for kind in summary_language.MASTERED]
    gap = abs(row["greedy_cued"] - row["teacher_forced_cued"])
    return [
        *(Gate(f"{base}: {name}", row[name], "least", 0.95) for name in (*cells, *kinds)),
        Gate(f"{base}: facts", row["facts"], "least", 0.99),
        Gate(f"{base}: nonna uncued", row["nonna uncued"], "most", 0.0),
        Gate(f"{base}: greedy against teacher-forced", gap, "most", 0.0),
    ]


# task, methods, side, bound, further options: on both bases, and on the first alone
TUNING = [
    ("elicit", ("prefix_projection", "lora"), "least", 0.95, {}),
    ("learn_facts", ("lora", "full"), "least", 0.90, {}),
    ("learn_facts", ("prefix_projection",), "most", 0.30, {}),
]
TUNING_FIRST = [
    ("elicit", ("prefix", "prompt", "full"), "least", 0.95, {}),
    ("elicit", PREFIXES, "least", 0.95, {"column": "beams_100"}),
    ("learn_facts", ("prefix", "prompt"), "most", 0.30, {}),
    ("learn_format", PREFIXES, "least", 0.90, {}),
    ("learn_facts", ("lora", "full"), "least", 0.95, {"column": "facts", "replay": True}),
]


def all_gates(record: gates.Record) -> list[Gate]:
    """Return every gate, both bases, and that decoding agrees with scoring in every run."""
    found = []
    for base, table in zip(BASES, (TUNING + TUNING_FIRST, TUNING), strict=True):
        found += base_gates(record, base)
        seeds = 3 if base == BASES[0] else 1
        for task, compared, side, bound, options in table:
            for method in compared:
                cell = (base, task, method)
                found.append(record.gate(cell, side, bound, seeds=seeds, **options))
    decoded = [row for row in record.rows if "greedy_100" in row]
    gaps = [abs(row["greedy_100"] - row["teacher_forced_100"]) for row in decoded]
    name = "largest gap between greedy decoding and teacher-forced exact match"
    return [*found, Gate(name, max(gaps, default=None), "most", 0.0)]


def main() -> int:
    """Measure, print the tables and the gates; return 1 if a gate failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="read the record, measure nothing")
    check_only = parser.parse_args().check
    engine.quiet_on_one_thread()
    record = read_record()
    if not check_only:
        measure_everything(record)
    every_rate_of = ("elicit", "learn_facts")
    gates.print_tables(record, tasks=TASKS, skills=SKILLS, every_rate_of=every_rate_of)
    return engine.judge(all_gates(record))


if __name__ == "__main__":
    raise SystemExit(main())
