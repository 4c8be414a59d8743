"""What this machine can run, in ten lines, and what to do about the rest."""

import os
import platform
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from pefthelpers.errors import UserError


def memory_gib() -> float:
    """Return the machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def floors() -> dict[str, str]:
    """Return ``{package: lowest version}`` from this package's own requirements."""
    from packaging.requirements import Requirement

    found = [Requirement(line) for line in requires("pefthelpers") or [] if "extra" not in line]
    return {
        requirement.name: next(iter(requirement.specifier)).version
        for requirement in found
        if requirement.specifier
    }


def package_findings() -> list[str]:
    """Return one line on the versions, and one for each that is missing or too old."""
    from packaging.version import Version

    wrong = []
    for name, lowest in floors().items():
        try:
            if Version(version(name)) < Version(lowest):
                wrong.append(f"  too old: {name} {version(name)}; pip install '{name}>={lowest}'")
        except PackageNotFoundError:
            wrong.append(f"  missing: {name}; pip install '{name}>={lowest}'")
    stack = ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers", "peft", "trl"))
    verdict = "meet the floors" if not wrong else "do NOT meet the floors"
    return [f"Packages: {stack}; all {len(floors())} requirements {verdict}", *wrong]


def gpu_finding() -> str:
    """Return one line on the GPU."""
    import torch

    if not torch.cuda.is_available():
        return 'GPU: none; PROFILE = "gpu" is only traced here, "tiny" and "laptop" run on the CPU'
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return f'GPU: {name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free; PROFILE = "gpu" runs'


def laptop_finding() -> str:
    """Return one line on the laptop profile's model."""
    from pefthelpers import fetch

    try:
        folder = fetch.laptop_model_dir()
    except UserError:
        return "Laptop model: not here; `pefthelpers fetch laptop` brings it (about 100 MB)"
    size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
    return f"Laptop model: SmolLM2-135M-Instruct in the cache, {size:.0f} MiB"


def data_finding() -> str:
    """Return one line on the models that ship with the collection."""
    from pefthelpers import models
    from pefthelpers.profiles import settings

    try:
        for role in ("decoder", "seq2seq", "encoder"):
            models.folder_of(role, settings(role))
    except (UserError, ImportError) as error:
        return f"Tiny models: {error}"
    return "Tiny models: decoder, seq2seq and encoder are here and intact"


def findings() -> list[str]:
    """Return the report's lines."""
    cores, memory = os.cpu_count() or 1, memory_gib()
    tiny = "enough" if memory >= 4 else "TOO LITTLE (4 GiB needed)"
    laptop = "enough" if memory >= 8 else "too little (8 GiB needed)"
    return [
        f"pefthelpers {metadata('pefthelpers')['Version']} on Python {platform.python_version()}",
        f"Cores: {cores}; use --jobs {max(1, cores // 2)} (one notebook per two cores)",
        f"Memory: {memory:.0f} GiB; {tiny} for tiny, {laptop} for laptop",
        gpu_finding(),
        *package_findings(),
        data_finding(),
        laptop_finding(),
    ]
