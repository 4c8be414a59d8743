"""Print the licences that the pinned packages declare, as a page: licences.py > docs/licences.md.

Exit code 1 if one declares none, or one that FREE does not know.
"""

import re
import sys
from collections import defaultdict
from importlib.metadata import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
# May be used, changed and passed on by anyone; of these only MPL-2.0 asks that changes to its own files stay open.
FREE = {
    *(
        "MIT",
        "MIT License",
        "MIT-0",
        "MIT-CMU",
        "0BSD",
        "ISC",
        "ISC License (ISCL)",
        "Zlib",
        "CC0-1.0",
        "BSL-1.0",
        "Public Domain",
    ),
    *(
        "BSD",
        "BSD License",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "PSF-2.0",
        "Python Software Foundation License",
    ),
    *(
        "Apache-2.0",
        "Apache 2.0",
        "Apache 2.0 License",
        "Apache Software License",
        "Apache License, Version 2.0",
    ),
    *("LLVM-exception", "CNRI-Python", "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),
}
# Of these the files were read: one declares nothing, the other names the GPL of an editor's mode that its wheel lacks.
READ = {
    "axe-playwright-python": "MIT AND MPL-2.0",
    "docutils": "Public Domain AND BSD-2-Clause",
}
PAGE = """# Licences of the pinned packages

As each declares it, on {system}; made by `make pins` (`.ci/licences.py`). This repository ships none of them. Its own code
and notebooks are Apache-2.0; its data: `data/README.md`.

| licence | packages |
|---|---|
{rows}

Pinned for another system or Python, and so not looked at here: {others}.
"""


def pins() -> list[Requirement]:
    """Return the pins of the environment, torch's among them."""
    files = [ROOT / name for name in ("requirements-torch.txt", "requirements.txt")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and line[0] != "#"]


def declared(name: str) -> str:
    """Return a package's licence: its expression, else its classifiers, else its one-line text."""
    if name in READ:
        return READ[name]
    said = metadata(name)
    classifiers = [
        each for each in said.get_all("Classifier") or [] if each.startswith("License ::")
    ]
    named = " AND ".join(each.rsplit(" :: ", 1)[-1] for each in classifiers)
    text = said.get("License") or ""
    return said.get("License-Expression") or named or (text if "\n" not in text else "")


def unknown(licence: str) -> set[str]:
    """Return the parts of a licence that FREE does not know; of an empty one that it is missing."""
    return set(re.split(r" AND | OR | WITH ", licence.replace("(", "").replace(")", ""))) - {
        each.replace("(", "").replace(")", "") for each in FREE
    }


def page() -> str:
    """Return the page."""
    by_licence, others = defaultdict(list), set()
    for pin in pins():
        if pin.marker and not pin.marker.evaluate():
            others.add(pin.name)
        else:
            by_licence[declared(pin.name)].append(pin.name)
    rows = [f"| {licence} | {', '.join(sorted(names))} |" for licence, names in by_licence.items()]
    here = f"{sys.platform}, Python {sys.version_info[0]}.{sys.version_info[1]}"
    others -= {name for names in by_licence.values() for name in names}
    return PAGE.format(system=here, rows="\n".join(sorted(rows)), others=", ".join(sorted(others)))


def main() -> int:
    """Print the page, and on the error stream what should be looked at."""
    print(page(), end="")
    mine = [pin.name for pin in pins() if not pin.marker or pin.marker.evaluate()]
    odd = {name: words for name in mine if (words := unknown(declared(name)))}
    for name, words in odd.items():
        print(f"{name}: licence {', '.join(words) or 'none declared'}", file=sys.stderr)
    return int(bool(odd))


if __name__ == "__main__":
    sys.exit(main())
