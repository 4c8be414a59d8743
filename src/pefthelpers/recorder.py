"""Execute a notebook and keep its outputs in the file, without what differs on each run."""

import datetime
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nbformat

from pefthelpers import notebooks, runner
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path, data_dir
from pefthelpers.record import read_metrics
from pefthelpers.session import STACK

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on."""
    return {name: version(name) for name in STACK}


def normalise(notebook) -> None:
    """Drop execution counts, timings and tool metadata, in place."""
    kept = notebook.metadata.get("pefthelpers", {})
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": KERNEL,
            "language_info": {"name": "python", "file_extension": ".py"},
            "pefthelpers": kept,
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in ("tags", "alt") if key in cell.metadata}
        )
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
                if output.output_type == "execute_result":
                    output["execution_count"] = None
                output.get("metadata", {}).clear()


def copy_outputs(executed, notebook) -> None:
    """Copy outputs into ``notebook`` by cell id; the injected parameters have none."""
    outputs = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = outputs[cell.id]


def record_outputs(path: Path) -> float:
    """Execute ``path`` in the tiny profile, keep outputs and baseline; return wall seconds.

    Raises:
        UserError: the notebook failed; the sentence names the cell. The file stays as it was.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / path.name
        result = runner.execute(path, output, {"PROFILE": "tiny"}, threads=2)
        if result.status != "passed":
            raise UserError(f"{path.stem} failed, its outputs stay as they were: {result.reason}")
        executed = notebooks.read(output)
    notebook = notebooks.read(path)
    copy_outputs(executed, notebook)
    baseline = write_baseline(path.stem, executed, time.perf_counter() - start)
    refresh_generated(notebook, baseline)
    notebook.metadata["pefthelpers"] = {
        "source_hash": notebooks.source_hash(notebook),
        "versions": baseline["versions"],
        "date": baseline["date"],
    }
    write(path, notebook)
    return baseline["seconds"]


def write(path: Path, notebook) -> None:
    """Write a normalised notebook, whole or not at all."""
    normalise(notebook)
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)


def write_baseline(stem: str, executed, seconds: float) -> dict:
    """Write ``data/baselines/<stem>.tiny.json``: what a later run is compared with."""
    baseline = {
        "notebook": stem,
        "profile": "tiny",
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "metrics": read_metrics(executed),
    }
    path = data_dir() / "baselines" / f"{stem}.tiny.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(baseline, indent=1) + "\n")
    return baseline


def refresh_generated(notebook, baseline: dict) -> None:
    """Rewrite the line of measured minutes under the title: the cell tagged ``generated``."""
    laptop = data_dir() / "results" / f"{baseline['notebook']}.laptop.json"
    other = (
        f"{json.loads(laptop.read_text())['seconds'] / 60:.1f} min in the laptop profile"
        if laptop.exists()
        else "laptop profile not recorded"
    )
    for cell in notebook.cells:
        if "generated" in notebooks.tags(cell):
            cell.source = (
                f"*Measured on 2 CPU cores, without a GPU: {baseline['seconds']:.0f} s in the tiny "
                f"profile (the outputs below), {other}. Not run on a GPU.*"
            )
