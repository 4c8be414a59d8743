"""A bundle: whole or not there, damage named, installed without a network; pip itself, on wheels made here."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir
from peftroom import bundle, cli, wheels
from peftroom.laptop import install

HERE = install.this_platform()
PYTHON = "{}.{}".format(*sys.version_info)


def wheel(folder, name, version, requires=(), code="", tag="py3-none-any"):
    """Write a wheel of one module; return its path."""
    info, lines = f"{name}-{version}.dist-info", [f"Requires-Dist: {one}\n" for one in requires]
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", code or f"version = '{version}'\n")
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(lines)
        archive.writestr(f"{info}/METADATA", about)
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def pin(path):
    """Return the line of a hashed pin."""
    name, version, _ = path.name.split("-", 2)
    return (
        f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
    )


def open_registry(base, monkeypatch):
    """Make a registry of three wheels, a checkout that pins two of them, and a package of our own."""
    folder, root = base / "registry", base / "checkout"
    for each in (folder, root / "data", root / "notebooks"):
        each.mkdir(parents=True)
    pinned = [wheel(folder, "kitchen_knife", "1.0"), wheel(folder, "oven", "2.0")]
    wheel(folder, "torch", "2.13.0")
    (root / "requirements-hashed.txt").write_text("".join(map(pin, pinned)))
    (root / "requirements-torch.txt").write_text("torch==2.13.0\n")
    (root / "pyproject.toml").write_text("")
    (root / "notebooks" / "00_start.ipynb").write_text("{}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(wheels, "data_dir", lambda: root / "data")
    monkeypatch.setattr(bundle, "notebooks_dir", lambda: root / "notebooks")
    monkeypatch.setattr(wheels, "needed", lambda values: {"kitchen-knife", "oven", "torch"})
    own = lambda part: wheel(part / "wheels", "pefthelpers", "0.1.0")
    monkeypatch.setattr(wheels, "bring_own", own)
    return SimpleNamespace(wheels=folder, root=root)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The registry, for one test."""
    return open_registry(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole bundle for this machine, made once."""
    base = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as monkeypatch:
        open_registry(base, monkeypatch)
        bundle.make(base / "made", [HERE], PYTHON, report=lambda line: None)
    return base / "made"


@pytest.fixture
def made(whole, tmp_path):
    """A copy of it, to harm."""
    return shutil.copytree(whole, tmp_path / "made")


def names(folder):
    """Return the files of a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def run_installer(folder, *arguments):
    """Run a bundle's installer as a learner does."""
    call = [sys.executable, folder / "install.py", *arguments]
    return subprocess.run(call, check=False, capture_output=True, text=True)


def test_it_holds_wheels_notebooks_installer_and_a_manifest_of_all(whole, made):
    assert names(made) == {
        "kitchen_knife-1.0-py3-none-any.whl",
        "oven-2.0-py3-none-any.whl",
        "torch-2.13.0-py3-none-any.whl",
        "pefthelpers-0.1.0-py3-none-any.whl",
        f"requirements-{HERE}.txt",
        "00_start.ipynb",
        "install.py",
        "install.sh",
        "install.bat",
        "manifest.json",
    }
    manifest = json.loads((made / "manifest.json").read_text())
    assert len(manifest["files"]) == 9 and manifest["python"] == PYTHON
    assert cli.main(["bundle", "--check", str(made)]) == 0
    assert not whole.with_name("made.part").exists()


def damaged(folder):
    path = folder / "wheels" / "oven-2.0-py3-none-any.whl"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    return "damaged: wheels/oven-2.0-py3-none-any.whl has another checksum"


def cut_off(folder):
    path = folder / "wheels" / "torch-2.13.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:100])
    return "damaged: wheels/torch-2.13.0-py3-none-any.whl has 100 of"


def missing(folder):
    (folder / "notebooks" / "00_start.ipynb").unlink()
    return "missing: notebooks/00_start.ipynb"


def added(folder):
    wheel(folder / "wheels", "oven", "9.0")
    return "added: wheels/oven-9.0-py3-none-any.whl"


def broken_manifest(folder):
    (folder / "manifest.json").write_text('{"files": {"a": 1}}')
    return "manifest.json is damaged"


def no_manifest(folder):
    (folder / "manifest.json").unlink()
    return "holds no manifest.json"


@pytest.mark.parametrize("harm", [damaged, cut_off, missing, added, broken_manifest, no_manifest])
def test_harm_is_named_by_both_checks_and_nothing_is_installed(harm, made, tmp_path, capsys):
    said = harm(made)
    assert cli.main(["bundle", "--check", str(made)]) == 2
    assert said in capsys.readouterr().err
    done = run_installer(made, "--to", tmp_path / "laptop")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "laptop").exists()


def test_it_installs_in_a_fresh_environment(made, tmp_path):
    laptop = tmp_path / "laptop"
    done = run_installer(made, "--to", laptop)
    assert done.returncode == 0, done.stderr
    python = laptop / ".venv" / "bin" / "python"
    call = [python, "-c", "import kitchen_knife, oven, torch, pefthelpers; print(oven.version)"]
    assert subprocess.run(call, check=True, capture_output=True, text=True).stdout == "2.0\n"
    (laptop / "notebooks" / "00_start.ipynb").write_text("mine")
    assert bundle.install.install(made, laptop) == python
    assert (laptop / "notebooks" / "00_start.ipynb").read_text() == "mine"


def test_another_machine_or_python_is_refused(made, monkeypatch):
    monkeypatch.setattr(install.platform, "system", lambda: "Windows")
    with pytest.raises(install.Refused, match="This is windows-.* and the bundle is for"):
        install.fitting(made)
    monkeypatch.undo()
    monkeypatch.setattr(install.platform, "python_version_tuple", lambda: ("3", "9", "1"))
    with pytest.raises(install.Refused, match=f"This is Python 3.9, .*run python{PYTHON} install"):
        install.fitting(made)


def test_what_an_earlier_run_left_is_taken_up_and_never_taken_as_whole(registry, tmp_path):
    part = tmp_path / "made.part"
    (part / "wheels").mkdir(parents=True)
    (part / "incoming").mkdir()
    whole = registry.wheels / "kitchen_knife-1.0-py3-none-any.whl"
    shutil.copy(whole, part / "wheels")
    (part / "wheels" / "oven-2.0-py3-none-any.whl").write_bytes(b"PK cut off")
    (part / "wheels" / "spoon-1.0-py3-none-any.whl").write_bytes(b"of other pins")
    for place in (part / "incoming", part / "wheels"):
        (place / "torch-2.13.0-py3-none-any.whl").write_bytes(b"PK cut off")
    whole.unlink()  # it is there already: nobody asks for it again
    bundle.make(tmp_path / "made", [HERE], PYTHON, report=lambda line: None)
    assert install.damage(tmp_path / "made") == []
    assert "spoon-1.0-py3-none-any.whl" not in names(tmp_path / "made")
    for name in ("oven-2.0-py3-none-any.whl", "torch-2.13.0-py3-none-any.whl"):
        assert (tmp_path / "made" / "wheels" / name).read_bytes() == (
            registry.wheels / name
        ).read_bytes()


def test_a_file_that_is_not_the_pinned_one_and_a_missing_wheel_are_named(registry, tmp_path):
    (registry.wheels / "kitchen_knife-1.0-py3-none-any.whl").unlink()
    wheel(registry.wheels, "oven", "2.0", code="import os\n")
    with pytest.raises(UserError) as refused:
        bundle.make(tmp_path / "made", [HERE], PYTHON, report=lambda line: None)
    said = str(refused.value)
    assert "kitchen_knife==1.0 (No matching distribution" in said and "oven==2.0 (" in said
    assert not (tmp_path / "made").exists()


def test_torch_for_cuda_is_refused(registry, tmp_path):
    wheel(registry.wheels, "torch", "2.13.0", requires=["nvidia-cudnn-cu13==9.1"])
    with pytest.raises(UserError, match="CUDA build.*--torch-index"):
        bundle.make(tmp_path / "made", ["linux-x86_64"], PYTHON, report=lambda line: None)
    bundle.make(tmp_path / "made", ["windows-x86_64"], PYTHON, report=lambda line: None)


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full: free some space"),
        ("WARNING: Retrying (Retry(total=1)) after NameResolutionError", "No network: connect"),
    ],
)
def test_a_full_disk_and_no_network_are_one_sentence(stderr, said, registry, monkeypatch, capsys):
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: done)
    out = registry.root / "made"
    assert cli.main(["bundle", "--out", str(out)]) == 2
    assert said in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "x", "--platform", "linux-x86_64,amiga-68k"], "Unknown platform amiga-68k"),
        (["--out", "x", "--python", "2.7"], "invalid choice"),
        ([], "Name the folder to make"),
        (["--check", "nowhere"], "holds no manifest.json"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bundle", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_there_is_left_alone(made, capsys):
    before = names(made)
    assert cli.main(["bundle", "--out", str(made)]) == 2
    assert "is there already" in capsys.readouterr().err and names(made) == before


@pytest.mark.parametrize("platform", wheels.PLATFORMS)
@pytest.mark.parametrize("python", wheels.PYTHONS)
def test_every_package_that_a_laptop_needs_is_pinned_for_its_system(platform, python):
    values = wheels.marker_values(platform, python)
    text = (data_dir().parent / "requirements-hashed.txt").read_text(encoding="utf-8")
    known, wanted = wheels.pins(text, values), wheels.needed(values)
    assert wanted - known.keys() == {"torch", "pefthelpers"}
    assert {"papermill", "jupyterlab", "peft", "ipykernel"} <= wanted
    assert not {"pytest", "ruff", "playwright", "tox"} & wanted
    assert ("appnope" in wanted) == (platform == "macos-arm64")
    assert ("pywinpty" in wanted) == (platform == "windows-x86_64")
    assert all(
        re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in known.values()
    )
