"""Every link of finished pages, looked up: files, anchors, and that nothing is asked of the network."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from pefthelpers.errors import UserError

PARTS = ("img", "script", "link", "iframe", "source", "video", "audio", "embed")
ELSEWHERE = re.compile(r"(https?:)?//")


class Page(HTMLParser):
    """What a page names, and what it leads to."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.names: set[str] = set()
        self.leads: set[str] = set()
        self.parts: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag's names and addresses."""
        found = {name: value or "" for name, value in attrs}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        address = found.get("src") or found.get("href") or ""
        if tag in PARTS and found.get("rel") not in ("canonical", "alternate"):
            self.parts.add(address)
        elif tag == "a":
            self.leads.add(address)


def wrong(path: Path, address: str, pages: dict[Path, Page]) -> str:
    """Return what is wrong with an address on a page; nothing if it leads somewhere."""
    if re.match(r"[a-z]+:|//", address) or address in ("", "#", "#top"):
        return ""
    file, _, anchor = address.partition("#")
    target = Path(os.path.normpath(path.parent / unquote(file.partition("?")[0]))) if file else path
    if not target.is_file():
        return f"{path.name} leads to {address}, a file that is not there"
    if anchor and target in pages and not {anchor, unquote(anchor)} & pages[target].names:
        return f"{path.name} leads to {address}, a place that {target.name} does not have"
    return ""


def check(paths: list[Path]) -> None:
    """Look up every link of pages.

    Raises:
        UserError: a link leads nowhere, or a page would ask the network for a part of itself.
    """
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in map(Path.absolute, paths)}
    faults = []
    for path, page in pages.items():
        faults += [wrong(path, address, pages) for address in sorted(page.leads | page.parts)]
        asked = [each for each in page.parts if ELSEWHERE.match(each)]
        faults += [f"{path.name} would ask the network for {each}" for each in asked]
    if faults := [each for each in faults if each]:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}: mend it and build again.")
