"""Time one training step of our bottleneck adapters against AdapterHub's, side by side.

    .venv/bin/python -m studies.bottleneck_benchmark .venv-adapterhub/bin/python OUT.json

Same model (RoBERTa with MiniLM's sizes, random weights), adapter, classification head, data,
optimiser and torch; one thread. Three workers stay alive, each in a process of its own, and take
turns round by round, so that a busy machine disturbs all alike:

    adapterhub   AdapterHub's library on transformers 4
    ours_4       our package in AdapterHub's environment: only the adapters differ
    ours         our package on transformers 5, as a reader uses it

The figure is CPU time of the process per step, the median over the rounds; the wall clock stands
beside it. A ratio below 1 means that ours is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

PLACEMENTS = {"houlsby": "DoubleSeqBnConfig", "pfeiffer": "SeqBnConfig"}
SIZES = {
    "vocab_size": 1000,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ROWS, TOKENS, WARM_UP_STEPS, STEPS_PER_ROUND = 8, 32, 3, 4


def adapterhub_model(placement: str, folder: Path) -> Any:
    """Build the model with AdapterHub's library and write it for the other workers."""
    import adapters
    from transformers import RobertaConfig, RobertaModel

    RobertaModel(RobertaConfig(**SIZES)).save_pretrained(folder / "base")
    model = adapters.AutoAdapterModel.from_pretrained(folder / "base")
    config = getattr(adapters, PLACEMENTS[placement])(reduction_factor=16)
    model.add_adapter("task", config=config)
    model.add_classification_head("task", num_labels=2)
    model.train_adapter("task")
    model.save_adapter(str(folder / "adapter"), "task", use_safetensors=True)
    return model


def our_model(folder: Path) -> Any:
    """Read what ``adapterhub_model`` wrote."""
    from transformers import AutoModelForSequenceClassification

    from peftbottleneck import from_adapterhub

    load = AutoModelForSequenceClassification.from_pretrained
    return from_adapterhub(load(folder / "base", num_labels=2), folder / "adapter")


def work(name: str, placement: str, folder: Path) -> None:
    """Be a worker: print what was built, then train a round for each line read."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = adapterhub_model(placement, folder) if name == "adapterhub" else our_model(folder)
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-4)
    generator = torch.Generator().manual_seed(1)
    batch = {
        "input_ids": torch.randint(3, 1000, (ROWS, TOKENS), generator=generator),
        "attention_mask": torch.ones(ROWS, TOKENS, dtype=torch.long),
        "labels": torch.arange(ROWS) % 2,
    }

    def steps(count: int) -> list[float]:
        losses = []
        for _ in range(count):
            loss = model(**batch).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
        return losses

    losses = steps(WARM_UP_STEPS)
    say({"trained_parameters": sum(p.numel() for p in trainable), "losses": losses})
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        steps(STEPS_PER_ROUND)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        say({"wall_s": wall / STEPS_PER_ROUND, "cpu_s": cpu / STEPS_PER_ROUND})


def say(value: dict[str, Any]) -> None:
    """Print one line for the driver."""
    print("@" + json.dumps(value), flush=True)


def start(python: str, name: str, placement: str, folder: Path) -> subprocess.Popen:
    """Start a worker; the libraries' own chatter is dropped."""
    source = Path(__file__).resolve().parents[1] / "src"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(source),
    }
    return subprocess.Popen(
        [python, __file__, "--worker", name, placement, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=environment,
    )


def answer(worker: subprocess.Popen) -> dict[str, Any]:
    """Return the next line a worker meant for us."""
    for line in worker.stdout:
        if line.startswith("@"):
            return json.loads(line[1:])
    raise SystemExit(f"A worker died: run it by hand to see why: {' '.join(worker.args)}")


def compare(hub_python: str, placement: str, rounds: int) -> dict[str, Any]:
    """Time the three workers in turns; return their figures and ratios."""
    pythons = {"adapterhub": hub_python, "ours_4": hub_python, "ours": sys.executable}
    built, timed = {}, {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as folder:
        workers = {}
        for name, python in pythons.items():
            workers[name] = start(python, name, placement, Path(folder))
            built[name] = answer(workers[name])
        for number in range(rounds):
            order = list(pythons) if number % 2 else list(pythons)[::-1]
            for name in order:
                workers[name].stdin.write("go\n")
                workers[name].stdin.flush()
                timed[name].append(answer(workers[name]))
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    row: dict[str, Any] = {"placement": placement, "workers": {}}
    for name in pythons:
        row["workers"][name] = {**built[name], "rounds": timed[name]}
        for clock in ("cpu_s", "wall_s"):
            row["workers"][name][clock] = statistics.median(r[clock] for r in timed[name])
    for name in ("ours_4", "ours"):
        for clock in ("cpu_s", "wall_s"):
            paired = zip(timed[name], timed["adapterhub"], strict=True)
            row[f"ratio_{name}_{clock}"] = statistics.median(a[clock] / b[clock] for a, b in paired)
    return row


def versions(python: str) -> dict[str, str]:
    """Return the versions an environment holds."""
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({n: m.version(n) for n in ('torch', 'transformers', 'peft')}))"
    )
    return json.loads(subprocess.check_output([python, "-c", code], encoding="utf-8"))


def main() -> None:
    """Run the benchmark, or be one of its workers."""
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        return
    from pefthelpers import results  # not for the workers: theirs is another environment

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hub_python", help="the Python of AdapterHub's environment")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    began = time.perf_counter()
    rows = [compare(args.hub_python, placement, args.rounds) for placement in PLACEMENTS]
    record = {
        "rows": rows,
        "environments": {"ours": versions(sys.executable), "hub": versions(args.hub_python)},
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seconds": round(time.perf_counter() - began, 1),
        "threads": 1,
    }
    results.write(args.out, record)
    for row in rows:
        print(row["placement"], {k: round(v, 3) for k, v in row.items() if k.startswith("ratio")})


if __name__ == "__main__":
    main()
