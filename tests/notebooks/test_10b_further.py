"""Notebook 10b: what ranks agree on, the three traps of a launcher, a rank that dies, the recorded traces."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pefthelpers import models, profiles, results
from pefthelpers.checks import scaling as check
from pefthelpers.paths import data_dir

EXERCISES = range(1, 6)
CONFIGS = data_dir() / "accelerate"
FILES = ("ranks", "traffic", "received", "store", "load", "worker", "worker-loss", "worker-look")
CPU = {"ACCELERATE_USE_CPU": "1"}
LORA = {"task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}


@pytest.fixture
def book(cells, tmp_path, monkeypatch):
    """Return notebook 10b in a folder with the files that it writes, and its functions."""
    opened = cells("10b_further")
    opened.namespace |= {"os": os, "sys": sys, "subprocess": subprocess, "re": re, "torch": torch}
    opened.namespace |= {"contextlib": contextlib, "Path": Path, "signal": signal, "check": check}
    for name in (*FILES, "worker-run", "who"):
        magic, text = opened.by_id[name].source.split("\n", 1)
        with open(tmp_path / magic.split()[-1], "a", encoding="utf-8") as file:
            file.write(text + "\n")
    monkeypatch.chdir(tmp_path)
    opened.run("define-ring", "define-launch", "define-launches", "define-explain")
    return opened


@pytest.mark.parametrize("number", EXERCISES)
def test_each_exercise_has_a_stub_and_a_solution_that_fills_it(number, cells):
    book = cells("10b_further")
    book.namespace |= {"check": check, "torch": torch}
    assert book.verdicts(number) == ("not attempted", "correct")


@pytest.mark.parametrize(("ranks", "size"), [(2, 10), (3, 7), (5, 640), (8, 4096)])
def test_a_ring_gives_every_rank_the_sum(book, ranks, size):
    tensors = [torch.randn(size) for _ in range(ranks)]
    ended, sent = book.namespace["ring_all_reduce"](tensors)
    for each in ended:
        torch.testing.assert_close(each, sum(tensors))
    if size % ranks == 0:
        assert set(sent) == {2 * (ranks - 1) * size * 4 // ranks}


def seen(book, *arguments, **changes):
    """Return what each started process says of itself."""
    changes = {"ACCELERATE_USE_CPU": None, "OMP_NUM_THREADS": "1"} | changes
    ((code, log),) = book.namespace["launches"]((*arguments, "who.py"), **changes)
    assert code == 0, log
    return sorted(re.findall(r"rank \S+ of \d+: \S+", log))


def test_the_cpu_switch_starts_one_process_and_says_nothing(book):
    assert seen(book, "--cpu", "--num_processes", 2) == ["rank None of 1: DistributedType.NO"]


def test_a_configuration_of_type_multi_cpu_starts_one_process(book):
    text = (CONFIGS / "data_parallel.yaml").read_text().replace("MULTI_GPU  #", "MULTI_CPU  #")
    Path("multi_cpu.yaml").write_text(text + "use_cpu: true\n")
    assert seen(book, "--config_file", "multi_cpu.yaml") == ["rank None of 1: DistributedType.NO"]


def test_without_the_word_cpu_two_processes_are_alone(book):
    alone = [f"rank {rank} of 1: DistributedType.NO" for rank in (0, 1)]
    assert seen(book, "--config_file", CONFIGS / "fsdp2.yaml") == alone


@pytest.mark.parametrize("how", ["environment", "argument"])
def test_an_fsdp_configuration_on_cpus_is_data_parallel(book, how):
    """Which of the settings brings the CPU in makes no difference: accelerate shards on GPUs alone."""
    if how == "argument":  # what TrainingArguments(use_cpu=True) hands on
        source = Path("who.py").read_text()
        Path("who.py").write_text(source.replace("Accelerator()", "Accelerator(cpu=True)"))
    found = seen(
        book, "--config_file", CONFIGS / "fsdp2.yaml", **(CPU if how == "environment" else {})
    )
    assert found == [f"rank {rank} of 2: DistributedType.MULTI_CPU" for rank in (0, 1)]


def test_the_worker_refuses_to_train_alone(book):
    Path("ask.py").write_text("import ranks\nranks.start()\n")
    way = ("--config_file", CONFIGS / "data_parallel.yaml", "ask.py")
    ((code, log),) = book.namespace["launches"](way, ACCELERATE_USE_CPU=None)
    assert code == 1
    assert "2 processes were started, but accelerate sees 1" in log


def test_ranks_end_when_the_launcher_is_stopped(book):
    Path("sleep.py").write_text(
        "import os, time\nopen(os.environ['RANK'] + '.pid', 'w').write(str(os.getpid()))\n"
        "time.sleep(300)\n"
    )
    job = book.namespace["start"](
        "--config_file", CONFIGS / "data_parallel.yaml", "sleep.py", **CPU
    )
    for _ in range(1200):
        if all(Path(f"{rank}.pid").exists() and Path(f"{rank}.pid").read_text() for rank in (0, 1)):
            break
        time.sleep(0.1)
    book.namespace["stop"](job)
    for rank in (0, 1):
        pid = int(Path(f"{rank}.pid").read_text())
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def plan(**changes):
    """Return the plan of a short run on made-up rows, which is written to plan.json."""
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 300, (4, 12), generator=draw) for _ in range(4)]
    masks = [torch.ones_like(each) for each in rows]
    batches = [
        {"input_ids": each, "attention_mask": mask, "labels": each.clone()}
        for each, mask in zip(rows, masks, strict=True)
    ]
    for batch in batches:
        batch["labels"][0, :8] = -100  # rank 0 has fewer tokens in the loss
    torch.save(batches, "batches.pt")
    where = models.folder_of("decoder", profiles.settings("decoder", "tiny"))
    made = {
        "seed": 0,
        "model": where,
        "lora": LORA,
        "rate": 2e-3,
        "batches": "batches.pt",
        "look": 1,
    }
    made |= {"every": 2, "folder": "kept", "report": "report"} | changes
    Path("plan.json").write_text(json.dumps(made))
    return made


def test_a_killed_rank_ends_the_job_names_itself_and_leaves_a_whole_checkpoint(book):
    plan(die=[1, 3])
    way = ("--config_file", CONFIGS / "data_parallel.yaml", "worker.py", "plan.json")
    ((code, log),) = book.namespace["launches"](way, **CPU, OMP_NUM_THREADS="1")
    seconds = time.time() - Path("rank-1.step").stat().st_mtime
    assert code == 1 and seconds < 60
    said = book.namespace["explain"](log, "kept")
    assert said.startswith("Rank 1 ended by SIGKILL") and "in step 3;" in said
    assert "resume=kept/step-2" in said
    assert [path.name for path in Path("kept").iterdir()] == ["step-2"]
    report = torch.load("report-0")
    assert report["world"] == 2 and report["sharded"] == 0
    apart = max(
        (report["weighted"][name] - report["mean of means"][name]).abs().max().item()
        for name in report["weighted"]
    )
    assert apart > 1e-4  # the trap of the mean of means


def test_sharded_gradients_are_those_of_one_process(book, monkeypatch):
    plan()
    monkeypatch.syspath_prepend(os.getcwd())
    command = [sys.executable, "worker.py", "plan.json"]
    environment = os.environ | CPU | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    alone = torch.load("report-0")
    way = ("--config_file", CONFIGS / "fsdp2.yaml", "worker.py", "plan.json")
    Path("kept").rename("kept-alone")
    ((code, log),) = book.namespace["launches"](way, **CPU, OMP_NUM_THREADS="1")
    assert code == 0, log
    parts = [torch.load(f"report-{rank}") for rank in (0, 1)]
    for part in parts:
        assert part["world"] == 2 and part["sharded"] == part["tensors"] > 0
        assert part["kind"] == "MULTI_CPU"  # the trap
        assert part["held"] == pytest.approx(1_793_728 / 2, rel=0.01)
        for name, gradient in alone["weighted"].items():
            assert (part["weighted"][name] - gradient).abs().max() <= 1e-6
        assert part["losses"] == pytest.approx(alone["losses"], abs=1e-5)


def test_the_program_to_take_home_runs_on_two_processes_and_refuses_what_is_not_sharded(book):
    text = book.by_id["home-md"].source.split("```python\n")[1].split("```")[0]
    Path("train_lora.py").write_text(text)
    assert text.count("FOUR_BIT = False") == 1
    Path("four_bit.py").write_text(text.replace("FOUR_BIT = False", "FOUR_BIT = True"))
    rows = [{"prompt": "question : a ?", "completion": " answer : b ."}] * 16
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    where = models.folder_of("decoder", profiles.settings("decoder", "tiny"))
    ways = [
        ("--config_file", CONFIGS / config, program, where, "rows.jsonl", folder)
        for config, program, folder in (
            ("data_parallel.yaml", "train_lora.py", "saved"),
            ("fsdp2.yaml", "train_lora.py", "refused"),
            ("data_parallel.yaml", "four_bit.py", "saved-4"),
        )
    ]
    ended = book.namespace["launches"](*ways, **CPU, OMP_NUM_THREADS="1")
    (good, said), (bad, refused), (four, told) = ended
    assert (good, four) == (0, 0), said + told
    for folder in ("saved", "saved-4"):
        assert Path(folder, "adapter_model.safetensors").exists()
    assert bad == 1 and "FSDP2 was asked for" in refused
    assert [*Path("refused").iterdir()] == []  # the Trainer made the folder; nothing was trained


def test_the_recorded_traces_follow_the_formula_where_nothing_large_is_gathered_twice():
    found = results.read("sharding_peaks")
    assert found["about"]["layers_traced"] == [2, 4]
    assert len(found["rows"]) == 2 * 2 * 3 * 2  # models, precisions, numbers of cards, groupings
    ratios = {"accelerate": [], "root": []}
    for row in found["rows"]:
        assert row["traced_bytes"] == sum(row["kinds"].values())
        ratios[row["grouping"]].append(row["traced_bytes"] / row["closed_form_bytes"])
    assert 0.7 < min(ratios["accelerate"]) < max(ratios["accelerate"]) < 1
    assert 1 < min(ratios["root"]) < 4 / 3 < max(ratios["root"]) < 1.4
