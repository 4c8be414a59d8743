"""Runs the cells that ``hub_kernel`` sends, in AdapterHub's interpreter; needs only Python.

One JSON string of code comes in on each line; one JSON object with what it printed, its last
expression and its error goes out.
"""

import ast
import contextlib
import io
import json
import os
import sys


def run(code: str, names: dict) -> str:
    """Execute code in ``names``; return ``{"printed", "value", "error"}`` as JSON."""
    printed, value, error = io.StringIO(), None, ""
    with contextlib.redirect_stdout(printed):
        try:
            tree = ast.parse(code)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<cell>", "exec"), names)  # noqa: S102 - the notebook's own cells
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        except Exception as problem:  # noqa: BLE001 - whatever a cell raises goes back
            value, error = None, f"{type(problem).__name__}: {problem}"
    answer = {"printed": printed.getvalue(), "value": value, "error": error}
    with contextlib.suppress(TypeError):
        return json.dumps(answer)
    return json.dumps(answer | {"value": repr(value)})  # a tensor, a model: as Python shows it


def main() -> None:
    """Answer line by line until the input ends."""
    # Libraries may print to the process's own output: keep that channel for the answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    names: dict = {"__name__": "__main__"}
    for line in sys.stdin:
        print(run(json.loads(line), names), file=answers, flush=True)


if __name__ == "__main__":
    main()
