"""A page in headless Chromium, and a widget served by Voila, for the tests that move them."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import nbformat
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: nothing to move")


@pytest.fixture(scope="module")
def chromium():
    """Start headless Chromium, once for a module's tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def tab(chromium):
    """Open a page in headless Chromium that reaches nothing beyond this machine.

    The templates of Voila and nbconvert ask for an icon font and MathJax; they are refused.
    """
    page = chromium.new_page(viewport={"width": 1100, "height": 800})
    # Voila answers after its kernel has started and imported: on a busy machine that takes its time.
    page.set_default_navigation_timeout(240_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route(re.compile(r"^https?://(?!127\.0\.0\.1|localhost)"), lambda route: route.abort())
    yield page
    page.close()
    assert errors == []


def screenshot(page, name):
    """Keep a picture where a person asks for one: PEFTHELPERS_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PEFTHELPERS_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@contextlib.contextmanager
def voila(folder, widget="memory_calculator"):
    """Serve a notebook that shows a widget; yield its address."""
    source = f"from peftguide import pages\npages.{widget}()"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    cells = [nbformat.v4.new_code_cell(source, id="widget")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / f"{widget}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # nbregress first: it keeps a grammar from being compiled.
    start = "import nbregress; from voila.app import main; main()"
    command = [sys.executable, "-c", start, f"{widget}.ipynb", "--no-browser"]
    command += [f"--port={port}", "--Voila.ip=127.0.0.1"]
    env = {k: v for k, v in os.environ.items() if k != "PEFTHELPERS_HEADLESS"}
    env |= {"JUPYTER_CONFIG_DIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder)}
    with open(folder / "voila.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        wait_for(port, server, folder / "voila.log")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(20)


def wait_for(port, server, log):
    for _ in range(240):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert server.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(f"Voila did not start: {log.read_text()}")
