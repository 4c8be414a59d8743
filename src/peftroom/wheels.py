"""The wheels of a bundle: which packages another system needs, and how pip brings them, whole or not at all."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir
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
BATCH = 40  # packages that pip brings at a time: what it brought stays when it is stopped
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


def asks_for(wanted: Requirement, values: dict[str, str]) -> Iterator[Requirement]:
    """Yield what an installed package asks for under these values.

    A package of another system is not installed here, and asks for nothing: true of those that the pins hold.

    Raises:
        UserError: a root is not installed here.
    """
    try:
        lines = distribution(wanted.name).requires or []
    except PackageNotFoundError:
        if str(wanted) in ROOTS:
            raise UserError(f"{wanted} is not installed here: `make run` installs it.") from None
        return
    for each in map(Requirement, lines):
        extras = wanted.extras or {""}
        if not each.marker or any(each.marker.evaluate(values | {"extra": e}) for e in extras):
            yield each


def needed(values: dict[str, str]) -> set[str]:
    """Return the names that the roots ask for, through all levels."""
    open_, seen = [Requirement(root) for root in ROOTS], set()
    while open_:
        wanted = open_.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key not in seen:
            seen.add(key)
            open_ += asks_for(wanted, values)
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
    return [
        "--only-binary=:all:",
        "--no-deps",
        "--quiet",
        f"--python-version={python}.{MICRO}",
        *tags,
    ]


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


def wants_cuda(wheel: Path) -> bool:
    """Tell whether a wheel asks for CUDA's packages.

    Raises:
        BadZipFile, StopIteration: it is no wheel.
    """
    with ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        asks = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    return any(re.match("nvidia|cuda|triton", one) for one in asks)


def bring_one(part: Path, *call: str | Path) -> tuple[Path | None, str]:
    """Let pip leave one wheel in an empty folder; return it there, or why pip could not."""
    incoming = part / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)  # of a stopped run
    if why := pip(
        call[0],
        f"--dest={incoming}" if call[0] == "download" else f"--wheel-dir={incoming}",
        *call[1:],
    ):
        return None, why
    (wheel,) = incoming.iterdir()
    return wheel, ""


def bring_torch(platform: str, options: list[str], part: Path, index: str | None) -> Path:
    """Download torch, which has no hash in the pins, whole or not at all, and refuse its CUDA build.

    Raises:
        UserError: this system has no wheel of it, or only one that asks for CUDA's packages.
    """
    source = [f"--index-url={index}"] if index else []
    lines = data_dir().parent / "requirements-torch.txt"
    wheel, why = bring_one(part, "download", *source, *options, "-r", lines)
    if not wheel:
        raise UserError(f"No torch for {platform}: {why}")
    if platform.startswith("linux") and wants_cuda(wheel):
        raise UserError(
            f"The torch that came for {platform} is the CUDA build, which needs gigabytes more: name an index of "
            'CPU builds by --torch-index (README, "Two commands").'
        )
    return wheel.replace(part / "wheels" / wheel.name)


def bring_own(part: Path) -> Path:
    """Build this package's wheel.

    Raises:
        UserError: no checkout, or it cannot be built.
    """
    root = data_dir().parent
    if not (root / "pyproject.toml").is_file():
        raise UserError(
            "A bundle is made from a clone of the repository; this is an installed package."
        )
    wheel, why = bring_one(part, "wheel", "--quiet", "--no-deps", root)
    if not wheel:
        raise UserError(f"Cannot build this package's wheel: {why}")
    return wheel.replace(part / "wheels" / wheel.name)


def bring(platform: str, python: str, part: Path, index: str | None, own: Path, report) -> set[str]:
    """Collect one system's wheels and write its list; return their names.

    Raises:
        UserError: a package has no wheel for it; all of them are named.
    """
    report(f"{platform}, Python {python}:")
    values, options = marker_values(platform, python), target(platform, python)
    text = (data_dir().parent / "requirements-hashed.txt").read_text(encoding="utf-8")
    known, names = pins(text, values), needed(values)
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
