"""What keeps people out of a page, as axe-core finds it in headless Chromium."""

from axe_playwright_python.base import AXE_FILE_PATH


def violations(page, *, leave_out=()):
    """Return what axe-core says of an open page: ``(rule, impact, places, one of them)``.

    Args:
        page: Playwright's, with the page loaded.
        leave_out: rules that are not asked.
    """
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    rules = {rule: {"enabled": False} for rule in leave_out}
    found = page.evaluate("rules => axe.run(document, {resultTypes: ['violations'], rules})", rules)
    return [
        (rule["id"], rule["impact"], len(rule["nodes"]), rule["nodes"][0]["html"][:200])
        for rule in found["violations"]
    ]
