"""What holds for the package as a whole: what an import brings, and what works with which extra."""

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nbregress import doctor
from support.imports import SRC, imported, notebook_source, packages

ROOT = SRC.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BASE = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
EXTRA = {
    canonicalize_name(Requirement(line).name)
    for line in [
        *PROJECT["optional-dependencies"]["run"],
        *PROJECT["optional-dependencies"]["cluster"][1:],
    ]
} - BASE
RUNNERS = ("papermill", "nbformat", "nbclient", "nbconvert", "psutil", "rich", "distributed")
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "pandas", "numpy", "matplotlib")
# As if what runs notebooks were not installed.
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({RUNNERS}))\n"


def python(code, *arguments):
    """Run code in a Python of its own; return its exit code and what it said."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("package", ["pefthelpers", "peftmemory", "peftguide", "nbregress.cli"])
def test_an_import_brings_nothing_heavy(package):
    code = f"import sys, {package}; print([n for n in {HEAVY + RUNNERS} if n in sys.modules])"
    assert python(code) == (0, "[]")


def test_what_notebooks_import_brings_nothing_that_runs_them():
    names = {name for path in NOTEBOOKS for name in imported(ast.parse(notebook_source(path)))}
    ours = sorted(name for name in names if name.split(".")[0] in packages())
    assert len(ours) > 20
    code = "import importlib, importlib.util, sys\nfor name in sys.argv[1:]:\n"
    code += "    parent = name.rpartition('.')[0]\n"
    code += "    parent and importlib.import_module(parent)\n"
    code += "    importlib.util.find_spec(name) and importlib.import_module(name)\n"
    code += f"print([name for name in {RUNNERS} if name in sys.modules])"
    modules = [n for n in ours if (SRC / Path(*n.split("."))).is_dir() or in_src(n)]
    status, said = python(code, *modules)
    # psutil is imported by accelerate and comes with it; our own packages may not (see pyproject.toml).
    assert status == 0 and said.splitlines()[0] in ("[]", "['psutil']"), said


def in_src(name):
    """Tell whether a name is a module of ours, not a function in one."""
    return (SRC / Path(*name.split("."))).with_suffix(".py").is_file()


def test_every_package_that_a_notebook_imports_is_installed_with_ours():
    homes, own = packages_distributions(), {*packages(), *sys.stdlib_module_names, "adapters"}
    for path in NOTEBOOKS:
        written = re.findall(r"%%writefile (?:-a )?(\w+)\.py", path.read_text(encoding="utf-8"))
        tops = {name.split(".")[0] for name in imported(ast.parse(notebook_source(path)))} - own
        tops -= {*written}  # 10b writes the program that its processes run
        for top in tops:
            found = {canonicalize_name(name) for name in homes.get(top, [top])}
            assert found & BASE, f"{path.name} imports {top}: declare it in pyproject.toml"


def test_a_learner_s_installation_runs_no_notebooks():
    assert not BASE & {*map(canonicalize_name, RUNNERS)}
    assert EXTRA >= {canonicalize_name(name) for name in RUNNERS}


def answers(*commands):
    """Return ``{command: (exit code, what it said)}`` of commands run without the extra, in one process."""
    code = f"{BLOCKED}import contextlib, io, json\nfrom nbregress import cli\nfound = {{}}\n"
    code += "for line in sys.argv[1:]:\n    said = io.StringIO()\n"
    code += "    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):\n"
    code += "        found[line] = cli.main(line.split()), said.getvalue().strip()\n"
    code += "print(json.dumps(found))"
    status, said = python(code, *commands)
    assert status == 0, said
    return json.loads(said.splitlines()[-1])


def test_without_the_extra_a_sentence_names_it():
    found = answers("run", "baseline x", "compare x y", "matrix", "record", "lint")
    for command, (status, said) in found.items():
        assert status == 2 and len(said.splitlines()) == 1, command
        assert "needs papermill, nbformat" in said and "pip install 'pefthelpers[run]'" in said


def test_what_a_learner_asks_for_works_without_the_extra():
    found = answers("memory llama-3.1-8b", "recipe lora", "fetch moon", "doctor")
    assert [status for status, _ in found.values()] == [0, 0, 2, 0]
    assert "GiB" in found["memory llama-3.1-8b"][1] and "LoraConfig" in found["recipe lora"][1]
    assert "moon" in found["fetch moon"][1] and "Packages:" in found["doctor"][1]


def test_the_grammar_that_no_notebook_needs_is_not_compiled():
    """It costs 1.5 s of CPU in each process: see nbregress/__init__.py."""
    for module in ("nbregress.worker", "nbregress.cli", "nbregress.report"):
        code = f"import sys, {module}, nbformat, jsonschema\n"
        code += "print('lark' in sys.modules, jsonschema.FormatChecker().conforms('x', 'iri'))"
        assert python(code) == (0, "False True")


def test_doctor_says_in_about_ten_lines_what_runs_here():
    lines = doctor.findings()
    assert 6 <= len(lines) <= 12
    for word in ("Cores:", "Memory:", "GPU:", "Packages:", "Tiny models:", "Laptop model:"):
        assert any(line.startswith(word) for line in lines), word


def test_doctor_reports_a_package_that_does_not_fit(monkeypatch):
    here = version("transformers")
    wanted = [
        "peft>=99.0",
        "no-such-package>=1.0",
        f"transformers!={here},>=5",
        "rich>=99; extra=='x'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    lines = doctor.package_findings()
    assert "all 3 requirements are NOT met" in lines[0] and len(lines) == 4
    assert lines[1].strip().startswith("does not fit: peft") and lines[1].endswith("'peft>=99.0'")
    assert "missing: no-such-package" in lines[2]
    assert f"does not fit: transformers {here}" in lines[3]  # a release that is excluded


def test_doctor_is_content_with_what_fits(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["peft>=0.1", "torch!=1.0"])
    assert len(doctor.package_findings()) == 1
