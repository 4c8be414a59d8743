"""What a browser sees of finished pages: requests, errors, accessibility, what is too wide.

``PYTHONPATH=src:tests python -m support.seen FOLDER [--phone] [--dark] [--shots FOLDER] [--served]`` prints a row a page.
"""

import contextlib
import functools
import http.server
import json
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support.axe import violations
from support.browser import CHROMIUM

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Each slide's height and width over the screen's; the smallest letters that are shown.
SLIDES = """() => [...document.querySelectorAll('.slides section')].filter(s => !s.querySelector('section')).map(s => {
  const old = s.style.cssText; let above = s.parentElement.closest('section'); const was = above && above.style.cssText;
  s.style.cssText += ';display:block !important'; if (above) above.style.cssText += ';display:block !important';
  let small = 1000, walk = document.createTreeWalker(s, NodeFilter.SHOW_TEXT), node;
  while (node = walk.nextNode()) if (node.data.trim() && !node.parentElement.closest('.notes, mjx-container, script, style'))
    small = Math.min(small, parseFloat(getComputedStyle(node.parentElement).fontSize));
  const lines = Math.max(0, ...[...s.querySelectorAll('pre')].filter(p => !p.closest('.notes')).map(p => p.textContent.trimEnd().split('\\n').length));
  const inner = [...s.querySelectorAll('*')].filter(e => !e.closest('.notes, mjx-container') && e.scrollWidth > e.clientWidth + 1 && e.clientWidth && getComputedStyle(e).overflowX != 'visible').length;
  const found = [s.scrollHeight, s.scrollWidth, small, lines, inner];
  s.style.cssText = old; if (above) above.style.cssText = was; return found; })"""


@dataclass
class Seen:
    """What one page did in the browser."""

    requests: int = 0
    elsewhere: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    axe: list = field(default_factory=list)
    wider: int = 0
    slides: list = field(default_factory=list)

    def serious(self):
        """Return the violations that axe calls serious or critical."""
        return [one for one in self.axe if one[1] in ("serious", "critical")]


@contextlib.contextmanager
def browser():
    """Start headless Chromium; every name but this machine's leads nowhere."""
    from playwright.sync_api import sync_playwright

    args = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield started
        started.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_):
        """Say nothing."""


@contextlib.contextmanager
def served(folder):
    """Serve a folder on this machine; yield its address."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def look(started, address, *, phone=False, dark=False, shot=None, check_axe=True):
    """Open a page, wait until it is still, and return what was seen and the open page."""
    seen = Seen()
    page = started.new_page(
        viewport=PHONE if phone else DESKTOP, color_scheme="dark" if dark else "light"
    )

    page.set_default_navigation_timeout(240_000)  # a busy machine takes its time

    def asked(request):
        seen.requests += 1
        if not request.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1")):
            seen.elsewhere.append(request.url)

    page.on("request", asked)
    page.on("requestfailed", lambda request: seen.failed.append(request.url))
    page.on("response", lambda answer: answer.status >= 400 and seen.failed.append(answer.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda said: said.type == "error" and seen.errors.append(said.text))
    page.goto(address, wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise?.then(() => window.deckReady)")
    page.wait_for_timeout(150)
    seen.wider = page.evaluate(WIDER)
    seen.slides = page.evaluate(SLIDES) if page.query_selector(".reveal .slides") else []
    if check_axe:  # it asks for style sheets itself, and not always where they are
        failed, errors, requests = [*seen.failed], [*seen.errors], seen.requests
        seen.axe = violations(page)
        seen.failed, seen.errors, seen.requests = failed, errors, requests
    if shot:
        page.screenshot(path=str(shot), timeout=120_000)
    return seen, page


def main(arguments):
    """Print a row a page of a folder, and the sum."""
    folder, *_ = [Path(one) for one in arguments if not one.startswith("--")]
    phone, dark = "--phone" in arguments, "--dark" in arguments
    shots = Path(arguments[arguments.index("--shots") + 1]) if "--shots" in arguments else None
    rules, total = Counter(), Counter()
    files = sorted(folder.rglob("*.html"))
    with browser() as started, contextlib.ExitStack() as stack:
        base = (
            stack.enter_context(served(folder))
            if "--served" in arguments
            else folder.absolute().as_uri()
        )
        for file in files:
            name = file.relative_to(folder).as_posix()
            shot = (
                shots and shots / f"{name.replace('/', '_')}{'-phone' * phone}{'-dark' * dark}.png"
            )
            seen, page = look(started, f"{base}/{name}", phone=phone, dark=dark, shot=shot)
            page.close()
            row = {
                "requests": seen.requests,
                "elsewhere": len(seen.elsewhere),
                "failed": len(seen.failed),
                "errors": len(seen.errors),
                "wider": max(0, seen.wider),
                "serious": len(seen.serious()),
                "slides": len(seen.slides),
                "over": sum(s[0] > 720 or s[1] > 1280 or s[4] > 0 for s in seen.slides),
                "small": sum(s[2] < 24 for s in seen.slides),
                "long": sum(s[3] > 15 for s in seen.slides),
            }
            total.update(row)
            print(
                name,
                " ".join(f"{k}={v}" for k, v in row.items()),
                [one[:3] for one in seen.axe],
                flush=True,
            )
            for one in [*seen.failed, *seen.errors, *seen.elsewhere]:
                print("   ", one[:300])
            for rule, impact, count, place in seen.axe:
                rules[rule, impact] += count
                if "--places" in arguments:
                    print("   ", rule, impact, count, place)
    print(len(files), "pages", json.dumps(total), dict(rules))


if __name__ == "__main__":
    main(sys.argv[1:])
