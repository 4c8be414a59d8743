"""`doctor --room`: one line of JSON a machine, and the table of a whole room's lines."""

import argparse
import json
import math
import platform
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

from nbregress import doctor
from nbregress.cli import COMMANDS
from pefthelpers.errors import UserError
from peftroom.server import read_names

# What the tiny profile needs; a training of notebook 02 takes about 20 times the timed check.
LEAST = {"memory_gib": 4, "disk_gib": 2}
SLOWEST_S = 30
SHOWN = ("name", "system", "python", "cores", "memory_gib", "disk_gib", "gpu", "torch", "check_s")
TYPES = {"name": str, "ready": bool, "reasons": list, "when": str}
LARGEST = 10_000  # characters of a line


def timed_check() -> float:
    """Return the seconds of ten training steps of the kitchen decoder: without its loading, after a first step."""
    import torch

    from pefthelpers import kitchen, models, training

    model, tokenizer = models.load("decoder")
    pairs = training.encode(tokenizer, kitchen.elicit(0).train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step, chosen in enumerate(training.batches(pairs, size=16, steps=11, seed=0)):
        if step == 1:
            started = time.perf_counter()
        model(**training.collate(tokenizer, chosen, device=model.device)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return round(time.perf_counter() - started, 2)


def look(name: str | None = None) -> dict:
    """Return what a machine can be told from, whether it is ready for the tiny profile, and why not."""
    about = {
        "name": name or platform.node() or "unnamed",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": doctor.cores(),
        "memory_gib": round(doctor.total_memory_gib(), 1),
        "disk_gib": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    reasons = []
    for what, least in LEAST.items():
        if about[what] < least:  # NaN, where the system does not say, is no reason
            reasons.append(f"{about[what]} GiB of {what.removesuffix('_gib')}, {least} needed")
    about = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in about.items()
    }
    try:
        import torch

        about["torch"] = torch.__version__
        about["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        _, *wrong = doctor.package_findings()
        tiny = next(iter(doctor.model_findings()))
        reasons += [line.strip() for line in wrong] + ([] if tiny.endswith("intact") else [tiny])
        about["check_s"] = timed_check()
        if about["check_s"] > SLOWEST_S:
            reasons.append(f"ten training steps took {about['check_s']} s, {SLOWEST_S} at most")
    except Exception as error:  # noqa: BLE001 - whatever is broken on one of thirty laptops is the finding
        reasons.append(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
    return about | {"ready": not reasons, "reasons": reasons}


def parse(line: str) -> dict:
    """Return a machine's line as written by ``look``.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(line) if len(line) <= LARGEST else None
    if not isinstance(found, dict):
        raise ValueError("no line of `doctor --room`")  # noqa: TRY004
    for key, kind in TYPES.items():
        if not isinstance(found.get(key), kind):
            raise ValueError(f"no {key}")  # noqa: TRY004
    return found


def collect(path: Path) -> tuple[dict[str, dict], list[str]]:
    """Read the lines of a file, or of all of a folder, PowerShell's UTF-16 too; of two with one name the newer counts.

    Returns:
        ({name: its line}, what could not be read or stands twice, each named by file and line).

    Raises:
        UserError: there is no such file or folder.
    """
    if not path.exists():
        raise UserError(f"{path} is not there: name the file or folder of the machines' lines.")
    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    machines, said = {}, []
    for file in files:
        coding = "utf-16" if file.read_bytes()[:2] == b"\xff\xfe" else "utf-8-sig"
        for number, line in enumerate(file.read_text(coding, "replace").splitlines(), 1):
            if not line.strip():
                continue
            try:
                found = parse(line)
            except (ValueError, RecursionError) as error:
                why = "not JSON" if isinstance(error, json.JSONDecodeError) else error
                said.append(f"not read: {file.name}, line {number}: {why}")
                continue
            if (before := machines.get(found["name"])) and before["when"] > found["when"]:
                found, before = before, found
            machines[found["name"]] = found
            if before:
                said.append(f"twice: {shown(found['name'])}; the newer line counts")
    return machines, said


def shown(value: object) -> str:
    """Return a value for a table: printable, short; a dash for what is not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return "".join(c if c.isprintable() else "?" for c in str(value))[:40]


def table(machines: dict[str, dict]) -> list[str]:
    """Return the lines of the room's table, the machines that are not ready first."""
    order = sorted(machines.values(), key=lambda one: (one["ready"], one["name"]))
    rows = [[*SHOWN, "verdict"]]
    for one in order:
        reasons = "; ".join(map(str, one["reasons"])) or "it says so"
        verdict = (
            "ready" if one["ready"] else "NOT READY: " + "".join(filter(str.isprintable, reasons))
        )
        rows.append([*(shown(one.get(key)) for key in SHOWN), verdict[:200]])
    widths = [max(len(row[i]) for row in rows) for i in range(len(SHOWN))]
    return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths)), row[-1]]) for row in rows]  # noqa: B905


def summarise(path: Path, expected: Path | None) -> int:
    """Print the table; return 1 if a machine is not ready or missing, or a line cannot be read."""
    machines, said = collect(path)
    names = read_names(expected) if expected else list(machines)
    said += [f"missing: {name}" for name in names if name not in machines]
    if expected:
        said += [f"not expected: {shown(name)}" for name in machines if name not in names]
    ready = sum(one["ready"] for one in machines.values())
    print(
        *table(machines),
        *said,
        f"{ready} of {len({*names, *machines})} machines are ready.",
        sep="\n",
    )
    bad = [line for line in said if line.startswith(("not read", "missing"))]
    return int(ready < len(machines) or bool(bad) or not machines)


def run(options: argparse.Namespace) -> int | None:
    """Say what this machine can run; --room: in one line; --collect: of all machines."""
    if options.collect:
        return summarise(options.collect, options.expect)
    if not options.room:
        return alone(options)
    about = look(options.name)
    print(json.dumps(about))
    return int(not about["ready"])


PARSER = COMMANDS.choices["doctor"]
alone = PARSER.get_default("function")
PARSER.set_defaults(function=run)
PARSER.add_argument("--room", action="store_true", help="one line of JSON; 1 if not ready")
PARSER.add_argument("--name", help="of this machine in that line; default: its host name")
PARSER.add_argument(
    "--collect", type=Path, metavar="PATH", help="table of a file or folder of such lines"
)
PARSER.add_argument("--expect", type=Path, metavar="FILE", help="names that --collect must find")
