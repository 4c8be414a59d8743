"""What every recorded figure hangs on, written beside it."""

import datetime
import platform
from importlib.metadata import version
from pathlib import Path

from pefthelpers.session import STACK


def processor() -> str:
    """Return the processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def stamp() -> dict[str, object]:
    """Return what every recorded figure hangs on: date, package versions, processor."""
    today = datetime.date.today().isoformat()
    versions = {name: version(name) for name in STACK}
    return {"date": today, "versions": versions, "processor": processor()}
