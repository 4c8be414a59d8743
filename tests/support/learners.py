"""Made-up learners' folders: right, wrong, hostile and broken hand-ins of notebook 05 (or another)."""

import json
import os
import shutil
from pathlib import Path

from nbregress import notebooks
from support.cells import Cells

WRONG = "def adapted(x, down, up, f):\n    return up(f(down(x)))\ncheck.bottleneck(adapted)"
HOSTILE = {
    "loop": "def adapted(x, down, up, f):\n    while True: pass\ncheck.bottleneck(adapted)",
    "bomb": "import os\ndef adapted(x, down, up, f):\n    while True:\n        try: os.fork()\n"
    "        except OSError: pass\ncheck.bottleneck(adapted)",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
    "    time.sleep(3600)\ndef adapted(x, down, up, f):\n    return x + up(f(down(x)))\n"
    "check.bottleneck(adapted)",
    "deleter": "import os, shutil, pathlib\nfor place in {places!r}:\n"
    "    shutil.rmtree(place, ignore_errors=True)\n"
    "    for path in [pathlib.Path(place, 'left-by-a-learner'), pathlib.Path(place)]:\n"
    "        try: path.write_text('x')\n        except OSError: pass\n"
    "        try: os.chmod(path, 0)\n        except OSError: pass\n"
    "def adapted(x, down, up, f):\n    return x + up(down(x))\ncheck.bottleneck(adapted)",
    "faker": "print('✓ Correct.')\nimport sys\nfrom pefthelpers.checks import verdict\n"
    "import pefthelpers.checks.adapters as real\n"
    "yes = verdict.Verdict('correct', 'Well done.')\n"
    "for module in (verdict, real):\n    module.judge = module.tried = module.same = lambda *a, **k: yes\n"
    "real.bottleneck = check.bottleneck = lambda *a: yes\nimport torch\n"
    "torch.Tensor.allclose = torch.allclose = lambda *a, **k: True\n"
    "class Equal(float):\n    __eq__ = __ge__ = lambda *a: True\n    __hash__ = float.__hash__\n"
    "def adapted(x, down, up, f):\n    return Equal(1.0)\nyes",
    "hog": "def adapted(x, down, up, f):\n    kept = []\n    while True: kept.append(bytearray(2**26))\n"
    "check.bottleneck(adapted)",
    "hogs": "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n"
    "        kept = b'x' * 2**30\n        time.sleep(60)\n"
    "def adapted(x, down, up, f):\n    time.sleep(60)\ncheck.bottleneck(adapted)",
    "network": "import socket\nreached = socket.create_connection(('127.0.0.1', {port}), timeout=2)\n"
    "def adapted(x, down, up, f):\n    return x + up(f(down(x)))\ncheck.bottleneck(adapted)",
    "exit": "import os\ndef adapted(x, down, up, f):\n    os._exit(0)\ncheck.bottleneck(adapted)",
    "filler": "def adapted(x, down, up, f):\n    with open('big', 'wb') as file:\n"
    "        while True: file.write(bytes(2**24))\ncheck.bottleneck(adapted)",
    "spy": "import os, pathlib\nlooked = [*os.environ.values()] + [str(p) for p in pathlib.Path({folder!r}).glob('*')]\n"
    "if any('SECRET' in text or 'right' in text for text in looked): found = 1 / 0\n"
    "def adapted(x, down, up, f):\n    return x + up(f(down(x)))\ncheck.bottleneck(adapted)",
}


def cells_of(stem: str, **changes: str) -> str:
    """Return a notebook's text with some cells' sources changed, by id with _ for -."""
    book = notebooks.read(notebooks.notebooks_dir() / f"{stem}.ipynb")
    for cell in book.cells:
        cell.source = changes.get(cell.id.replace("-", "_"), cell.source)
        if cell.cell_type == "code":
            cell.outputs = []
    return json.dumps(book)


def solved(stem: str) -> dict[str, str]:
    """Return the solutions of a notebook, by the id of their exercise, with _ for -."""
    book = Cells(stem)
    numbers = [name.split("-")[1] for name in book.by_id if name.startswith("solution-")]
    return {f"exercise_{n}": book.solution(f"solution-{n}") for n in numbers}


def room(folder, stem: str, *, places=(), port: int = 9) -> None:
    """Write the hand-ins of learners, each named after what it is.

    Args:
        folder: for the hand-ins.
        stem: the notebook that all hand in; the hostile ones do exercise 1 of 05.
        places: folders that a learner tries to delete and to write to.
        port: on this machine, at which something listens.
    """
    right = solved(stem)

    def hand_in(learner: str, text: str | bytes, name: str = f"{stem}.ipynb") -> None:
        (folder / learner).mkdir(parents=True)
        data = text if isinstance(text, bytes) else text.encode()
        (folder / learner / name).write_bytes(data)

    hand_in("right", cells_of(stem, **right))
    hand_in("stub", cells_of(stem))
    hand_in("wrong", cells_of(stem, **right | {"exercise_1": WRONG}))
    for name, source in HOSTILE.items():
        text = source.replace("{places!r}", repr([*map(str, places)])).replace("{port}", str(port))
        hand_in(name, cells_of(stem, exercise_1=text.replace("{folder!r}", repr(str(folder)))))
    hand_in("json", cells_of(stem)[:-100])
    hand_in("empty", "")
    hand_in("binary", os.urandom(4096))
    hand_in("deep", "[" * 100_000)
    hand_in("list", "[]")
    without_ids = json.loads(cells_of(stem, **right))
    for cell in without_ids["cells"]:
        del cell["id"]
    hand_in("colab", json.dumps(without_ids), f"Copy of {stem} (1).ipynb")
    nothing = json.loads(cells_of(stem))
    nothing["cells"] = [c for c in nothing["cells"] if not c["id"].startswith("exercise")]
    hand_in("missing", json.dumps(nothing))
    uncalled = {name: source.split("check.")[0] for name, source in right.items()}
    hand_in("uncalled", cells_of(stem, **uncalled))
    (folder / "link").mkdir()
    (folder / "link" / f"{stem}.ipynb").symlink_to("/etc/passwd")
    (folder / "plain.ipynb").write_text(cells_of(stem, **right))


def remove(path: Path) -> None:
    """Remove a learner's file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
