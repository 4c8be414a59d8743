"""Every method on the kitchen's tasks, for notebook 07: the same data, steps and search for each.

    python -m studies.sweep decoder    # ELICIT and LEARN; about 70 CPU minutes
    python -m studies.sweep seq2seq    # ELICIT; new facts are in seq2seq_gates.py; about 25

Resumable: a run is a row of ``data/results/sweep_decoder.json`` or ``sweep_seq2seq.json``; rows that
are there are not run again. Each method climbs a ladder of learning rates, a factor of about three
apart, on validation with seed 0, going on while the best is at the edge of those tried, then by halves
below the lowest that ties with the best; that one runs on every seed. Every row also measures what is
left of the old skills, so the search itself draws target against retention. float32, one thread; seconds
are process time, training alone.
The encoder's part is ``encoder_study.py``; the real decoder's are ``qlora_study.py smollm2`` and
``sweep_smollm2.py``; what each method costs at three billion parameters, ``sweep_cost.py``.
"""

import functools
import sys
import tempfile
import time
from pathlib import Path

from pefthelpers import kitchen, methods, models
from pefthelpers.measure import count_parameters, exact_match, mean_loss
from pefthelpers.training import fit
from studies import engine
from studies.engine import Cell
from studies.kitchen_world import summary_tasks

TASKS = {
    "decoder": {"elicit": kitchen.elicit, "learn": kitchen.learn},
    "seq2seq": {"elicit": summary_tasks.elicit},
}
STEPS = {"elicit": 100, "learn": 200}
SEEDS = {"decoder": (0, 1, 2, 3, 4), "seq2seq": (0, 1, 2)}
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
# Where each search begins: positions on the ladder.
FIRST = {"full": (3, 4, 5), "lora": (5, 6), "lora_qv": (5, 6, 7), "prefix": (4, 5, 6)}
FIRST |= dict.fromkeys(("rslora", "dora", "qlora", "houlsby", "pfeiffer"), (4, 5, 6))
FIRST |= dict.fromkeys(("ia3", "ln", "prompt"), (7, 8, 9))


def kept(role: str, model, tokenizer) -> dict[str, float]:
    """Return what is left of the old skills: exact match of each, and the loss on old texts."""
    old = kitchen.retention() if role == "decoder" else summary_tasks.retention()
    texts = old.pop("documents" if role == "decoder" else "general")
    scores = {name: exact_match(model, tokenizer, rows) for name, rows in old.items()}
    return scores | {"general_loss": mean_loss(model, tokenizer, texts)}


def saved_bytes(model) -> int:
    """Return the size of the weights' file that the library saves."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def measure(role: str, task: str, method: str, learning_rate: float, seed: int) -> dict:
    """Fine-tune once; return the method's size, the target's scores and what is kept."""
    data = TASKS[role][task](seed)
    four_bit = {"four_bit": True, "double_quant": True} if method == "qlora" else {}
    model, tokenizer = engine.tunable(methods.config(method, role), role, seed=seed, **four_bit)
    start, steps = time.process_time(), STEPS[task]
    fit(model, tokenizer, data.train, learning_rate=learning_rate, steps=steps, seed=seed)
    row = {
        "steps": steps,
        "step_cpu_s": (time.process_time() - start) / steps,
        "trainable_parameters": count_parameters(model)[0],
        "file_bytes": saved_bytes(model),
        "validation": exact_match(model, tokenizer, data.validation),
        "validation_loss": mean_loss(model, tokenizer, data.validation),
        "test": exact_match(model, tokenizer, data.test),
        "test_loss": mean_loss(model, tokenizer, data.test),
    }
    row |= kept(role, model, tokenizer)
    return {name: round(value, 5) for name, value in row.items()}


def cells(role: str) -> list[Cell]:
    """Return the table: every task of a role by every method."""
    return [
        Cell({"task": task, "method": method}, LADDER, FIRST[method])
        for task in TASKS[role]
        for method in methods.LABELS
    ]


def main() -> None:
    """Run what is not in the record yet."""
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role not in TASKS:
        sys.exit(f"usage: python -m studies.sweep {'|'.join(TASKS)}")
    study, run, table = engine.start(f"sweep_{role}"), functools.partial(measure, role), cells(role)
    study.measure(lambda: kept(role, *models.load(role)), task="base")
    study.print_table(table, study.tune(table, run, SEEDS[role]))


if __name__ == "__main__":
    main()
