"""Open an issue for each failure of the matrix that has none yet: open_issues.py matrix.json.

Needs the forge's command `gh`, signed in, and in MATRIX and AUDIT how those jobs ended. A failure is known by its
title: notebook, stack, and where. A run that left no table is a failure too, as is an audit that found something.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

AUDIT = """`make audit` says which: the job's log has its table.

A hole that is mended: `make pins PINS='--upgrade-package NAME'`, then CONTRIBUTING.md, "Change a version".
"""


def failures(table: dict) -> dict[str, str]:
    """Return ``{title: body}`` of what is not good in a matrix."""
    found = {}
    for column in table["columns"]:
        if column["error"]:
            found[f"Matrix: no result for {column['stack']}"] = column["error"]
        for name, row in column["results"].items():
            if row["status"] != "passed":
                where = f" at {row['cell_id'] or row['cell']}" if row["cell"] is not None else ""
                title = f"Matrix: {name} {row['status']} on {column['stack']}{where}"
                found[title] = body_of(row, column)
    return found


def body_of(row: dict, column: dict) -> str:
    """Return what an issue says of a notebook: drifts or the error, versions, the traceback's end."""
    versions = {"Python": column["python"], **column["versions"]}
    parts = ["```", *(row["drifts"] or [row["reason"]]), "```", ""]
    parts += [", ".join(f"{name} {version}" for name, version in versions.items())]
    if row["traceback"]:
        parts += ["", "```", row["traceback"][-3000:], "```"]
    return "\n".join(parts)


def run_address() -> str:
    """Return where the run can be looked at, empty outside the forge."""
    known = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name, "") for name in known)
    return f"\n\n{server}/{repository}/actions/runs/{run}" if run else ""


def open_titles() -> set[str]:
    """Return the titles of the open issues."""
    command = ["gh", "issue", "list", "--state", "open", "--limit", "500", "--json", "title"]
    listed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    return {issue["title"] for issue in json.loads(listed)}


def main(path: Path) -> None:
    """Open what is new."""
    found = {}
    if path.exists():
        found = failures(json.loads(path.read_text(encoding="utf-8")))
    elif os.environ.get("MATRIX") != "success":
        found["Matrix: the run left no table"] = "It ended before the first stack had run."
    if os.environ.get("AUDIT") == "failure":
        found["Audit: a pinned package has a known hole, or was not looked up"] = AUDIT
    known = open_titles() if found else set()
    for title, body in found.items():
        if title in known:
            print(f"known: {title}")
            continue
        command = ["gh", "issue", "create", "--title", title, "--body", body + run_address()]
        subprocess.run(command, check=True)
        print(f"opened: {title}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
