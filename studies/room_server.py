"""What a learner costs on a notebook server: three of them on one JupyterHub, on this machine alone.

    python -m studies.room_server [--out FILE]

Needs `.venv-room` (`make .venv-room/installed`). Starts the hub of docs/room on loopback, logs three learners in
with their passwords, and lets them run notebook 00 and the first training of 02 through the Jupyter
API: first one alone, then all three at once. Memory is read from /proc: `private` is what only that process has
(Private_Clean + Private_Dirty of smaps_rollup), `shared` is the rest of its resident pages, libraries that every
learner's process maps and the machine holds once. Seconds are wall and, since a busy machine stretches those, CPU.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import requests
import websocket

from nbregress import notebooks
from pefthelpers import results
from pefthelpers.paths import data_dir
from peftroom import server

ROOT = data_dir().parent
NAMES = ["ada", "grace", "tim"]
LAST_CELL = {"00": None, "02": "own-trained"}
MIB = 2**20


def smaps(pid: int) -> dict[str, float]:
    """Return PSS, private and shared resident MiB of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    sizes = {"pss": kib["Pss"], "private": private, "shared": kib["Rss"] - private}
    return {key: round(value / 1024, 1) for key, value in sizes.items()}


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process since its start."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class Learner:
    """A learner in a browser: logs in by the page's form, then speaks to their own server."""

    def __init__(self, url: str, name: str, password: str):
        """Log in and start the server; ``refused`` says that the hub refused."""
        self.url, self.name, self.session = url, name, requests.Session()
        self.session.get(f"{url}/hub/login").raise_for_status()
        form = {"username": name, "password": password, "_xsrf": self.session.cookies["_xsrf"]}
        started = time.perf_counter()
        answer = self.session.post(f"{url}/hub/login", data=form, allow_redirects=True)
        self.refused = answer.status_code == 403
        if self.refused:
            return
        answer.raise_for_status()
        self.token = self.hub("POST", f"users/{name}/tokens", json={"note": "study"})["token"]
        self.session.headers["Authorization"] = f"token {self.token}"
        while self.hub("GET", f"users/{name}")["server"] is None:
            if time.perf_counter() - started > 180:
                raise RuntimeError(f"{name}'s server did not start: see hub.log")
            time.sleep(0.5)
        self.start_s = time.perf_counter() - started
        self.server_pid = next(p.pid for p in processes() if owner(p) == name)

    def hub(self, method: str, path: str, **given):
        """Ask the hub."""
        xsrf = next(c.value for c in self.session.cookies if c.name == "_xsrf" and "/hub" in c.path)
        answer = self.session.request(
            method, f"{self.url}/hub/api/{path}", headers={"X-XSRFToken": xsrf}, **given
        )
        answer.raise_for_status()
        return answer.json()

    def own(self, method: str, path: str, **given):
        """Ask the learner's own server, by token."""
        answer = requests.request(
            method,
            f"{self.url}/user/{self.name}/api/{path}",
            headers={"Authorization": f"token {self.token}"},
            **given,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def begin(self, stem: str) -> None:
        """Start a kernel for a notebook of the learner's own folder."""
        path = f"notebooks/{stem}.ipynb"
        self.cells = [
            (cell["id"], "".join(cell["source"]))
            for cell in self.own("GET", f"contents/{path}")["content"]["cells"]
            if cell["cell_type"] == "code"
        ]
        before = {p.pid for p in psutil.Process(self.server_pid).children()}
        kernel = self.own("POST", "kernels", json={"name": "python3", "path": path})
        self.kernel = kernel["id"]
        address = f"ws{self.url[4:]}/user/{self.name}/api/kernels/{self.kernel}/channels"
        token = [f"Authorization: token {self.token}"]
        self.socket = websocket.create_connection(address, header=token, timeout=1800)
        now = {p.pid for p in psutil.Process(self.server_pid).children()}
        (self.kernel_pid,) = now - before

    def execute(self, source: str) -> None:
        """Run one cell.

        Raises:
            RuntimeError: it failed.
        """
        request = secrets.token_hex(8)
        header = {
            "msg_id": request,
            "msg_type": "execute_request",
            "username": self.name,
            "session": self.name,
            "version": "5.3",
        }
        content = {"code": source, "silent": False, "store_history": False, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps(message | {"channel": "shell", "buffers": []}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer["parent_header"].get("msg_id") != request:
                continue
            if answer["msg_type"] == "execute_reply":
                if answer["content"]["status"] != "ok":
                    raise RuntimeError(f"{self.name}: {answer['content'].get('evalue')}")
                return

    def run(self, first: str | None, last: str | None) -> dict[str, float]:
        """Run the cells after ``first`` up to ``last``; return seconds and the peak of private memory."""
        ids = [name for name, _ in self.cells]
        start = ids.index(first) + 1 if first else 0
        stop = ids.index(last) + 1 if last else len(ids)
        began, cpu = time.perf_counter(), cpu_s(self.kernel_pid)
        with Peak([self.server_pid, self.kernel_pid]) as peak:
            for _, source in self.cells[start:stop]:
                self.execute(source)
        wall_s = round(time.perf_counter() - began, 1)
        return {"wall_s": wall_s, "cpu_s": round(cpu_s(self.kernel_pid) - cpu, 1), **peak.mib}

    def close(self) -> None:
        """Shut the kernel down."""
        self.socket.close()
        self.own("DELETE", f"kernels/{self.kernel}")

    def memory(self) -> dict[str, dict]:
        """Return server's and kernel's memory now."""
        return {"server": smaps(self.server_pid), "kernel": smaps(self.kernel_pid)}


class Peak:
    """The highest private memory of some processes together while a block runs, in MiB."""

    def __init__(self, pids: list[int]):
        """Take the processes."""
        self.pids, self.mib, self.over = pids, {"peak_private": 0.0, "peak_pss": 0.0}, False

    def __enter__(self):
        """Begin to watch, five times a second."""
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        """Look until the block ends."""
        while not self.over:
            now = [smaps(pid) for pid in self.pids]
            for kind in ("private", "pss"):
                here = round(sum(each[kind] for each in now), 1)
                self.mib[f"peak_{kind}"] = max(here, self.mib[f"peak_{kind}"])
            time.sleep(0.2)

    def __exit__(self, *_):
        """Stop watching."""
        self.over = True
        self.thread.join()


HUB: list[psutil.Process] = []


def processes() -> list[psutil.Process]:
    """Return the hub and all that it started."""
    return [HUB[0], *HUB[0].children(recursive=True)]


def owner(process: psutil.Process) -> str | None:
    """Return whose server a process is, if it is one."""
    if "singleuser" in " ".join(process.cmdline()):
        return process.environ().get("JUPYTERHUB_USER")
    return None


def start(folder: Path, port: int) -> str:
    """Start the hub on three ports from ``port``; return its address once it answers."""
    urls = {
        name: f"http://127.0.0.1:{port + number}"
        for number, name in enumerate(("ROOM_URL", "ROOM_HUB_URL", "ROOM_PROXY_URL"))
    }
    variables = os.environ | urls | {"PEFTHELPERS_VENV": str(ROOT / ".venv")}
    program = [ROOT / ".venv-room/bin/jupyterhub", "-f", folder / "jupyterhub_config.py"]
    with (folder / "hub.log").open("w", encoding="utf-8") as log:
        hub = subprocess.Popen(program, cwd=folder, env=variables, stdout=log, stderr=log)
    HUB[:] = [psutil.Process(hub.pid)]
    for _ in range(300):
        try:
            requests.get(f"{urls['ROOM_URL']}/hub/login").raise_for_status()
            return urls["ROOM_URL"]
        except requests.RequestException:
            time.sleep(0.3)
    sys.exit((folder / "hub.log").read_text(encoding="utf-8")[-3000:])


def each(learners: list[Learner], work) -> list:
    """Do the same for all learners at once."""
    with ThreadPoolExecutor(len(learners)) as pool:
        return list(pool.map(work, learners))


def session(learner: Learner) -> dict:
    """Run notebook 00, then the first training of 02, in a kernel each."""
    paths = {key: notebooks.find([key])[0].stem for key in LAST_CELL}
    learner.begin(paths["00"])
    row = {"learner": learner.name, "00": learner.run(None, None)}
    learner.close()
    learner.begin(paths["02"])
    row["02_imports"] = learner.run(None, "imports")
    row["idle"] = learner.memory()
    row["02_training"] = learner.run("imports", LAST_CELL["02"])
    row["after"] = learner.memory()
    return row


def worst(rows: list[dict], reader) -> float:
    """Return the largest of what a function reads in each row."""
    return max(map(reader, rows))


def private(row: dict, moment: str) -> float:
    """Return what server and kernel of a learner have for themselves at a moment, in MiB."""
    return row[moment]["server"]["private"] + row[moment]["kernel"]["private"]


def summary(hub: dict, rows: list[dict]) -> dict:
    """Return what ``learners_held`` needs for three moments of a learner, each the worst of all.

    ``reading``: one notebook open, its imports run; ``trained``: after the training, the kernel still open;
    ``training``: the peak of all that was run.
    """
    parts = ("server", "kernel")
    shared = sum(worst(rows, lambda row, k=k: row["after"][k]["shared"]) for k in parts)
    runs = ("00", "02_imports", "02_training")
    cases = {
        "reading": worst(rows, lambda row: private(row, "idle")),
        "trained": worst(rows, lambda row: private(row, "after")),
        "training": worst(rows, lambda row: max(row[run]["peak_private"] for run in runs)),
    }
    fixed = round(hub["pss"] + shared, 1)
    found = {key: {"fixed_mib": fixed, "private_mib": round(mib, 1)} for key, mib in cases.items()}
    for case in found.values():
        held = {str(gib): server.learners_held(gib, case) for gib in (8, 16, 32, 64)}
        case["learners"] = held
    return found


def measure(folder: Path, port: int) -> dict:
    """Run the whole experiment in a folder; return the record."""
    passwords = server.prepare(NAMES, folder)
    if os.geteuid() == 0:  # a container, as here; a real room has an account of its own
        with (folder / "jupyterhub_config.py").open("a", encoding="utf-8") as config:
            config.write('c.Spawner.args.append("--allow-root")\n')
    try:
        url = start(folder, port)
        login = lambda name: Learner(url, name, passwords[name])
        refused = Learner(url, "ada", "wrong").refused and Learner(url, "nobody", "x").refused
        learners = [login(NAMES[0])]
        print("one alone", flush=True)
        alone = session(learners[0])
        learners[0].close()
        print(alone, flush=True)
        learners += each(NAMES[1:], login)
        print("three at once", flush=True)
        rows = each(learners, session)
        hub = [
            smaps(p.pid)
            for p in processes()
            if owner(p) is None and "ipykernel" not in " ".join(p.cmdline())
        ]
        hub = {key: round(sum(one[key] for one in hub), 1) for key in hub[0]}
        homes = {
            name: sorted(p.name for p in (folder / "homes" / name).iterdir() if p.name[0] != ".")
            for name in NAMES
        }
    except Exception:
        print((folder / "hub.log").read_text(encoding="utf-8")[-5000:], file=sys.stderr)
        raise
    finally:
        started = processes()
        for process in reversed(started):
            process.terminate()
        psutil.wait_procs(started, timeout=30)
    return {
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "wrong_password_refused": refused,
        "start_s": {each.name: round(each.start_s, 1) for each in learners},
        "homes": homes,
        "hub": hub,
        "alone": alone,
        "together": rows,
        "cases": summary(hub, rows),
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "room_server.json")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results.write(options.out, measure(Path(folder), options.port))
    print("now: python -m studies.room_guide")


if __name__ == "__main__":
    main()
