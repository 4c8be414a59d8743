"""What holds on every system and Python that the README names: encodings, imports, words of the language."""

import ast
import json
import subprocess
import sys

import pytest

import peftroom.cli  # noqa: F401 - it registers commands
from nbregress import cli
from support.imports import SRC

ROOT = SRC.parent
SOURCES = sorted(SRC.rglob("*.py"))
PROGRAMS = [*SOURCES, *sorted((ROOT / "studies").rglob("*.py")), *(ROOT / ".ci").glob("*.py")]
# Where a call takes its encoding if it is not named: of a function, of a method.
POSITION = {"read_text": 0, "write_text": 1, "open": 3, "os.fdopen": 3, "io.TextIOWrapper": 1}
COMPRESSED = ("gzip.open", "bz2.open", "lzma.open")  # text only if asked for
NO_TEXT = ("os.open", "tarfile.open", "zipfile.open", "Image.open", "webbrowser.open")
PROCESSES = ("subprocess.run", "subprocess.Popen", "subprocess.check_output", "subprocess.call")


def argument(call, name, position=None):
    """Return a call's argument by name or position as source; empty if it is not given."""
    by_name = {each.arg: ast.unparse(each.value) for each in call.keywords}
    given = position is not None and len(call.args) > position
    return by_name.get(name) or (ast.unparse(call.args[position]) if given else "")


def is_text(call, function, method):
    """Tell whether a call reads or writes text: a file's, or another process's."""
    if function in PROCESSES:
        return "True" in (argument(call, "text"), argument(call, "universal_newlines"))
    if function in COMPRESSED:
        return "t" in argument(call, "mode", 1)
    if function in NO_TEXT or not {function, method} & POSITION.keys():
        return False
    at = (
        0 if function not in POSITION and method == "open" else 1
    )  # Path.open has no file before its mode
    return method not in ("open", "fdopen") or "b" not in argument(call, "mode", at)


def without_encoding(source):
    """Return the calls that read or write text as this machine happens to encode it."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        function = ast.unparse(call.func)
        method = function.rsplit(".", 1)[-1]
        position = POSITION.get(function, POSITION.get(method))
        if method == "open" and function not in POSITION and function not in COMPRESSED:
            position = 2
        if is_text(call, function, method) and not argument(call, "encoding", position):
            found.append(f"line {call.lineno}: {ast.unparse(call)[:70]}")
    return found


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_has_its_encoding(path):
    """Windows reads cp1252 where none is given: °C and every umlaut would be garbled."""
    assert without_encoding(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("open('a')", True),
        ("open('a', 'rb')", False),
        ("open('a', mode='wb')", False),
        ("open('a', 'w', encoding='utf-8')", False),
        ("path.open()", True),
        ("path.open('rb')", False),
        ("path.open('w', -1, 'utf-8')", False),
        ("path.read_text()", True),
        ("path.read_text(errors='replace')", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text('x')", True),
        ("path.write_text('x', encoding='utf-8')", False),
        ("gzip.open('a')", False),
        ("gzip.open('a', 'rt')", True),
        ("os.open('a', 0)", False),
        ("os.fdopen(1, 'w')", True),
        ("tarfile.open('a')", False),
        ("subprocess.run(c)", False),
        ("subprocess.run(c, text=True)", True),
        ("subprocess.Popen(c, **pipes, text=True)", True),
        ("subprocess.run(c, encoding='utf-8')", False),
    ],
)
def test_the_encoding_test_knows_good_from_bad(source, wrong):
    assert bool(without_encoding(source)) == wrong


# What Windows lacks: modules, and names of `os`.
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "syslog", "pty")
NAMES = (
    "sysconf",
    "fork",
    "getuid",
    "geteuid",
    "killpg",
    "setsid",
    "getloadavg",
    "uname",
    "getpgid",
)


def posix_at_import(tree):
    """Return the modules of MODULES that a module imports when it is imported itself, and every os.NAME."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inside:
            names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
            yield from set(names) & set(MODULES)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {f"os.{n}" for n in NAMES}:
            yield ast.unparse(node)


# The process in which a learner's code runs; `pefthelpers grade` refuses to start it on Windows.
POSIX = {"host.py"}


def test_no_module_needs_what_windows_lacks_to_be_imported():
    sources = [path for path in SOURCES if path.name not in POSIX]
    found = {path.name: [*posix_at_import(ast.parse(path.read_text("utf-8")))] for path in sources}
    assert {name: uses for name, uses in found.items() if uses} == {}
    bad = "import fcntl\nfrom resource import x\ndef f():\n    import pwd\n    os.fork()"
    assert [*posix_at_import(ast.parse(bad))] == ["fcntl", "resource", "os.fork"]


# What others import is loaded before: that is their affair.
WINDOWS = f"""
import os, sys
import filelock, psutil, jupyter_client, nbclient, papermill, IPython
sys.modules.update(dict.fromkeys({MODULES}))
for name in {NAMES}:
    vars(os).pop(name, None)
"""


def as_on_windows(code):
    """Run code in a Python without what Windows lacks; return the JSON that it prints last."""
    command = [sys.executable, "-c", WINDOWS + code]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_reader_asks_for_works_on_windows_and_the_runner_says_where_it_does(tmp_path):
    found = as_on_windows(f"""
import contextlib, io, json
from pathlib import Path
from nbregress import cli, doctor, run_store
def ask(words):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        return cli.main(words.split()), said.getvalue()
good = [ask(words)[0] for words in ("memory llama-3.1-8b", "recipe lora", "compare x y")]
memory_gib = doctor.total_memory_gib()
with run_store.claimed(Path({str(tmp_path)!r})):
    pass
sys.platform = "win32"
print(json.dumps([good, memory_gib, [ask(words) for words in ("run 02", "record 02", "matrix")]]))
""")
    good, memory_gib, refused = found
    assert good == [0, 0, 2] and memory_gib > 1
    for status, said in refused:
        assert status == 2 and len(said.splitlines()) == 1 and "WSL" in said, said


def test_the_commands_that_execute_notebooks_are_known():
    assert {*cli.EXECUTE} < {*cli.COMMANDS.choices}
