"""The table of the runs on the simulated card, under the tests' summary."""

import pytest

ROWS = pytest.StashKey[dict]()


def pytest_terminal_summary(terminalreporter, config):
    """Show notebook by scenario: cells that failed, bases alive, the card's peak."""
    if rows := config.stash.get(ROWS, {}):
        terminalreporter.section(
            "notebooks on a machine with a GPU (simulated, training shortened)"
        )
    for (stem, profile), found in sorted(rows.items()):
        failed = ", ".join(cell["cell"] for cell in found["failed"]) or "no cell failed"
        terminalreporter.line(
            f"{stem:26} {profile:5} {failed}; {len(found['misplaced'])} models misplaced; "
            f"{found['bases']} bases alive after {found['bases_after']}; "
            f"{found['card_bytes'] / 2**20:.0f} MiB on the card; {found['seconds']:.0f} s"
        )
