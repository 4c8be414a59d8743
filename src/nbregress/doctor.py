"""What this machine can run, in ten lines, and what to do about the rest."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import distributions, requires, version
from pathlib import Path

from pefthelpers import __version__
from pefthelpers.errors import UserError


def package_findings() -> list[str]:
    """Return one line on the versions, and one for each that is missing or does not fit."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in requires("pefthelpers") or [] if "extra" not in line]
    wrong = []
    for each in needed:
        here = next((found.version for found in distributions(name=each.name)), None)
        if here is None or not each.specifier.contains(here, prereleases=True):
            state = f"does not fit: {each.name} {here}" if here else f"missing: {each.name}"
            wrong.append(f"  {state}; pip install '{each.name}{each.specifier}'")
    stack = ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers", "peft", "trl"))
    said = f"all {len(needed)} requirements are {'NOT ' if wrong else ''}met"
    return [f"Packages: {stack}; {said}", *wrong]


def gpu_finding() -> str:
    """Return one line on the GPU."""
    import torch

    if not torch.cuda.is_available():
        return 'GPU: none; PROFILE = "gpu" is only traced here, "tiny" and "laptop" run on the CPU'
    free_gib, total_gib = (size / 2**30 for size in torch.cuda.mem_get_info())
    name = torch.cuda.get_device_name()
    return f'GPU: {name}, {free_gib:.0f} of {total_gib:.0f} GiB free; PROFILE = "gpu" runs'


def model_findings() -> Iterator[str]:
    """Yield one line on the models that ship with the collection, one on the laptop profile's."""
    from pefthelpers import fetch, models
    from pefthelpers.profiles import settings

    try:
        for role in ("decoder", "seq2seq", "encoder"):
            models.folder_of(role, settings(role))
        yield "Tiny models: decoder, seq2seq and encoder are here and intact"
    except (UserError, ImportError) as error:
        yield f"Tiny models: {error}"
    try:
        size = sum(file.stat().st_size for file in Path(fetch.laptop_model_dir()).iterdir()) / 2**20
        yield f"Laptop model: SmolLM2-135M-Instruct in the cache, {size:.0f} MiB"
    except UserError:
        yield "Laptop model: not here; `pefthelpers fetch laptop` brings it (about 100 MB)"


def total_memory_gib() -> float:
    """Return this machine's memory; where the system does not say and psutil is missing, NaN."""
    try:
        from psutil import virtual_memory

        return virtual_memory().total / 2**30
    except ImportError:
        pages = getattr(os, "sysconf", lambda name: float("nan"))
        return pages("SC_PAGE_SIZE") * pages("SC_PHYS_PAGES") / 2**30


def cores() -> int:
    """Return how many cores this process may use: of a container or a batch job fewer than there are."""
    here = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        here = len(os.sched_getaffinity(0))
    # Two numbers, microseconds of CPU in microseconds, or "max".
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, period = limit.read_text("utf-8").split() if limit.is_file() else ("max", "1")
    return here if quota == "max" else max(1, min(here, int(quota) // int(period)))


def findings() -> list[str]:
    """Return the report's lines."""
    here = cores()
    memory_gib = total_memory_gib()
    tiny = "TOO LITTLE (4 GiB needed)" if memory_gib < 4 else "enough"
    laptop = "too little (8 GiB needed)" if memory_gib < 8 else "enough"
    return [
        f"pefthelpers {__version__} on Python {platform.python_version()}",
        f"Cores: {here}; use --jobs {max(1, here // 2)} (one notebook per two cores)",
        f"Memory: {memory_gib:.0f} GiB; {tiny} for tiny, {laptop} for laptop",
        gpu_finding(),
        *package_findings(),
        *model_findings(),
    ]
