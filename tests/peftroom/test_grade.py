"""``pefthelpers grade``: made-up learners, right and hostile, get the right marks; nothing else is touched."""

import hashlib
import json
import os
import socket
from pathlib import Path

import nbformat
import pytest

from nbregress import notebooks
from peftroom import grade, hand_ins, sandbox
from support import learners

ROOT = Path(__file__).resolve().parents[2]
ALL = {
    "right": "✓✓✓", "wrong": "✗✓✓", "stub": "○○○", "plain": "✓✓✓", "colab": "✓✓✓", "uncalled": "✓✓✓",
    "missing": "!!!", "json": "!!!", "empty": "!!!", "binary": "!!!", "deep": "!!!", "list": "!!!",
    "link": "!!!", "deleter": "✗○○", "faker": "✗○○", "loop": "!○○", "bomb": "!○○", "daemon": "✓○○",
    "hog": "!○○", "hogs": "!○○", "network": "!○○", "exit": "!○○", "filler": "✗○○", "spy": "✓○○",
}  # fmt: skip
QUICK = ("right", "wrong", "stub", "json", "empty", "link", "deleter", "faker", "loop", "bomb")
BESIDE_MEMORY = {"✗", "!"}  # a hog's function is told MemoryError, or its process is ended


def checksum(*folders: Path) -> dict[str, str]:
    """Return what each file of folders is: mode, times and content."""
    found = {}
    for folder in folders:
        for path in sorted([folder, *folder.rglob("*")]):
            how = path.lstat()
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            digest = hashlib.sha256(data).hexdigest()
            found[str(path)] = f"{how.st_mode} {how.st_mtime_ns} {how.st_size} {digest}"
    return found


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Make a folder with a small notebook 05: its exercises alone, for a quick start."""
    folder = tmp_path_factory.mktemp("collection")
    (folder / "notebooks").mkdir()
    book = notebooks.read(ROOT / "notebooks" / "05_adapters.ipynb")
    sources = ["A = 1", "B = 2", "C = 3", "D = 4", "import torch"]
    sources += ["from pefthelpers.checks import adapters as check"]
    first = [nbformat.v4.new_code_cell(source) for source in sources]
    for number, cell in enumerate(first):
        cell.id = f"own-{number}"
    kept = [c for c in book.cells if {"exercise", "solution"} & {*notebooks.tags(c)}]
    book.cells = first + kept
    nbformat.write(book, folder / "notebooks" / "05_adapters.ipynb")
    return folder


def graded(collection, tmp_path, monkeypatch, run, wanted, *, timeout=5):
    """Grade some of the made-up learners; return marks by learner and all that was printed."""
    monkeypatch.chdir(collection)
    monkeypatch.setenv("A_SECRET_TOKEN", "SECRET")
    grade.collection.cache_clear()
    folder, victim = tmp_path / "room", tmp_path / "victim"
    (victim / "inside").mkdir(parents=True)
    (victim / "inside" / "file").write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = [victim, ROOT / "src" / "peftroom", Path.home() / ".config"]
        learners.room(folder, "05_adapters", places=places, port=server.getsockname()[1])
        for path in folder.iterdir():
            if path.stem not in wanted:
                learners.remove(path)
        watched = victim, folder, ROOT / "src" / "peftroom", ROOT / "data" / "claims.yaml"
        before = checksum(*watched)
        code, text = run(folder, "--out", tmp_path / "out", "--timeout", timeout, command="grade")
        assert checksum(*watched) == before
    grade.collection.cache_clear()
    assert code == 0, text
    rows = json.loads((tmp_path / "out" / "grades.json").read_text())["rows"]
    marks = {row["learner"]: "" for row in rows}
    for row in rows:
        marks[row["learner"]] += grade.SIGNS[row["mark"]]
    return marks, text


needs_bubblewrap = pytest.mark.skipif(
    not sandbox.bubblewrap_works(), reason="needs bubblewrap, which this machine has not"
)


@needs_bubblewrap
def test_ten_learners_get_the_right_table(collection, tmp_path, monkeypatch, run):
    marks, text = graded(collection, tmp_path, monkeypatch, run, QUICK)
    assert marks == {name: ALL[name] for name in QUICK}
    assert "wrong, 05_adapters 1 (bottleneck): ✗ The residual is missing" in text
    assert "bomb, 05_adapters 1 (bottleneck): ! it started too many processes" in text
    assert "Learners' code ran in bubblewrap: no network" in text
    csv = (tmp_path / "out" / "grades.csv").read_text()
    assert csv.startswith("learner,notebook,exercise,name,mark,why\n")
    assert csv.count("\n") == 1 + 3 * len(QUICK)
    page = (tmp_path / "out" / "grades.html").read_text()
    assert page.count("<tr>") >= len(QUICK) and "http" not in page


@needs_bubblewrap
@pytest.mark.every_learner
def test_every_learner_gets_the_right_table_twice(collection, tmp_path, monkeypatch, run):
    for turn in ("one", "two"):
        marks, _ = graded(collection, tmp_path / turn, monkeypatch, run, ALL)
        hogs = {marks.pop(name)[0] for name in ("hog", "hogs")}
        assert hogs <= BESIDE_MEMORY
        assert marks == {name: ALL[name] for name in ALL if name not in ("hog", "hogs")}


def of_papers(folder):
    (folder / "bob.pdf").write_bytes(b"%PDF")
    (folder / "carol").mkdir()
    return folder


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "none", "is no folder: grade takes one with a subfolder or file"),
        (lambda folder: folder, "holds no notebook: it takes a subfolder or file a learner"),
        (of_papers, "holds no notebook: it takes a subfolder or file a learner"),
    ],
)
def test_wrong_use_ends_in_a_sentence(make, sentence, tmp_path, run):
    code, text = run(make(tmp_path), command="grade")
    assert code == 2 and sentence in text and "Traceback" not in text


def test_without_a_sandbox_it_refuses(tmp_path, monkeypatch, run):
    (tmp_path / "bob.ipynb").write_text("{}")
    monkeypatch.setattr(sandbox, "bubblewrap_works", lambda: False)
    monkeypatch.setattr(sandbox, "landlock", lambda: 0)
    code, text = run(tmp_path, command="grade")
    assert code == 2 and "install bubblewrap" in text


def test_a_zip_and_a_link_and_a_cell_of_the_learner_s_own_are_read(
    tmp_path, collection, monkeypatch
):
    import zipfile

    monkeypatch.chdir(collection)
    grade.collection.cache_clear()
    text = learners.cells_of(
        "05_adapters", exercise_2="answer = width(5)\ncheck.largest_width(answer, d=1)"
    )
    book = json.loads(text)
    at = [cell["id"] for cell in book["cells"]].index("exercise-2")
    book["cells"].insert(at, {"cell_type": "code", "id": "mine", "source": "def width(d): return d",
                              "metadata": {}, "outputs": [], "execution_count": None})  # fmt: skip
    with zipfile.ZipFile(tmp_path / "carol.zip", "w") as archive:
        archive.writestr("05/05_adapters.ipynb", json.dumps(book))
        for copy in ("05/.ipynb_checkpoints/05_adapters-checkpoint", "__MACOSX/05/._05_adapters"):
            archive.writestr(f"{copy}.ipynb", "a copy that nobody handed in")
    (tmp_path / "dave.zip").write_bytes(b"PK no zip")
    (tmp_path / "erin.ipynb").symlink_to(os.devnull)
    (tmp_path / "frank.pdf").write_bytes(b"%PDF")  # handed in, so not silently left out
    found = hand_ins.collect(tmp_path)
    grade.collection.cache_clear()
    assert [each.learner for each in found] == ["carol", "dave", "erin", "frank.pdf"]
    assert [bool(each.problem) for each in found] == [False, True, True, True]
    monkeypatch.chdir(collection)
    (official,) = grade.collection()
    to_run = found[0].of(official.exercises[1], official)
    assert to_run["own"] == ["def width(d): return d"] and "width(5)" in to_run["cells"][0]


@pytest.mark.parametrize("path", notebooks.find([]), ids=lambda path: path.stem)
def test_every_exercise_ends_in_one_check_of_a_name(path):
    official = hand_ins.Official.of(path)
    book = notebooks.read(path)
    solutions = [cell for cell in book.cells if "solution" in notebooks.tags(cell)]
    assert len(official.exercises) == len(solutions)
    for exercise in official.exercises:
        assert exercise.called_in(exercise.source)
