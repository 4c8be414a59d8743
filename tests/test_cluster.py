"""The same run on a Dask cluster: a scheduler and two workers, each a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from pefthelpers import notebooks

pytest.importorskip("distributed")


def start(tmp_path, kind, *arguments):
    """Start a scheduler or a worker; return its process and the file of what it says."""
    log = tmp_path / f"{kind}-{len(list(tmp_path.glob('*.log')))}.log"
    quiet = ["--no-dashboard"] if kind == "worker" else ["--no-dashboard", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{kind}", *quiet, *arguments],
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        cwd=tmp_path / kind,
    )
    return process, log


def said(process, log, pattern):
    """Return what a pattern finds in a log, as soon as it does."""
    for _ in range(600):
        if found := re.search(pattern, log.read_text()):
            return found.group(1)
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture
def cluster(tmp_path):
    """Start a scheduler and two workers; return the address and the workers."""
    for kind in ("scheduler", "worker"):
        (tmp_path / kind).mkdir()
    scheduler, log = start(tmp_path, "scheduler", "--port", "0")
    address = said(scheduler, log, r"Scheduler at: +(tcp://\S+)")
    options = [address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"]
    workers = [start(tmp_path, "worker", *options) for _ in range(2)]
    for worker, worker_log in workers:
        said(worker, worker_log, r"(Registered to)")
    yield address, [worker for worker, _ in workers]
    for process in (scheduler, *(worker for worker, _ in workers)):
        process.kill()
        process.wait()


def test_a_run_survives_the_loss_of_a_worker(cluster, run, make_notebook, tmp_path):
    address, workers = cluster
    pids = {worker.pid for worker in workers}
    # The first run of this notebook kills the worker it is on, in the middle.
    flag = tmp_path / "killed"
    kill = (
        "import os, pathlib, psutil\n"
        f"flag = pathlib.Path({str(flag)!r})\n"
        f"worker = next(p for p in psutil.Process().parents() if p.pid in {pids})\n"
        "if not flag.exists():\n    flag.write_text(str(worker.pid))\n    worker.kill()\n"
        "    import time; time.sleep(600)\n"
        "print('on', worker.pid)"
    )
    bad = make_notebook(kill, name="1_kills.ipynb")
    good = [make_notebook("print('fine')", name=f"{number}_good.ipynb") for number in (2, 3)]
    out = tmp_path / "out"
    code, text = run(bad, *good, "--out", out, "--cluster", address)
    assert code == 0 and "3 passed, 0 failed" in text, text
    lost = int(flag.read_text())
    assert {worker.pid for worker in workers if worker.poll() == -signal.SIGKILL} == {lost}
    (other,) = pids - {lost}
    assert f"on {other}" in str(notebooks.read(out / "1_kills.ipynb").cells)
    rows = json.loads((out / "metrics.json").read_text())["notebooks"]
    assert [row["status"] for row in rows] == ["passed"] * 3
    # Everything came back to the caller: nothing of it stays where the workers ran.
    assert not [path for path in (tmp_path / "worker").rglob("*") if path.suffix == ".ipynb"]


def test_a_scheduler_without_workers_is_wrong_use(run, make_notebook, tmp_path):
    (tmp_path / "scheduler").mkdir()
    scheduler, log = start(tmp_path, "scheduler", "--port", "0")
    try:
        address = said(scheduler, log, r"Scheduler at: +(tcp://\S+)")
        code, text = run(make_notebook("1"), "--out", tmp_path / "out", "--cluster", address)
        assert code == 2 and "has no workers: start some with" in text
    finally:
        scheduler.kill()
        scheduler.wait()


def test_without_the_extra_the_sentence_names_it(run, make_notebook, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, text = run(make_notebook("1"), "--out", tmp_path / "out", "--cluster", "tcp://x:1")
    assert code == 2 and "pip install 'pefthelpers[cluster]'" in text
    assert not os.path.exists(tmp_path / "out")
