"""The table of the recipes that were executed, under the tests' summary."""

import pytest

ENDED = pytest.StashKey[dict]()


def pytest_terminal_summary(terminalreporter, config):
    """Show method and task by where it ran: done, or the last line of its error."""
    ended = config.stash.get(ENDED, {})
    if not ended:
        return
    terminalreporter.section("recipes in an empty folder, by a Python without this collection")
    columns = sorted({where for _, _, where in ended})
    terminalreporter.line(f"{'':10} {'':22} " + " ".join(f"{each:>12}" for each in columns))
    for method, task in sorted({each[:2] for each in ended}, key=lambda each: each[::-1]):
        cells = [told(ended.get((method, task, where))) for where in columns]
        terminalreporter.line(f"{method:10} {task:22} " + " ".join(f"{each:>12}" for each in cells))


def told(end):
    """Return how a recipe ended, in a word or its error's last line."""
    if end is None:
        return "-"
    problem = end["problem"].strip().rpartition("\n")[2]
    return problem or f"done, {end['cpu_s']:.1f} s"
