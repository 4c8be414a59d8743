"""What holds for the package as a whole."""

import subprocess
import sys

from nbregress import doctor


def test_import_is_cheap_and_brings_no_torch():
    code = (
        "import time; start = time.perf_counter(); import pefthelpers, sys; "
        "print(time.perf_counter() - start, 'torch' in sys.modules)"
    )
    seconds, torch = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert torch == "False"
    assert float(seconds) < 0.05


def test_the_command_line_answers_without_torch():
    code = "import sys; from nbregress import cli; cli.parser(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_doctor_says_in_about_ten_lines_what_runs_here():
    lines = doctor.findings()
    assert 6 <= len(lines) <= 12
    for word in ("Cores:", "Memory:", "GPU:", "Packages:", "Tiny models:", "Laptop model:"):
        assert any(line.startswith(word) for line in lines), word


def test_doctor_reports_a_package_below_its_floor(monkeypatch):
    monkeypatch.setattr(doctor, "floors", lambda: {"peft": "99.0", "no-such-package": "1.0"})
    text = "\n".join(doctor.package_findings())
    assert "too old: peft" in text and "missing: no-such-package" in text
