"""How long the whole collection takes: `pefthelpers run`, and the same notebooks one after the other.

    python -m studies.runner_benchmark [--jobs 2] [--out FILE] [NOTEBOOK ...]

The second way is `jupyter execute`, one notebook at a time with an OpenMP thread for each core. Both in
the tiny profile, with the same other variables, in a warm environment: one notebook is executed before the
clock starts. Wall and CPU seconds, and the machine's load before and after, since a busy machine slows
both. Run it when nothing else runs. What is measured is not measured again (see Study): a new or another
notebook makes a new benchmark, and after a new version the old record has to go.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nbregress import notebooks
from nbregress.isolation import environment
from pefthelpers.paths import data_dir
from studies.engine import Study


def timed(command: list[str], threads: int) -> dict[str, float]:
    """Run a command and return its wall seconds, CPU seconds and the load around it.

    Raises:
        SystemExit: it failed; what it said last.
    """
    load, start = os.getloadavg()[0], time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    variables = os.environ | environment(threads)
    done = subprocess.run(
        command, check=False, env=variables, capture_output=True, encoding="utf-8"
    )
    wall_s = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    child_cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(wall_s, 1),
        "child_cpu_s": round(child_cpu_s, 1),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def one_by_one(path: Path) -> dict[str, float]:
    """Execute one notebook where it stands by `jupyter execute`, which leaves the file as it is."""
    command = [sys.executable, "-m", "jupyter", "execute", "--kernel_name=python3", str(path)]
    return timed(command, os.cpu_count() or 1)


def together(paths: list[Path], jobs: int) -> dict[str, float]:
    """Execute all notebooks by the runner."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nbregress.cli", "run", *map(str, paths)]
        command += ["--jobs", str(jobs), "--out", str(Path(folder) / "out")]
        return timed(command, 1)


def benchmark(paths: list[Path], jobs: int, study: Study) -> dict:
    """Measure what is not recorded yet; return the row that compares both ways."""
    names = [path.stem for path in paths]
    key = {"notebooks": names, "cores": os.cpu_count(), "jobs": jobs}
    if not study.find(way="runner", **key):
        one_by_one(paths[-1])  # so that neither way pays for reading files from disk
    ours = study.measure(lambda: together(paths, jobs), way="runner", **key)
    rows = [
        study.measure(
            lambda path=path: one_by_one(path), way="jupyter execute", notebook=path.stem, **key
        )
        for path in paths
    ]
    serial_s = round(sum(row["wall_s"] for row in rows), 1)
    both = {"runner_s": ours["wall_s"], "one_by_one_s": serial_s}
    ratio = round(serial_s / ours["wall_s"], 3)
    return study.measure(lambda: both | {"ratio": ratio}, way="comparison", **key)


def main() -> None:
    """Measure and print the ratio."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("notebook", nargs="*", help="02, 02_lora, a path; default: all")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument(
        "--out", type=Path, default=data_dir() / "results" / "runner_benchmark.json"
    )
    chosen = options.parse_args()
    paths = notebooks.find(chosen.notebook)
    found = benchmark(paths, chosen.jobs, Study(chosen.out))
    print(f"runner, {chosen.jobs} jobs: {found['runner_s']:.0f} s of wall time")
    print(f"one after the other: {found['one_by_one_s']:.0f} s; ratio {found['ratio']:.2f}")


if __name__ == "__main__":
    main()
