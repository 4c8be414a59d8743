"""Check this folder and install it, without a network: python3 install.py [--to FOLDER] [--check].

Made by `pefthelpers bundle`. Needs Python alone, of the version that manifest.json names. First every file is
compared with the manifest; if one is damaged, missing or was added, it is named, nothing is installed, and the
exit code is 2. Then an environment is made in FOLDER (default: pefthelpers in your home), the wheels go into it
by `pip install --no-index`, and the notebooks beside it.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

MANIFEST = "manifest.json"


class Refused(Exception):
    """What is wrong, and what to do, in one sentence."""


def read_manifest(folder):
    """Return the manifest of a bundle's folder."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, file in manifest["files"].items():
            if not (isinstance(name, str) and {"bytes", "sha256"} <= file.keys()):
                raise ValueError(name)
        return manifest
    except FileNotFoundError:
        raise Refused(
            f"{folder} holds no {MANIFEST}: it is no whole bundle; copy it again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Refused(f"{folder / MANIFEST} is damaged: copy the folder again.") from None


def sha256(path):
    """Return a file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def damage(folder):
    """Return a line for each file that is missing, was added, or is not as the manifest says."""
    expected, found = read_manifest(folder)["files"], []
    for name, file in sorted(expected.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            found.append(f"missing: {name}")
        elif (size := path.stat().st_size) != file["bytes"]:
            found.append(f"damaged: {name} has {size:,} of {file['bytes']:,} bytes")
        elif sha256(path) != file["sha256"]:
            found.append(f"damaged: {name} has another checksum")
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return found + [f"added: {name}" for name in sorted(here - expected.keys() - {MANIFEST})]


def this_platform():
    """Return the name that a bundle gives to this machine's system and processor."""
    system = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}.get(platform.system(), "?")
    processor = {"AMD64": "x86_64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    return f"{system}-{processor}"


def fitting(folder):
    """Return the list of packages for this machine.

    Raises:
        Refused: the bundle has none, or another Python is running.
    """
    manifest = read_manifest(folder)
    if this_platform() not in manifest["platforms"]:
        there = ", ".join(manifest["platforms"])
        raise Refused(f"This is {this_platform()}, and the bundle is for {there}.")
    here = ".".join(platform.python_version_tuple()[:2])
    if here != manifest["python"]:
        wanted = manifest["python"]
        raise Refused(
            f"This is Python {here}, and the wheels are for {wanted}: run python{wanted} install.py."
        )
    return folder / f"requirements-{this_platform()}.txt"


def install(folder, target):
    """Make the environment, install the wheels, hand out the notebooks; return its Python.

    Raises:
        Refused: a step failed; what it said last.
    """
    requirements, environment = fitting(folder), target / ".venv"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [python, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    # A notebook imports a part of them, and Python compiles that when it is first asked for.
    pip += ["--no-compile", "--disable-pip-version-check"]
    pip += [f"--find-links={folder / 'wheels'}", "-r", requirements]
    target.mkdir(parents=True, exist_ok=True)
    isolated = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    isolated["PIP_CONFIG_FILE"] = os.devnull
    for said, command in (
        ("an environment", [sys.executable, "-m", "venv", "--clear", environment]),
        ("the packages", pip),
    ):
        print(f"Making {said} in {environment}", flush=True)
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=isolated,
        )
        if done.returncode:
            last = ((done.stderr + done.stdout).strip().splitlines() or ["no reason given"])[-1]
            hint = (
                " On Debian and Ubuntu venv is a package, python3-venv." if "venv" in last else ""
            )
            raise Refused(f"Could not make {said}: {last}.{hint}")
    hand_out(folder, target)
    return python


def hand_out(folder, target):
    """Copy the notebooks that are not there yet, and the laptop profile's model into the cache."""
    (target / "notebooks").mkdir(parents=True, exist_ok=True)
    for path in (folder / "notebooks").iterdir():
        if not (target / "notebooks" / path.name).exists():  # what a learner changed stays
            shutil.copyfile(path, target / "notebooks" / path.name)
    if (folder / "models").is_dir():
        cache = os.environ.get("PEFTHELPERS_CACHE") or Path.home() / ".cache" / "pefthelpers"
        shutil.copytree(folder / "models", cache, dirs_exist_ok=True)


def main():
    """Check, then install."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path.home() / "pefthelpers")
    parser.add_argument("--check", action="store_true", help="compare the files alone")
    options, folder = parser.parse_args(), Path(__file__).resolve().parent
    try:
        if found := damage(folder):
            raise Refused("\n".join([*found, "The bundle is not whole: copy it again."]))
        print(f"The bundle is whole ({len(read_manifest(folder)['files'])} files).", flush=True)
        if not options.check:
            python = install(folder, options.to.resolve())
            print(f"Installed. In {options.to.resolve()}: {python} -m jupyter lab notebooks")
    except (Refused, OSError) as error:
        print(f"install: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
