"""`doctor --room`: one line a machine, and the table of thirty of them, whatever is in their lines."""

import json

import pytest

from peftroom import cli, machines

SYSTEMS = ("Linux 6.8 x86_64", "Darwin 24.0 arm64", "Windows 11 AMD64")


def line(number, **changed):
    """A machine's line, as `doctor --room` writes it."""
    about = {
        "name": f"seat{number:02}",
        "system": SYSTEMS[number % 3],
        "python": "3.11.9",
        "cores": 4,
        "memory_gib": 15.6,
        "disk_gib": 40.0,
        "when": f"2026-11-27T09:{number:02}:00+00:00",
        "torch": "2.13.0",
        "gpu": "none",
        "check_s": 1.5,
        "ready": True,
        "reasons": [],
    }
    return json.dumps(about | changed)


# Seats 1 to 24 are ready; the rest is what thirty people send.
OTHERS = {
    25: line(25, ready=False, reasons=["2.9 GiB of memory, 4 needed"], memory_gib=2.9),
    26: line(26, ready=False, reasons=["missing: peft; pip install 'peft>=0.21'"], check_s=None),
    27: line(27)[:80],  # cut off
    28: "Traceback (most recent call last):",
    29: json.dumps([1, 2]),
    30: line(30, ready="yes"),
}


@pytest.fixture
def room(tmp_path):
    """A folder with a file a machine, and one with the names of all seats."""
    folder = tmp_path / "lines"
    folder.mkdir()
    for number in range(1, 31):
        text = OTHERS.get(number) or line(number)
        (folder / f"{number:02}.txt").write_text(text + "\n", encoding="utf-8")
    names = tmp_path / "names.txt"
    names.write_text("# seats\n" + "".join(f"seat{n:02}\n" for n in range(1, 31)), encoding="utf-8")
    return folder, names


def said_of(capsys, *arguments):
    """Return exit code and what was printed."""
    code = cli.main(["doctor", "--room", *map(str, arguments)])
    return code, capsys.readouterr().out.splitlines()


def test_thirty_machines_make_one_table(room, capsys):
    folder, names = room
    code, said = said_of(capsys, "--collect", folder, "--expect", names)
    assert code == 1
    rows = [one for one in said if one.startswith("seat")]
    assert len(rows) == 26 and sum(row.endswith(" ready") for row in rows) == 24
    assert "seat25" in rows[0] and rows[0].endswith("NOT READY: 2.9 GiB of memory, 4 needed")
    assert "seat26" in rows[1] and "missing: peft" in rows[1]
    for number, why in {27: "not JSON", 28: "not JSON", 29: "no line", 30: "no ready"}.items():
        assert [one for one in said if one.startswith(f"not read: {number}.txt, line 1: {why}")]
        assert f"missing: seat{number}" in said
    assert said[-1] == "24 of 30 machines are ready."


def test_a_room_that_is_ready_ends_with_0(tmp_path, capsys):
    lines = tmp_path / "lines"
    lines.write_text("\n\n".join(line(n) for n in range(1, 31)), encoding="utf-8")
    code, said = said_of(capsys, "--collect", lines)
    assert code == 0 and said[-1] == "30 of 30 machines are ready."


@pytest.mark.parametrize("coding", ["utf-16", "utf-8-sig"])
def test_files_that_windows_wrote_are_read(coding, tmp_path, capsys):
    lines, names = tmp_path / "lines", tmp_path / "names.txt"
    lines.mkdir()
    (lines / "07.txt").write_text(line(7) + "\n", encoding=coding)
    names.write_text("seat07\n", encoding="utf-8-sig")
    code, said = said_of(capsys, "--collect", lines, "--expect", names)
    assert code == 0 and said[-1] == "1 of 1 machines are ready."


def test_of_two_lines_the_newer_counts_and_a_stranger_is_named(tmp_path, capsys):
    lines, names = tmp_path / "lines", tmp_path / "names.txt"
    old = line(3, ready=False, reasons=["old"], when="2026-11-26T09:00:00+00:00")
    lines.write_text("\n".join([line(3), old, line(4)]), encoding="utf-8")
    names.write_text("seat03\n", encoding="utf-8")
    code, said = said_of(capsys, "--collect", lines, "--expect", names)
    assert code == 0
    assert "twice: seat03; the newer line counts" in said and "not expected: seat04" in said


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * 5000,
        '{"name": "\\u001b[2Jx", "ready": true, "reasons": [], "when": ""}',
        line(1, memory_gib={"a": 1}, cores="x" * 5000),
        line(1, reasons=[{"a": "\u001b[31m"}], ready=False),
        "x" * 2_000_000,
        '{"name": NaN}',
    ],
)
def test_no_line_breaks_the_table(hostile, tmp_path, capsys):
    lines = tmp_path / "lines"
    lines.write_text(f"{hostile}\n{line(2)}\n", encoding="utf-8")
    _, said = said_of(capsys, "--collect", lines)
    assert "\u001b" not in "".join(said) and max(map(len, said)) < 500
    assert any(one.startswith("seat02") for one in said)


def test_a_folder_without_lines_is_not_ready(tmp_path, capsys):
    assert said_of(capsys, "--collect", tmp_path)[0] == 1
    assert cli.main(["doctor", "--room", "--collect", str(tmp_path / "none")]) == 2
    assert "is not there" in capsys.readouterr().err


def test_this_machine_says_one_line(monkeypatch, capsys):
    monkeypatch.setattr(machines, "timed_check", lambda: 1.5)
    code, said = said_of(capsys, "--name", "seat07")
    about = machines.parse(said[0])
    assert len(said) == 1 and about["name"] == "seat07"
    assert code == int(not about["ready"])
    assert set(machines.SHOWN) <= about.keys()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"timed_check": lambda: 99.0}, "ten training steps took 99.0 s"),
        ({"LEAST": {"memory_gib": 1e6}}, "1000000.0 needed"),
        ({"timed_check": lambda: 1 / 0}, "ZeroDivisionError"),
    ],
)
def test_a_machine_that_is_not_ready_says_why(changed, reason, monkeypatch, capsys):
    monkeypatch.setattr(machines, "timed_check", lambda: 1.5)
    for name, value in changed.items():
        monkeypatch.setattr(machines, name, value)
    code, said = said_of(capsys)
    about = machines.parse(said[0])
    assert code == 1 and not about["ready"]
    assert any(reason in one for one in about["reasons"])


def test_the_timed_check_trains_the_real_decoder():
    assert 0 < machines.timed_check() < 600


def test_doctor_alone_says_what_it_said(monkeypatch, capsys):
    monkeypatch.setattr("nbregress.doctor.findings", lambda: ["as before"])
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "as before\n"
