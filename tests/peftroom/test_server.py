"""A server for a room: passwords, the hub's configuration, and how many learners a machine holds."""

import asyncio
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pefthelpers import results
from pefthelpers.paths import data_dir
from peftroom import cli, server
from studies import room_guide, room_server

ROOT = data_dir().parent
GUIDE = (ROOT / "docs" / "room.md").read_text(encoding="utf-8")


@pytest.fixture
def room(tmp_path):
    """A prepared folder for two learners, and their passwords."""
    return tmp_path / "room", server.prepare(["ada", "tim"], tmp_path / "room")


class Any:
    """A configuration that takes every value."""

    def __getattr__(self, name):
        self.__dict__[name] = Any()
        return self.__dict__[name]


@pytest.fixture
def config(room, monkeypatch):
    """What the configuration file defines, with stand-ins for JupyterHub's classes."""
    for name, attributes in {
        "jupyterhub": {},
        "jupyterhub.auth": {"Authenticator": object},
        "jupyterhub.spawner": {"SimpleLocalProcessSpawner": object},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("PEFTHELPERS_VENV", "/environment")
    settings = Any()
    path = room[0] / "jupyterhub_config.py"
    found = runpy.run_path(str(path), init_globals={"get_config": lambda: settings})
    return SimpleNamespace(**{k: v for k, v in found.items() if not k.startswith("__")})


def test_each_learner_gets_a_password_and_keeps_it(room):
    folder, passwords = room
    assert passwords.keys() == {"ada", "tim"} and len(set(passwords.values())) == 2
    assert all(re.fullmatch(f"[{server.LETTERS}]{{10}}", one) for one in passwords.values())
    kept = json.loads((folder / "learners.json").read_text())
    assert not any(one in json.dumps(kept) for one in passwords.values())
    assert server.prepare(["ada", "tim", "eve"], folder).keys() == {"eve"}
    after = json.loads((folder / "learners.json").read_text())
    assert after.keys() == {"ada", "tim", "eve"} and after["ada"] == kept["ada"]
    sheet = dict(one.split("\t") for one in (folder / "passwords.tsv").read_text().splitlines())
    assert sheet.keys() == after.keys() and sheet["tim"] == passwords["tim"]
    assert folder.stat().st_mode & 0o077 == 0


def test_the_hub_takes_the_right_password_alone(room, config):
    _, passwords = room
    login = config.OnePasswordEach()
    answer = lambda name, word: asyncio.run(
        login.authenticate(None, {"username": name, "password": word})
    )
    assert answer("ada", passwords["ada"]) == "ada"
    for name, word in [("ada", passwords["tim"]), ("ada", ""), ("eve", ""), ("eve", "x")]:
        assert answer(name, word) is None


def test_the_first_start_hands_out_the_notebooks_and_the_next_leaves_them(room, config):
    home = room[0] / "homes" / "ada"
    home.mkdir(parents=True)
    spawner = SimpleNamespace(home_dir=str(home))
    config.hand_out(spawner)
    names = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    for folder in ("originals", "notebooks"):
        assert {path.name for path in (home / folder).glob("*.ipynb")} == names
    mode = lambda folder: (home / folder / "02_lora.ipynb").stat().st_mode & 0o222
    assert not mode("originals") and mode("notebooks")
    (home / "notebooks" / "02_lora.ipynb").write_text("mine")
    config.hand_out(spawner)
    assert (home / "notebooks" / "02_lora.ipynb").read_text() == "mine"
    shutil.rmtree(home)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no name"),
        ("ada\nada\n", "ada stands there twice"),
        ("../etc\n", "'../etc' cannot be a learner's name"),
        ("Ada Lovelace\n", "cannot be a learner's name"),
    ],
)
def test_bad_names_are_refused_in_one_sentence(text, said, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text(text, encoding="utf-8")
    assert cli.main(["room", str(names), "--out", str(tmp_path / "room")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "room").exists()
    names.unlink()
    assert cli.main(["room", str(names), "--out", str(tmp_path / "room")]) == 2


def test_a_machine_holds_what_its_memory_holds():
    measured = {"fixed_mib": 1024, "private_mib": 512}
    assert server.learners_held(16, measured) == (16 - 2 - 1) * 2
    assert server.learners_held(2, measured) == 0


def test_the_record_is_three_learners_and_its_numbers_follow_from_its_rows():
    found = results.read("room_server")
    assert found["wrong_password_refused"] and len(found["together"]) == 3
    assert all(set(files) == {"notebooks", "originals"} for files in found["homes"].values())
    assert found["cases"] == room_server.summary(found["hub"], found["together"])


def test_the_guide_says_what_was_measured():
    for study, text in room_guide.rendered().items():
        assert text in GUIDE, f"{study}: run python -m studies.room_guide"


def test_every_command_of_the_guide_is_there():
    blocks = "\n".join(re.findall(r"```\n(.*?)```", GUIDE, flags=re.DOTALL)) + "\n"
    used = set(re.findall(r"pefthelpers (\w+)", blocks))
    assert used >= {"bundle", "doctor"} and used <= cli.main.__globals__["COMMANDS"].choices.keys()
    for command, line in re.findall(r"pefthelpers (\w+)(.*)", blocks):
        options = cli.main.__globals__["COMMANDS"].choices[command].format_help()
        assert all(option in options for option in re.findall(r"--[\w-]+", line)), line
    targets = re.findall(r"^make ([\w.-]+)", blocks, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets and all(f"\n{target}:" in makefile for target in targets)
    for name in re.findall(r"docs/room/[\w.-]+", GUIDE):
        assert Path(ROOT / name).is_file(), name


def test_a_cell_that_wants_too_much_gets_an_error(config):
    """The limit that a learner's server and kernels inherit, tried on a process of its own."""
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({config.MEMORY_GIB * config.GIB},) * 2)\n"
        f"try: bytearray({(config.MEMORY_GIB + 1) * config.GIB})\n"
        "except MemoryError: print('refused')\n"
        "print(len(bytearray(10**8)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["refused", "100000000"]
