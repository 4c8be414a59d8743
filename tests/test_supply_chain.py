"""What the project is built of: actions by commit, pins with hashes, one index for torch, licences of all."""

import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pip._internal.exceptions import PipError
from pip._internal.network.session import PipSession
from pip._internal.req.constructors import install_req_from_parsed_requirement
from pip._internal.req.req_file import parse_requirements

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
LICENCES = runpy.run_path(str(ROOT / ".ci" / "licences.py"))
PINNED = ["requirements.txt", "requirements-adapterhub.txt"]


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def pins_of(name):
    """Return {(package, version, marker): number of hashes} of a requirements file."""
    found = {}
    for block in re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", text_of(name), flags=re.MULTILINE)):
        line, *hashes = [part.strip() for part in block.strip().split("\\\n")]
        if line:
            pin = Requirement(line)
            key = canonicalize_name(pin.name), str(pin.specifier), str(pin.marker or "")
            found[key] = sum(
                bool(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one)) for one in hashes
            )
            assert found[key] == len(hashes) and str(pin.specifier).startswith("=="), block
    return found


def test_every_action_is_named_by_its_commit_and_the_release_beside_it():
    found = {}
    for path in WORKFLOWS:
        for line in re.findall(r"uses:(.*)", path.read_text(encoding="utf-8")):
            match = re.fullmatch(r" ([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
            assert match, (
                f"{path.name}: {line.strip()}: name the commit of a release, and the release"
            )
            found.setdefault(match[1], set()).add((match[2], match[3]))
    assert len(found) >= 4 and all(len(commits) == 1 for commits in found.values()), found


@pytest.mark.parametrize("name", PINNED)
def test_the_hashed_file_holds_the_same_pins_each_with_hashes(name):
    plain, hashed = pins_of(name), pins_of(name.replace(".txt", "-hashed.txt"))
    assert plain.keys() == hashed.keys(), "run make pins"
    assert min(hashed.values()) >= 1 and not any(plain.values())


def test_the_pins_hold_what_pyproject_declares_and_no_cuda():
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    pins = {
        name: version[2:]
        for name, version, _ in [*pins_of("requirements.txt"), *pins_of("requirements-torch.txt")]
    }
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for wanted in map(Requirement, project["dependencies"] + extras):
        if wanted.name != project["name"]:
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted
    assert not [name for name in pins if re.match("nvidia|cuda|triton", name)]


def test_torch_comes_from_one_index():
    """Two indexes mixed: a name that one of them lacks is taken from the other, whoever put it there."""
    files = ["Makefile", "tox.ini", "environment.yml", "README.md", "CONTRIBUTING.md", ".ci/run"]
    for path in [*map(ROOT.joinpath, files), *WORKFLOWS, *ROOT.glob("requirements*.txt")]:
        assert not re.search("extra.index.url", path.read_text(encoding="utf-8"), re.IGNORECASE), (
            path
        )
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            makes = any("make" in step.get("run", "") for step in job["steps"])
            assert not makes or job["env"]["TORCH_INDEX"].endswith("/cpu"), path


def accepted(lines, folder):
    """Return what pip reads in lines of a requirements file, as it does it for ``pip install -r``."""
    (folder / "all.txt").write_text("\n".join(lines), encoding="utf-8")
    parsed = parse_requirements(str(folder / "all.txt"), session=PipSession())
    return [install_req_from_parsed_requirement(one) for one in parsed]


def test_pip_accepts_what_environment_yml_hands_it(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    *_, pip = yaml.safe_load(text_of("environment.yml"))["dependencies"]
    lines = [re.sub("^-r ", f"-r {ROOT}/", line) for line in pip["pip"]]
    names = [one.name or "." for one in accepted(lines, tmp_path)]
    assert names[0] == "torch" and "peft" in names and len(names) > 150
    assert not any(
        one.has_hash_options for one in accepted(lines, tmp_path)
    )  # with hashes pip takes no `-e .`
    with pytest.raises(PipError):
        accepted([*lines, "--no-deps -e ."], tmp_path)


def make_with(version, folder):
    """Return what `make` says that finds a Python of this version alone."""
    python = folder / "python"
    patch = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "{patch}" "$2"\nexit 7\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements-torch.txt", "requirements-hashed.txt"):
        (folder / name).write_text(text_of(name), encoding="utf-8")
    command = ["make", ".venv/installed", f"PYTHON={python}"]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", cwd=folder)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("minor", "good"), [(9, False), (10, False), (11, True), (12, True), (13, True), (14, False)]
)
def test_make_refuses_a_python_that_the_pins_are_not_for(tmp_path, minor, good):
    status, said = make_with((3, minor, 1), tmp_path)
    first = said.splitlines()[0]
    assert status == 2 and "Traceback" not in said
    assert first.startswith("The pinned environment needs Python 3.11") != good
    assert good == ("Error 7" in said)  # it went on to make the environment


def test_every_pinned_package_has_a_licence_that_lets_everyone_use_it():
    page = dict(re.findall(r"^\| (.*?) \| (.*?) \|$", text_of("docs/licences.md"), re.MULTILINE))
    looked_at = [pin for pin in LICENCES["pins"]() if not pin.marker or pin.marker.evaluate()]
    others = text_of("docs/licences.md").splitlines()[-1]
    assert len(looked_at) > 150
    for pin in looked_at:
        licence = LICENCES["declared"](pin.name)
        assert not LICENCES["unknown"](licence), f"{pin.name}: {licence or 'none declared'}"
        listed = pin.name in page.get(licence, "").split(", ") or pin.name in others
        assert listed, f"docs/licences.md does not have {pin.name} under {licence}: run make pins"


@pytest.mark.parametrize(
    ("licence", "odd"),
    [
        ("MIT", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("ISC License (ISCL)", False),
        ("(MIT OR Apache-2.0) AND Zlib", False),
        ("", True),
        ("GPL-3.0-or-later", True),
        ("MIT AND LGPL-2.1", True),
        ("Other/Proprietary License", True),
    ],
)
def test_a_licence_is_looked_at_part_by_part(licence, odd):
    assert bool(LICENCES["unknown"](licence)) == odd


def rows_of_data():
    """Return ``[(patterns, licence)]`` of the table in data/README.md."""
    table = [
        line.strip("|").split(" | ")
        for line in text_of("data/README.md").splitlines()
        if line.startswith("| `")
    ]
    assert all(len(row) == 5 for row in table)
    return [(re.findall(r"`([^`]+)`", row[0]), row[3].strip()) for row in table]


def licence_of(file):
    """Return the licence that data/README.md gives a file by its last row, None if there is no row."""
    name = file.relative_to(ROOT / "data").as_posix()
    fits = lambda pattern: fnmatch(name, pattern) or fnmatch(name, f"{pattern}/*")
    return next(
        (said for patterns, said in reversed(rows_of_data()) if any(map(fits, patterns))), None
    )


def test_every_file_of_data_has_a_licence():
    files = [file for file in (ROOT / "data").rglob("*") if file.is_file() and file.name[0] != "."]
    files = [
        file
        for file in files
        if file.name not in ("README.md", "SHA256SUMS") or file.parent.name != "data"
    ]
    assert len(files) > 60
    known = (
        r"Apache-2\.0|MIT|numbers alone|ratings: MIT.*; sentences: quoted for research, see below"
    )
    for file in files:
        assert re.fullmatch(known, licence_of(file) or ""), (
            f"{file}: name its licence in data/README.md"
        )


def test_the_licence_of_the_rated_sentences_is_not_called_mit():
    for name in ("movie_reviews.tsv", "editorials.tsv"):
        assert "quoted" in licence_of(ROOT / "data" / "reviews" / name)
