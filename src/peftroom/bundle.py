"""One folder from which a laptop without a network installs the collection: wheels, models, notebooks, installer.

The wheels are those of the hashed pins, torch's CPU build and this package's own. All is collected beside
the folder, in ``FOLDER.part``; the folder appears at once, when every file is there and its manifest written. A run
that was stopped is taken up where it was: pip compares what lies there with the pins' hashes.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from zipfile import BadZipFile

from filelock import FileLock, Timeout

from nbregress.cli import command, option
from pefthelpers import fetch
from pefthelpers.errors import UserError
from pefthelpers.paths import notebooks_dir
from peftroom import wheels
from peftroom.laptop import install


def write_manifest(part: Path, platforms: list[str], python: str) -> int:
    """Record every file's size and checksum; return the bytes of all."""
    files = {
        path.relative_to(part).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": install.sha256(path),
        }
        for path in sorted(part.rglob("*"))
        if path.is_file() and path.name != install.MANIFEST
    }
    about = {"python": python, "platforms": platforms, "files": files}
    (part / install.MANIFEST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return sum(file["bytes"] for file in files.values())


def fill(part: Path, laptop: bool) -> None:
    """Put notebooks, the laptop profile's model if it is wanted, and the installer beside the wheels."""
    shutil.rmtree(part / "incoming", ignore_errors=True)
    for path in notebooks_dir().glob("*.ipynb"):
        shutil.copyfile(path, part / "notebooks" / path.name)
    if laptop:
        model = fetch.laptop_model_dir()
        shutil.copytree(model, part / "models" / model.name, dirs_exist_ok=True)
    for name in ("install.py", "install.sh", "install.bat"):
        shutil.copyfile(Path(install.__file__).with_name(name), part / name)


def make(
    out: Path, platforms: list[str], python: str, *, laptop=False, index=None, report=print
) -> int:
    """Make the folder; return its bytes.

    Raises:
        UserError: something cannot be had; the folder is then not there, and what came is kept beside it.
    """
    part = out.with_name(f"{out.name}.part")
    if out.exists():
        raise UserError(
            f"{out} is there already: --check looks whether it is whole; remove it to make it again."
        )
    for name in ("wheels", "notebooks"):
        (part / name).mkdir(parents=True, exist_ok=True)
    own = wheels.bring_own(part)
    kept = set().union(*(wheels.bring(p, python, part, index, own, report) for p in platforms))
    for file in (part / "wheels").iterdir():
        if file.name not in kept:  # of an earlier run with other pins, or cut off
            file.unlink()
    fill(part, laptop)
    size = write_manifest(part, platforms, python)
    if found := install.damage(part):
        raise UserError(
            f"{part} changed while it was made ({found[0]}): run the same command again."
        )
    part.rename(out)
    return size


def check(folder: Path) -> int:
    """Say what is wrong with a bundle; 2 if something is."""
    try:
        found = install.damage(folder)
    except install.Refused as error:
        raise UserError(str(error)) from error
    if found:
        print(*found, sep="\n", file=sys.stderr)
        return 2
    print("The bundle is whole.")
    return 0


@command(
    option("--out", type=Path, metavar="FOLDER", help="the folder to make"),
    option("--platform", default="linux-x86_64", metavar="NAMES", help=", ".join(wheels.PLATFORMS)),
    option("--python", default="3.11", choices=wheels.PYTHONS, help="of the laptops (3.11)"),
    option("--laptop", action="store_true", help="add the laptop profile's model, from the cache"),
    option("--torch-index", metavar="URL", help="where torch is taken from, and it alone"),
    option("--check", type=Path, metavar="FOLDER", help="compare a bundle with its manifest"),
    runs=False,
)
def bundle(options: argparse.Namespace) -> int:
    """Make a folder that installs the collection without a network; --check: 2 if it is damaged."""
    if options.check:
        return check(options.check)
    if not options.out:
        raise UserError("Name the folder to make (--out FOLDER) or to look at (--check FOLDER).")
    platforms = options.platform.split(",")
    if unknown := [name for name in platforms if name not in wheels.PLATFORMS]:
        there = ", ".join(wheels.PLATFORMS)
        raise UserError(f"Unknown platform {', '.join(unknown)}: there are {there}.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    given = {"laptop": options.laptop, "index": options.torch_index}
    try:
        with FileLock(f"{options.out}.lock", timeout=0):
            size = make(options.out, platforms, options.python, **given)
    except Timeout as error:
        raise UserError(f"Another process makes {options.out} now.") from error
    except (BadZipFile, StopIteration) as error:
        raise UserError("A download is damaged: run the same command again.") from error
    print(f"{options.out}: {size / 1e6:,.0f} MB, {options.platform}, Python {options.python}.")
    print("On the laptop: sh install.sh, or python3 install.py")
    return 0
