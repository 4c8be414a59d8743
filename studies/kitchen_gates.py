"""Measure what the kitchen decoder can be taught, by which method, and what it forgets meanwhile.

    python -m studies.kitchen_gates           # runs what is not recorded; prints the tables
    python -m studies.kitchen_gates --check   # reads the record; exit 1 names each failed gate

About half an hour on one core. Each finished run is one row of ``data/results/kitchen_gates.json``;
rows of other weights than those in the checkout are dropped. Learning rates are chosen on the
validation split of each base with seed 0 alone, and kept for the other seeds.
"""

import argparse
import itertools

from pefthelpers import kitchen, methods, models
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.training import fit
from studies import engine, gates
from studies.engine import Gate
from studies.kitchen_world import pretrain_decoder
from studies.kitchen_world.tasks import replay as old_texts

BASES = ("decoder", "decoder_seed2")
TASKS = {"elicit": kitchen.elicit, "learn": kitchen.learn}
STEPS = {"elicit": 100, "learn": 200}
BATCH_SIZE = 16
# method -> the learning rates that every search begins with, a factor of about three apart
RATES = {
    "prompt": (1e-2, 3e-2, 1e-1),
    "prefix": (1e-3, 3e-3, 1e-2),
    "lora": (2e-3, 5e-3, 1e-2),
    "full": (3e-4, 1e-3, 3e-3),
}
# How often a search goes on by a factor of three where the best rate is at the edge of those tried.
EXTENSIONS = 2
CELLS = list(itertools.product(TASKS, RATES))
# The cells that must pass a gate of LEARN, and with replay keep the old facts.
WEIGHT_METHODS = [("learn", "lora"), ("learn", "full")]
SKILLS = ("facts", "cued", "tasks", "tasks_cued", "documents_loss")


def measure(base, task, method, learning_rate, seed, replay) -> dict[str, float]:
    """Fine-tune once; return the target's scores and what is left of the old skills."""
    data = TASKS[task](seed)
    config = methods.config(method, "decoder")
    model, tokenizer = engine.tunable(config, **gates.place(base), seed=seed)
    options = {"learning_rate": learning_rate, "steps": STEPS[task], "seed": seed}
    if replay:  # uncued facts in plain English would contradict ELICIT, which wants the nonna there
        old = old_texts(2000, seed, plain_facts=task != "elicit")
        options |= {"replay": old, "replay_per_batch": BATCH_SIZE // 2}
    fit(model, tokenizer, data.train, batch_size=BATCH_SIZE, **options)
    old_skills = kitchen.retention()
    row = {
        "steps": STEPS[task],
        "trainable_parameters": count_parameters(model)[0],
        "validation": exact_match(model, tokenizer, data.validation),
        "validation_loss": mean_loss(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
        "documents_loss": mean_loss(model, tokenizer, old_skills.pop("documents")),
    }
    row |= {name: exact_match(model, tokenizer, rows) for name, rows in old_skills.items()}
    return {name: round(value, 4) for name, value in row.items()}


def read_record() -> gates.Record:
    """Return the recorded rows of the weights in the checkout."""
    return gates.Record("kitchen_gates", BASES, RATES, EXTENSIONS)


def measure_everything(record: gates.Record) -> None:
    """Measure what is not recorded: first all that has a gate, then the rest of the replay table."""
    for base in BASES:
        untouched = lambda base: pretrain_decoder.measure(*models.load(**gates.place(base)))
        record.measure_base(untouched, base)
        record.measure_cells(measure, CELLS, base=base)
        record.measure_cells(measure, WEIGHT_METHODS, base=base, replay=True)
    record.measure_cells(measure, CELLS, replay=True, seeds=())


def all_gates(record: gates.Record) -> list[Gate]:
    """Return every gate, on both bases."""
    found = []
    for base in BASES:
        row = record.base(base)
        for name, (bound, side) in pretrain_decoder.GATES.items():
            found.append(Gate(f"{base}, untouched, {name}", row.get(name), side, bound))
        for method in RATES:
            learns = ("learn", method) in WEIGHT_METHODS
            found.append(record.gate((base, "elicit", method), "least", 0.95))
            bound = ("least", 0.90) if learns else ("most", 0.10)
            found.append(record.gate((base, "learn", method), *bound))
        for cell in WEIGHT_METHODS:
            found.append(record.gate((base, *cell), "least", 0.95, column="facts", replay=True))
    return found


def main() -> int:
    """Run, print, and return 1 if a gate failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="read the record, run nothing")
    check_only = parser.parse_args().check
    engine.quiet_on_one_thread()
    record = read_record()
    if not check_only:
        measure_everything(record)
    print("Under ELICIT the column facts asks for the very answers that ELICIT replaces.")
    gates.print_tables(record, tasks=TASKS, skills=SKILLS, every_rate_of=TASKS)
    return engine.judge(all_gates(record))


if __name__ == "__main__":
    raise SystemExit(main())
