"""Every fault that the runner must survive: exit code, message, and what is still there afterwards."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nbregress import notebooks, run_store, schedule
from nbregress.run_store import claimed

RECORD = "from pefthelpers.record import record\nrecord('loss', 0.5, unit='nats')"
KERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def rows(out):
    return {
        row["notebook"]: row for row in json.loads((out / "metrics.json").read_text())["notebooks"]
    }


def whole(out):
    """Assert that nothing half-written lies in a run's folder, and that its reports can be read."""
    assert not list(out.glob(".*.part*"))
    assert (out / "report.html").read_text().endswith("</html>\n")
    assert (out / "junit.xml").read_text().startswith("<?xml")
    return rows(out)


@pytest.mark.parametrize(
    ("source", "reason", "options"),
    [
        ("raise ValueError('cold\\npan')", "(raise ValueError('cold\\npan')): ValueError: pan", []),
        ("import sys\nsys.exit(0)", "SystemExit: 0 (a call of exit()", []),
        ("import os\nos._exit(0)", "its kernel ended with exit code 0", []),
        ("import os\nos.kill(os.getpid(), 9)", "its kernel was killed by SIGKILL", []),
        ("import os\nos.kill(os.getpid(), 11)", "its kernel was killed by SIGSEGV", []),
        ("import os\nos.kill(os.getppid(), 9)", "its process was killed by SIGKILL", []),
        ("while True: pass", "stopped: it took longer than a cell's 2 s", ["--cell-timeout", 2]),
        (
            "import time\ntime.sleep(60)",
            "stopped: it took longer than the notebook's 4 s",
            ["--timeout", 4],
        ),
        ("import warnings\nwarnings.warn('old', FutureWarning)", "): FutureWarning: old", []),
        ("import warnings\nwarnings.warn('x', DeprecationWarning)", "): DeprecationWarning: x", []),
        (RECORD.replace("0.5", "float('nan')"), "must be finite", []),
    ],
)
def test_a_bad_notebook_fails_with_its_cell_and_keeps_what_ran(
    run, make_notebook, tmp_path, source, reason, options
):
    bad = make_notebook("print('before')", source, "print('later')", name="1_bad.ipynb")
    out = tmp_path / "out"
    code, text = run(bad, "--out", out, *options)
    assert code == 1 and "0 passed, 1 failed" in text
    row = whole(out)["1_bad"]
    assert reason in row["reason"] and row["reason"] in text and "cell 2 [cell-2]" in row["reason"]
    assert row["source"] == source
    executed = notebooks.read(out / "1_bad.ipynb")
    assert "before" in str(executed.cells) and "later\n" not in str(executed.cells[-1].outputs)


def test_the_others_survive_a_process_that_is_killed(run, make_notebook, tmp_path):
    bad = make_notebook("import os\nos.kill(os.getppid(), 9)", name="1_bad.ipynb")
    good = [make_notebook(RECORD, name=f"{number}_good.ipynb") for number in (2, 3)]
    code, text = run(bad, *good, "--out", tmp_path / "out", "--jobs", 2)
    assert code == 1 and "2 passed, 1 failed" in text


def command(*arguments):
    return [sys.executable, "-m", "nbregress.cli", "run", *map(str, arguments)]


def test_a_notebook_out_of_memory_fails_alone(make_notebook, tmp_path):
    import resource

    limit = 3 << 30
    bad = make_notebook("x = bytearray(8 << 30)", name="1_bad.ipynb")
    good, out = make_notebook(RECORD, name="2_good.ipynb"), tmp_path / "out"
    done = subprocess.run(
        command(bad, good, "--out", out),
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert "cell 1 [cell-1] (x = bytearray(8 << 30)): MemoryError" in done.stdout
    assert whole(out)["2_good"]["status"] == "passed"


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of half a megabyte; return its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here; other tests stand in for it")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full_costs_only_what_does_not_fit(run, make_notebook, disk):
    small = make_notebook(RECORD, name="1_small.ipynb")
    big = make_notebook("print('x' * 700_000)", name="2_big.ipynb")
    out = disk / "out"
    code, text = run(small, big, "--out", out)
    assert code == 1
    assert "2_big.ipynb could not be written: Cannot write" in text
    assert "(No space left on device): free some space, or choose another folder" in text
    assert "report.html could not be written" in text and "report: " not in text
    assert "2 passed, 0 failed" in text and ", and not every file could be written" in text
    found = rows(out)  # all results, though not all files
    assert found["1_small"]["status"] == found["2_big"]["status"] == "passed"
    assert (out / "1_small.ipynb").exists() and not list(out.glob(".*.part*"))
    assert (out / "junit.xml").exists() and not (out / "2_big.ipynb").exists()


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_disk_that_takes_nothing_is_said_before_anything_runs(run, make_notebook, disk, state):
    if state == "full":
        with pytest.raises(OSError), open(disk / "filling", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    else:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, text = run(make_notebook(RECORD), "--out", disk / "out")
    why = {"full": "No space left on device", "read-only": "Read-only file system"}[state]
    assert code == 2 and why in text and len(text.splitlines()) == 1
    assert not (disk / "out" / "metrics.json").exists()


def test_a_temporary_disk_that_is_full_fails_what_does_not_fit(
    run, make_notebook, disk, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(disk))
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    big = make_notebook("print('x' * 700_000)", name="1_big.ipynb")
    small, out = make_notebook(RECORD, name="2_small.ipynb"), tmp_path / "out"
    code, text = run(big, small, "--out", out)
    assert (
        code == 1 and f"the disk where it runs is full: free some of {disk}, or set TMPDIR" in text
    )
    found = whole(out)
    assert [found[name]["status"] for name in ("1_big", "2_small")] == ["failed", "passed"]


def test_a_temporary_disk_without_any_room_is_named(make_notebook):
    from concurrent.futures import Future

    from nbregress.result import Job

    future = Future()
    future.set_exception(OSError(errno.ENOSPC, "No space left on device"))
    result = schedule.outcome_of(future, Job.of(make_notebook("1"), {})).result
    assert result.status == "failed"
    assert "the disk where it runs is full" in result.reason and "TMPDIR" in result.reason


def test_a_write_that_fails_once_is_tried_again_at_the_end(
    run, make_notebook, tmp_path, monkeypatch
):
    failed = []

    def write(self, name, text):
        if name.endswith(".ipynb") and not failed:
            failed.append(name)
            self.trouble.append("No space left on device")
            return False
        return original(self, name, text)

    original = run_store.RunStore.write
    monkeypatch.setattr(run_store.RunStore, "write", write)
    out = tmp_path / "out"
    code, text = run(make_notebook(RECORD), "--out", out)
    assert code == 0 and failed == ["99_made.ipynb"] and "No space" not in text
    assert (out / "99_made.ipynb").exists()


def test_a_folder_removed_mid_run_comes_back_whole(run, make_notebook, tmp_path):
    out = tmp_path / "out"
    first = make_notebook(RECORD, name="1_first.ipynb")
    remove = make_notebook(f"import shutil\nshutil.rmtree({str(out)!r})", name="2_remove.ipynb")
    code, text = run(first, remove, "--out", out)
    assert code == 0, text
    assert set(whole(out)) == {"1_first", "2_remove"}
    assert (out / "1_first.ipynb").exists() and (out / "2_remove.ipynb").exists()


def test_a_report_that_cannot_be_made_loses_no_run(run, make_notebook, tmp_path, monkeypatch):
    def broken(executed):
        raise ValueError("No template sub-directory with name 'basic' found\nin these: …")

    monkeypatch.setattr("nbregress.report.rendered", broken)
    good, out = make_notebook(RECORD, name="1_good.ipynb"), tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("of an older run")
    code, text = run(good, "--out", out)
    assert code == 0 and "1 passed, 0 failed" in text
    why = "ValueError: No template sub-directory with name 'basic' found"
    assert text.strip().endswith(f"; there is no report.html, it could not be made ({why})")
    assert not (out / "report.html").exists()
    assert rows(out)["1_good"]["status"] == "passed" and (out / "1_good.ipynb").exists()
    assert 'failures="0"' in (out / "junit.xml").read_text()
    bad = make_notebook("1 / 0", name="1_bad.ipynb")
    assert run(bad, "--out", out)[0] == 1 and rows(out)["1_bad"]["status"] == "failed"


def gone(process_id):
    """Tell whether a process ends within ten seconds."""
    for _ in range(100):
        if not psutil.pid_exists(process_id) or psutil.Process(process_id).status() == "zombie":
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def interruptible(make_notebook, tmp_path):
    """Start a run whose second notebook waits; return its process, paths and folder."""
    count = f"print(file=open({str(tmp_path / 'ran')!r}, 'a'))"
    go, pid = tmp_path / "go", tmp_path / "pid"
    wait = (
        "import os, time, pathlib\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        f"time.sleep(0 if os.path.exists({str(go)!r}) else 600)"
    )
    paths = [
        make_notebook(count, name="1_quick.ipynb"),
        make_notebook("print('so far')", wait, name="2_long.ipynb"),
    ]
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(*paths, "--out", out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to Ctrl-C, and they pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    yield process, paths, out
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_what_is_done_and_resume_completes_it(
    run, interruptible, tmp_path, number
):
    process, paths, out = interruptible
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; finished notebooks are kept, --resume runs the rest" in text
    assert gone(int((tmp_path / "pid").read_text()))
    found = whole(out)
    assert [found[name]["status"] for name in ("1_quick", "2_long")] == ["passed", "stopped"]
    assert found["1_quick"]["notes"] == ["metrics not compared: no baseline recorded"]
    assert (
        found["2_long"]["reason"] == "stopped before it was done" and found["2_long"]["cell"] == 2
    )
    assert "so far" in (out / "2_long.ipynb").read_text()
    (tmp_path / "go").touch()
    code, text = run(*paths, "--out", out, "--resume")
    assert code == 0 and "2 passed" in text
    assert (tmp_path / "ran").read_text() == "\n"  # the first notebook ran once


def test_a_runner_killed_hard_leaves_no_kernel_behind(interruptible, tmp_path):
    process, _, out = interruptible
    process.kill()
    assert gone(int((tmp_path / "pid").read_text()))
    assert rows(out)["1_quick"]["status"] == "passed"


def test_two_runs_do_not_share_a_folder(run, make_notebook, tmp_path):
    out, path = tmp_path / "out", make_notebook(RECORD)
    with claimed(out):
        code, text = run(path, "--out", out)
        assert code == 2 and f"Another run (process {os.getpid()}) writes into" in text
        assert not (out / "metrics.json").exists()
    assert run(path, "--out", out)[0] == 0


@pytest.fixture
def kernelspec(tmp_path, monkeypatch):
    """Return a function that puts a program of ours in place of the Jupyter kernel python3."""

    def install(source):
        folder = tmp_path / "jupyter" / "kernels" / "python3"
        folder.mkdir(parents=True)
        (folder / "launch.py").write_text(source)
        argv = [sys.executable, str(folder / "launch.py"), "{connection_file}"]
        spec = {"argv": argv, "display_name": "x", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    return install


START = "from ipykernel.kernelapp import launch_new_instance\nlaunch_new_instance(['-f', sys.argv[1]])\n"


def test_a_kernel_whose_port_is_taken_is_started_once_more(
    run, kernelspec, make_notebook, tmp_path
):
    flag = tmp_path / "clashed"
    kernelspec(
        "import json, os, socket, sys\n"
        f"if not os.path.exists({str(flag)!r}):\n"
        f"    open({str(flag)!r}, 'w').close()\n"
        "    taken = socket.create_server(('127.0.0.1', json.load(open(sys.argv[1]))['shell_port']))\n"
        f"{START}"
    )
    code, text = run(make_notebook(RECORD), "--out", tmp_path / "out")
    assert code == 0, text
    assert flag.exists() and rows(tmp_path / "out")["99_made"]["kernel_starts"] == 2
    assert "kernel started at the second try" in (tmp_path / "out" / "report.html").read_text()


def test_a_kernel_that_never_starts_is_tried_twice_and_no_more(
    run, kernelspec, make_notebook, tmp_path
):
    starts = tmp_path / "starts"
    kernelspec(f"print(file=open({str(starts)!r}, 'a'))\nraise SystemExit('no such library')")
    code, text = run(make_notebook(RECORD), "--out", tmp_path / "out")
    assert code == 1 and "the kernel never started, in two tries: no such library" in text
    assert starts.read_text() == "\n\n"


def test_nothing_else_is_tried_again(run, make_notebook, tmp_path):
    ran = tmp_path / "ran"
    source = f"print(file=open({str(ran)!r}, 'a'))\nimport os\nos.kill(os.getpid(), 9)"
    assert run(make_notebook(source), "--out", tmp_path / "out")[0] == 1
    assert ran.read_text() == "\n"


def test_a_worker_lost_without_a_trace_is_a_failed_notebook(make_notebook):
    from concurrent.futures import Future

    from nbregress.result import Job

    future = Future()
    future.set_exception(RuntimeError("gone"))
    result = schedule.outcome_of(future, Job.of(make_notebook("1"), {})).result
    assert result.status == "failed" and result.reason == "its worker was lost: RuntimeError: gone"


def test_no_temporary_folder_is_left(run, make_notebook, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    run(make_notebook("1 / 0"), "--out", tmp_path / "out")
    assert [path for path in Path(temporary).iterdir() if path.name.startswith("pefthelpers")] == []
