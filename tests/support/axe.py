"""What keeps people out of a page, as axe-core finds it in headless Chromium."""

from axe_playwright_python.base import AXE_FILE_PATH


def violations(page, *, apart_from=()):
    """Return what axe-core says of an open page: ``(rule, impact, places, one of them)``.

    Args:
        page: Playwright's, with the page loaded.
        apart_from: selectors of parts that are not looked at.
    """
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    parts = {"include": [["html"]], "exclude": [[each] for each in apart_from]}
    found = page.evaluate("parts => axe.run(parts, {resultTypes: ['violations']})", parts)
    return [
        (rule["id"], rule["impact"], len(rule["nodes"]), rule["nodes"][0]["html"][:200])
        for rule in found["violations"]
    ]
