"""How long the whole collection takes: `pefthelpers run`, and the same notebooks one after the other.

    python data/scripts/runner_benchmark.py [--jobs 2]

The second way is `jupyter execute`, one notebook at a time, with the same threads variable left free
(two OpenMP threads on two cores). Both in the tiny profile, in a warm environment: one notebook is
executed before the clock starts. Wall and CPU seconds, and the machine's load before and after, since a
busy machine slows both. Run it when nothing else runs; a row is measured once (see Study).
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pefthelpers import notebooks
from pefthelpers.paths import data_dir
from pefthelpers.runner.apart import environment
from pefthelpers.study import Study


def timed(command: list[str], folder: Path, threads: int) -> dict[str, float]:
    """Run a command and return its wall seconds, CPU seconds and the load around it."""
    load, start = os.getloadavg()[0], time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    variables = os.environ | environment(threads)
    subprocess.run(command, check=True, cwd=folder, env=variables, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(time.perf_counter() - start, 1),
        "child_cpu_s": round(cpu_s, 1),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def one_by_one(path: Path) -> dict[str, float]:
    """Execute one notebook by `jupyter execute`, on a copy that keeps its place among the data."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(path, folder))
        command = [sys.executable, "-m", "jupyter", "execute", "--kernel_name=python3", str(copy)]
        return timed(command, path.parent, os.cpu_count() or 1)


def together(paths: list[Path], jobs: int) -> dict[str, float]:
    """Execute all notebooks by the runner."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pefthelpers.cli", "run", *map(str, paths)]
        command += ["--jobs", str(jobs), "--out", str(Path(folder) / "out")]
        return timed(command, notebooks.notebooks_dir().parent, 1)


def main() -> None:
    """Measure what is not recorded yet and print the ratio."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--jobs", type=int, default=2)
    jobs = options.parse_args().jobs
    paths = notebooks.find([])
    names = [path.stem for path in paths]
    study = Study(data_dir() / "results" / "runner_benchmark.json")
    key = {"notebooks": names, "cores": os.cpu_count()}
    if not study.find(way="runner", jobs=jobs, **key):
        one_by_one(paths[-1])  # so that neither way pays for reading files from disk
    ours = study.measure(lambda: together(paths, jobs), way="runner", jobs=jobs, **key)
    rows = [
        study.measure(
            lambda path=path: one_by_one(path), way="jupyter execute", notebook=path.stem, **key
        )
        for path in paths
    ]
    serial = sum(row["wall_s"] for row in rows)
    print(f"runner, {jobs} jobs: {ours['wall_s']:.0f} s of wall time, load {ours['load_before']}")
    print(f"one after the other: {serial:.0f} s; ratio {serial / ours['wall_s']:.2f}")


if __name__ == "__main__":
    main()
