"""Open an issue for each failure of the matrix that has none yet: open_issues.py matrix.json.

Needs the forge's command `gh`, signed in. A failure is known by its title: notebook, stack, and where.
"""

import json
import subprocess
import sys


def failures(table: dict) -> dict[str, str]:
    """Return ``{title: body}`` of what is not good in a matrix."""
    found = {}
    for column in table["columns"]:
        if column["error"]:
            found[f"Matrix: no environment for {column['stack']}"] = column["error"]
        versions = ", ".join(f"{name} {version}" for name, version in column["versions"].items())
        for name, row in column["results"].items():
            if row["status"] == "passed":
                continue
            where = f" at {row['cell_id'] or row['cell']}" if row["cell"] is not None else ""
            title = f"Matrix: {name} {row['status']} on {column['stack']}{where}"
            lines = row["drifts"] or [row["reason"]]
            said = "\n".join(lines)
            found[title] = f"```\n{said}\n```\n\n{versions}\n\n```\n{row['traceback'][-3000:]}\n```"
    return found


def open_titles() -> set[str]:
    """Return the titles of the open issues."""
    command = ["gh", "issue", "list", "--state", "open", "--limit", "500", "--json", "title"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {issue["title"] for issue in json.loads(listed)}


def main(path: str) -> None:
    """Open what is new."""
    with open(path, encoding="utf-8") as file:
        found = failures(json.load(file))
    known = open_titles() if found else set()
    for title, body in found.items():
        if title in known:
            print(f"known: {title}")
            continue
        subprocess.run(["gh", "issue", "create", "--title", title, "--body", body], check=True)
        print(f"opened: {title}")


if __name__ == "__main__":
    main(sys.argv[1])
