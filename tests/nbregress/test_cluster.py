"""The same run on a Dask cluster: a scheduler and two workers, each a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from nbregress import notebooks

pytest.importorskip("distributed")


class Cluster:
    """A scheduler and its workers, processes of their own, which several tests use and some kill."""

    def __init__(self, folder):
        self.folder, self.workers, self.scheduler, self.logs = folder, [], None, 0

    def start(self, kind, *arguments):
        """Start a scheduler or a worker; return its process and the file of what it says."""
        self.logs += 1
        (self.folder / kind).mkdir(exist_ok=True)
        log = self.folder / f"{kind}-{self.logs}.log"
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *arguments],
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            cwd=self.folder / kind,
        )
        return process, log

    def have(self, count):
        """Start what is not there of a scheduler and ``count`` workers; more than that are killed."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            local = ["--host", "127.0.0.1", "--port", "0"]
            self.scheduler, log = self.start("scheduler", *local)
            self.address = said(self.scheduler, log, r"Scheduler at: +(tcp://\S+)")
            self.kill(self.workers)
        living = [worker for worker in self.workers if worker.poll() is None]
        self.kill(living[count:])
        options = [self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"]
        started = [self.start("worker", *options) for _ in range(count - len(living))]
        for worker, log in started:
            said(worker, log, r"(Registered to)")
        self.workers = living[:count] + [worker for worker, _ in started]
        return self

    @staticmethod
    def kill(processes):
        for process in processes:
            process.kill()
            process.wait()


def said(process, log, pattern):
    """Return what a pattern finds in a log, as soon as it does."""
    for _ in range(600):
        if found := re.search(pattern, log.read_text()):
            return found.group(1)
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def statuses(out):
    """Return how the notebooks of a run ended."""
    return [row["status"] for row in json.loads((out / "metrics.json").read_text())["notebooks"]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Keep one cluster for all tests; a test that kills a part of it costs the next one that part."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill([cluster.scheduler, *cluster.workers])


@pytest.fixture
def cluster(shared):
    """Return the cluster with two workers."""
    return shared.have(2)


def test_a_run_survives_the_loss_of_a_worker(cluster, run, make_notebook, tmp_path):
    address, workers = cluster.address, cluster.workers
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
    assert statuses(out) == ["passed"] * 3
    # Everything came back to the caller: nothing of it stays where the workers ran.
    assert not [path for path in (cluster.folder / "worker").rglob("*") if path.suffix == ".ipynb"]


WAIT = "import os, time\nopen({pid!r}, 'w').write(str(os.getpid()))\ntime.sleep(0 if os.path.exists({go!r}) else 600)"


@pytest.fixture
def on_cluster(cluster, make_notebook, tmp_path):
    """Start a run on the cluster as a process of its own, up to its second notebook, which waits."""
    pid, go, out = tmp_path / "pid", tmp_path / "go", tmp_path / "out"
    wait = WAIT.format(pid=str(pid), go=str(go))
    paths = [make_notebook("1", name="1_quick.ipynb"), make_notebook(wait, name="2_long.ipynb")]
    command = [sys.executable, "-m", "nbregress.cli", "run", *paths, "--out", out]
    runner = subprocess.Popen(
        [*map(str, command), "--cluster", cluster.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for _ in range(600):
        if pid.exists() and pid.read_text() and (out / "1_quick.ipynb").exists():
            break
        assert runner.poll() is None
        time.sleep(0.1)
    yield runner, paths, out
    runner.kill()
    runner.communicate()


def test_ctrl_c_stops_what_runs_on_the_workers_and_resume_completes(
    cluster, on_cluster, run, tmp_path
):
    runner, paths, out = on_cluster
    runner.send_signal(signal.SIGTERM)  # as Ctrl-C, which a shell's background jobs are deaf to
    text, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130 and "finished notebooks are kept" in text
    kernel = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == "zombie"
    assert statuses(out) == ["passed", "stopped"] and (out / "report.html").exists()
    (tmp_path / "go").touch()
    code, text = run(*paths, "--out", out, "--resume", "--cluster", cluster.address)
    assert code == 0 and "2 passed" in text


def test_without_any_worker_left_a_run_ends(cluster, run, make_notebook, tmp_path, monkeypatch):
    monkeypatch.setattr("nbregress.executors.LOST_S", 2)
    killed = {worker.pid for worker in cluster.workers}
    kill = f"import os, signal\nfor pid in {killed}:\n    os.kill(pid, signal.SIGKILL)"
    path, out = make_notebook(kill + "\nimport time; time.sleep(600)"), tmp_path / "out"
    code, text = run(path, "--out", out, "--cluster", cluster.address)
    assert code == 1 and "its worker was lost, and no other was left" in text
    assert statuses(out) == ["failed"] and (out / "report.html").exists()


def test_a_scheduler_that_dies_ends_the_run(cluster, on_cluster):
    runner, _, out = on_cluster
    cluster.scheduler.kill()
    text, _ = runner.communicate(timeout=60)
    assert runner.returncode == 1 and "its worker was lost" in text
    assert statuses(out) == ["passed", "failed"] and (out / "report.html").exists()


def test_a_scheduler_without_workers_is_wrong_use(shared, run, make_notebook, tmp_path):
    address = shared.have(0).address
    code, text = run(make_notebook("1"), "--out", tmp_path / "out", "--cluster", address)
    assert code == 2 and "has no workers: start some with" in text


def test_without_the_extra_the_sentence_names_it(run, make_notebook, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, text = run(make_notebook("1"), "--out", tmp_path / "out", "--cluster", "tcp://x:1")
    assert code == 2 and "pip install 'pefthelpers[cluster]'" in text
    assert not os.path.exists(tmp_path / "out")
