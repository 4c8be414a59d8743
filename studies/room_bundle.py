"""A bundle made, checked, harmed, installed and run on this machine with the network refused.

    python -m studies.room_bundle FOLDER [--notebooks 00 02] [--out FILE]     (default: all notebooks)

FOLDER keeps the bundle and what is installed from it; a step that is in the record is not done again. Installing and
running happen in a network namespace of their own (`unshare --net`), in which nothing but loopback exists: the
record says what a connection to outside answered there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from pefthelpers import results
from pefthelpers.paths import data_dir

# Kernels speak over loopback, which a new namespace has switched off.
ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
OUTSIDE = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"  # RFC 5737


def timed(command: list, **given) -> dict:
    """Run a command; return its exit code, wall and CPU seconds, and its last line."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, encoding="utf-8", **given
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall_s = time.perf_counter() - start
    said = (done.stdout + done.stderr).strip().splitlines() or [""]
    return {
        "rc": done.returncode,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "said": said[-2:],
    }


def size_mb(folder: Path) -> float:
    """Return the bytes of all files of a folder, in millions."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 1)


def harmed(bundle: Path) -> dict:
    """Change one byte of a wheel, look, and change it back; then the same with the installer."""
    wheel = max((bundle / "wheels").glob("peft-*.whl"))
    content = wheel.read_bytes()
    wheel.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    try:
        target = bundle.with_name("not-installed")
        check = timed([sys.executable, "-m", "peftroom.cli", "bundle", "--check", bundle])
        installer = timed([sys.executable, bundle / "install.py", "--to", target])
        return {"check": check, "installer": installer, "installed": target.exists()}
    finally:
        wheel.write_bytes(content)


def main() -> None:
    """Do each step that is not in the record yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--notebooks", nargs="*", default=[], help="default: all")
    parser.add_argument("--out", type=Path, default=data_dir() / "results" / "room_bundle.json")
    options = parser.parse_args()
    folder = options.folder.resolve()
    bundle, laptop = folder / "bundle", folder / "laptop"
    program = [
        laptop / ".venv/bin/pefthelpers",
        "run",
        *options.notebooks,
        "--jobs",
        "2",
        "--out",
        laptop / "run",
    ]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PEFTHELPERS_CACHE")}
    steps = {
        "make": lambda: timed([sys.executable, "-m", "peftroom.cli", "bundle", "--out", bundle]),
        "size": lambda: {
            "mb": size_mb(bundle),
            "files": len(
                json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["files"]
            ),
        },
        "check": lambda: timed([sys.executable, "-m", "peftroom.cli", "bundle", "--check", bundle]),
        "harmed": lambda: harmed(bundle),
        "outside": lambda: timed([*ALONE, sys.executable, "-c", OUTSIDE]),
        "install": lambda: timed([*ALONE, "sh", bundle / "install.sh", "--to", laptop], env=clean),
        "installed": lambda: {"mb": size_mb(laptop)},
        "run": lambda: (
            timed([*ALONE, *program], env=clean, cwd=laptop)
            | {"notebooks": options.notebooks or ["all"]}
        ),
    }
    record = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    for name, step in steps.items():
        if name not in record:
            row = step() | {"load": round(os.getloadavg()[0], 1)}
            record[name] = json.loads(json.dumps(row).replace(str(folder), "FOLDER"))
            results.write(options.out, record)
            print(name, record[name], flush=True)


if __name__ == "__main__":
    main()
