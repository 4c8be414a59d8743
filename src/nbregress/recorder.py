"""Execute a notebook and keep its outputs in the file, without what differs on each run."""

import json
from pathlib import Path

import nbformat

from nbregress import baselines, isolation, notebooks
from nbregress.result import Job, Outcome
from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path, data_dir
from pefthelpers.profiles import settings
from pefthelpers.record import read_texts

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def normalise(notebook) -> None:
    """Drop execution counts, timings and tool metadata, in place."""
    language = {"name": "python", "file_extension": ".py"}
    ours = notebook.metadata.get("pefthelpers", {})
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": language, "pefthelpers": ours}
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
    outputs = {cell.id: cell.outputs for cell in notebooks.code_cells(executed)}
    for cell in notebooks.code_cells(notebook):
        cell.outputs = outputs[cell.id]


def run_once(path: Path, profile: str) -> Outcome:
    """Execute a notebook as the runner does, with two threads.

    Raises:
        UserError: it failed; the sentence names the cell.
    """
    outcome = isolation.execute(Job.of(path, {"PROFILE": profile}, threads=2))
    if not outcome.result.good:
        raise UserError(f"{path.stem} failed, its record stays as it was: {outcome.result.reason}")
    return outcome


def result_of(path: Path, profile: str, run: Outcome) -> dict:
    """Return what is kept of a run: metrics, texts, seconds, date, versions, processor."""
    return {
        "notebook": path.stem,
        "profile": profile,
        "model": settings("decoder", profile).model,
        "seconds": run.result.seconds,
        "cpu_s": run.result.cpu_s,
        "peak_memory_gib": run.result.peak_memory_gib,
        **results.stamp(),
        "metrics": run.result.metrics,
        "texts": read_texts(notebooks.parse(run.executed, path.name)),
    }


def laptop_record(stem: str) -> Path:
    """Return the path of a notebook's recorded run in the laptop profile."""
    return data_dir() / "results" / f"{stem}.laptop.json"


def record_laptop(path: Path) -> float:
    """Execute ``path`` in the laptop profile and keep its figures; return wall seconds."""
    result = result_of(path, "laptop", run_once(path, "laptop"))
    results.write(laptop_record(path.stem), result)
    return result["seconds"]


def record_outputs(path: Path) -> float:
    """Execute ``path`` in the tiny profile, keep outputs and baseline; return wall seconds.

    Raises:
        UserError: the notebook failed. The file stays as it was.
    """
    run = run_once(path, "tiny")
    baseline = result_of(path, "tiny", run)
    record = baselines.path_of(path.stem, "tiny", data_dir() / "baselines")
    baselines.keep_tolerances(record, baseline["metrics"])
    results.write(record, baseline)
    notebook = notebooks.read(path)
    copy_outputs(notebooks.parse(run.executed, path.name), notebook)
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


def refresh_generated(notebook, baseline: dict) -> None:
    """Rewrite the line of measured minutes under the title: the cell tagged ``generated``."""
    laptop = laptop_record(baseline["notebook"])
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
