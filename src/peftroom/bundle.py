"""One folder from which a laptop without a network installs the collection: wheels, models, notebooks, installer.

The wheels are those of the hashed pins, torch's CPU build and this package's own. All is collected beside
the folder, in ``FOLDER.part``; the folder appears at once, when every file is there and its manifest written. A run
that was stopped is taken up where it was: pip compares what lies there with the pins' hashes.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from filelock import FileLock, Timeout
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from nbregress.cli import command, option
from pefthelpers import fetch
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir, notebooks_dir
from peftroom.laptop import install

# What runs the notebooks and opens them; neither tests nor the book.
ROOTS = ("pefthelpers[run]", "jupyterlab")
GLIBC = [f"manylinux_2_{minor}" for minor in range(28, 16, -1)] + ["manylinux2014"]
GLIBC += ["manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1"]
# Name: pip's tags (the newest first), and what the markers of requirements ask about.
PLATFORMS = {
    "linux-x86_64": ([f"{tag}_x86_64" for tag in GLIBC], "linux", "x86_64"),
    "linux-aarch64": ([f"{tag}_aarch64" for tag in GLIBC[:13]], "linux", "aarch64"),
    "macos-arm64": (["macosx_14_0_arm64"], "darwin", "arm64"),
    "windows-x86_64": (["win_amd64"], "win32", "AMD64"),
}
SYSTEMS = {"linux": ("Linux", "posix"), "darwin": ("Darwin", "posix"), "win32": ("Windows", "nt")}
PYTHONS = ("3.11", "3.12", "3.13")
MICRO = 7  # the oldest release of each that the wheels are chosen for
BATCH = 12  # packages that pip brings at a time: what it brought stays when it is stopped
NO_NETWORK = re.compile(
    "NewConnectionError|NameResolution|name resolution|unreachable|Max retries|Timeout"
)


def marker_values(platform: str, python: str) -> dict[str, str]:
    """Return what a requirement's marker asks, for another system and Python than the running ones."""
    _, system, machine = PLATFORMS[platform]
    name, os_name = SYSTEMS[system]
    return default_environment() | {
        "sys_platform": system,
        "platform_system": name,
        "os_name": os_name,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.{MICRO}",
        "extra": "",
    }


def pins(text: str, values: dict[str, str]) -> dict[str, str]:
    """Return {package: pin and hashes, without its marker} of those pins that hold for these values."""
    found = {}
    for block in re.findall(r"^(\w.*(?:\n\s+--hash.*)*)", text, flags=re.MULTILINE):
        line, *hashes = block.split("\\\n")
        pin = Requirement(line.strip())
        if not pin.marker or pin.marker.evaluate(values):
            hashed = " ".join(one.strip() for one in hashes)
            found[canonicalize_name(pin.name)] = f"{pin.name}{pin.specifier} {hashed}"
    return found


def needed(roots: tuple[str, ...], values: dict[str, str]) -> set[str]:
    """Return the names that the roots ask for, through all levels, as the installed packages say.

    A package of another system is not installed here: it is taken without what it asks for, which is nothing
    for those that the pins hold.

    Raises:
        UserError: a root is not installed here.
    """
    open_, seen = [Requirement(root) for root in roots], set()
    while open_:
        wanted = open_.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            lines = distribution(wanted.name).requires or []
        except PackageNotFoundError:
            if wanted.name in roots:
                raise UserError(
                    f"{wanted.name} is not installed here: `make run` installs it."
                ) from None
            continue
        for each in map(Requirement, lines):
            extras = wanted.extras or {""}
            if not each.marker or any(each.marker.evaluate(values | {"extra": e}) for e in extras):
                open_.append(each)
    return {name for name, _ in seen}


def pip(*arguments: str | Path) -> str:
    """Run pip; return what went wrong, empty if nothing did.

    Raises:
        UserError: the disk is full or there is no network.
    """
    call = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(
        call, check=False, capture_output=True, encoding="utf-8", errors="replace"
    )
    if not done.returncode:
        return ""
    said = done.stdout + done.stderr
    if "No space left" in said:
        raise UserError(
            "The disk is full: free some space and run the same command again; what came is kept."
        )
    if NO_NETWORK.search(said):
        raise UserError("No network: connect and run the same command again; what came is kept.")
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")]
    return (errors or said.strip().splitlines() or ["pip gave no reason"])[-1].removeprefix(
        "ERROR: "
    )


def target(platform: str, python: str) -> list[str]:
    """Return pip's options that ask for the wheels of another system and Python."""
    tags = [f"--platform={tag}" for tag in PLATFORMS[platform][0]]
    return ["--only-binary=:all:", "--no-deps", "--quiet", f"--python-version={python}.{MICRO}", *tags]


def bring_pins(wanted: dict[str, str], options: list[str], part: Path, report) -> dict[str, str]:
    """Download the pinned wheels, some at a time; return {package: why it could not be had}."""
    lines, lost = list(wanted.values()), {}
    lists = [lines[start : start + BATCH] for start in range(0, len(lines), BATCH)]
    given = part / "batch.txt"
    get = ["download", "--require-hashes", f"--dest={part / 'wheels'}", *options, "-r", given]
    for number, batch in enumerate(lists, 1):
        report(f"  packages, part {number} of {len(lists)}")
        given.write_text("\n".join(batch), encoding="utf-8")
        if pip(*get):  # which of them, and why
            for line in batch:
                given.write_text(line, encoding="utf-8")
                if why := pip(*get):
                    lost[line.split()[0]] = why
    given.unlink(missing_ok=True)
    return lost


def bring_torch(platform: str, options: list[str], part: Path, index: str | None) -> Path:
    """Download torch, which has no hash in the pins, whole or not at all, and refuse its CUDA build.

    Raises:
        UserError: this system has no wheel of it, or only one that asks for CUDA's packages.
    """
    root, incoming = data_dir().parent, part / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)  # of a stopped run
    source = [f"--index-url={index}"] if index else []
    get = [
        "download",
        f"--dest={incoming}",
        *source,
        *options,
        "-r",
        root / "requirements-torch.txt",
    ]
    if why := pip(*get):
        raise UserError(f"No torch for {platform}: {why}")
    (wheel,) = incoming.iterdir()
    with ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        asks = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    if any(
        re.match("nvidia|cuda|triton", one) for one in asks if PLATFORMS[platform][1] == "linux"
    ):
        raise UserError(
            f"The torch that came for {platform} is the CUDA build, which needs gigabytes more: name an index of "
            'CPU builds by --torch-index (README, "Two commands").'
        )
    wheel = wheel.replace(part / "wheels" / wheel.name)
    incoming.rmdir()
    return wheel


def bring_own(part: Path) -> Path:
    """Build this package's wheel.

    Raises:
        UserError: no checkout, or it cannot be built.
    """
    root, built = data_dir().parent, part / "built"
    if not (root / "pyproject.toml").is_file():
        raise UserError(
            "A bundle is made from a clone of the repository, and this is an installed package."
        )
    shutil.rmtree(built, ignore_errors=True)
    if why := pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={built}", root):
        raise UserError(f"Cannot build this package's wheel: {why}")
    (wheel,) = built.iterdir()
    wheel = wheel.replace(part / "wheels" / wheel.name)
    built.rmdir()
    return wheel


def bring(platform: str, python: str, part: Path, index: str | None, own: Path, report) -> set[str]:
    """Collect one system's wheels and write its list; return their names.

    Raises:
        UserError: a package has no wheel for it; all of them are named.
    """
    report(f"{platform}, Python {python}:")
    values, options = marker_values(platform, python), target(platform, python)
    text = (data_dir().parent / "requirements-hashed.txt").read_text(encoding="utf-8")
    known, names = pins(text, values), needed(ROOTS, values)
    wanted = {name: line for name, line in sorted(known.items()) if name in names}
    if lost := bring_pins(wanted, options, part, report):
        raise UserError(
            f"Not available as a wheel for {platform}, Python {python}: "
            + "; ".join(f"{pin} ({why})" for pin, why in lost.items())
            + ". Leave this platform out, or build the wheel there."
        )
    report("  torch")
    wheels = {bring_torch(platform, options, part, index).name, own.name}
    lines = [line.split()[0] for line in wanted.values()]
    for name in wheels:
        package, version, *_ = parse_wheel_filename(name)
        lines.append(f"{package}=={version}")
    (part / f"requirements-{platform}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    hashes = set(re.findall("sha256:([0-9a-f]{64})", " ".join(wanted.values())))
    here = {file.name: install.sha256(file) for file in (part / "wheels").glob("*.whl")}
    return wheels | {name for name, digest in here.items() if digest in hashes}


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
    own = bring_own(part)
    kept = set().union(*(bring(p, python, part, index, own, report) for p in platforms))
    for file in (part / "wheels").iterdir():
        if file.name not in kept:  # of an earlier run with other pins, or cut off
            file.unlink()
    for path in notebooks_dir().glob("*.ipynb"):
        shutil.copyfile(path, part / "notebooks" / path.name)
    if laptop:
        model = fetch.laptop_model_dir()
        shutil.copytree(model, part / "models" / model.name, dirs_exist_ok=True)
    for name in ("install.py", "install.sh", "install.bat"):
        shutil.copyfile(Path(install.__file__).with_name(name), part / name)
    size = write_manifest(part, platforms, python)
    if found := install.damage(part):
        raise UserError(
            f"{part} changed while it was made ({found[0]}): run the same command again."
        )
    part.rename(out)
    return size


@command(
    option("--out", type=Path, metavar="FOLDER", help="the folder to make"),
    option("--platform", default="linux-x86_64", metavar="NAMES", help=", ".join(PLATFORMS)),
    option("--python", default="3.11", choices=PYTHONS, help="of the laptops (3.11)"),
    option("--laptop", action="store_true", help="add the laptop profile's model, from the cache"),
    option("--torch-index", metavar="URL", help="where torch is taken from, and it alone"),
    option("--check", type=Path, metavar="FOLDER", help="compare a bundle with its manifest"),
    runs=False,
)
def bundle(options: argparse.Namespace) -> int:
    """Make a folder that installs the collection without a network; --check: 2 if it is damaged."""
    try:
        if options.check:
            found = install.damage(options.check)
            print(
                *found or ["The bundle is whole."],
                sep="\n",
                file=sys.stderr if found else sys.stdout,
            )
            return 2 if found else 0
    except install.Refused as error:
        raise UserError(str(error)) from error
    if not options.out:
        raise UserError("Name the folder to make (--out FOLDER) or to look at (--check FOLDER).")
    platforms = options.platform.split(",")
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        raise UserError(f"Unknown platform {', '.join(unknown)}: there are {', '.join(PLATFORMS)}.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{options.out}.lock", timeout=0):
            given = {"laptop": options.laptop, "index": options.torch_index}
            size = make(options.out, platforms, options.python, **given)
    except Timeout as error:
        raise UserError(f"Another process makes {options.out} now.") from error
    except (BadZipFile, StopIteration) as error:
        raise UserError("A download is damaged: run the same command again.") from error
    print(
        f"{options.out}: {size / 1e6:,.0f} MB for {', '.join(platforms)}, Python {options.python}."
    )
    print("On the laptop: sh install.sh, or python3 install.py")
    return 0
