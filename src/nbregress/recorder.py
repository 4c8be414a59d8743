"""Execute a notebook and keep its outputs in the file, without what differs on each run."""

from pathlib import Path

import nbformat

from nbregress import baselines, isolation, notebooks, recorded
from nbregress.result import Job
from nbregress.stamp import stamp
from pefthelpers import results
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path, data_dir
from pefthelpers.profiles import settings

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def record(path: Path, profile: str) -> float:
    """Execute a notebook as the runner does, with two threads, and keep what it shows.

    Of the tiny profile that is the outputs, in the notebook's file, and the baseline; of another one
    the figures alone, in ``data/results``.

    Returns:
        Wall time in seconds.

    Raises:
        UserError: the notebook failed, the sentence names the cell. The files stay as they were.
    """
    run = isolation.execute(Job.of(path, {"PROFILE": profile}, threads=2))
    if not run.result.good:
        raise UserError(f"{path.stem} failed, its record stays as it was: {run.result.reason}")
    executed = notebooks.parse(run.executed, path.name)
    measured = {
        "notebook": path.stem,
        "profile": profile,
        "model": settings("decoder", profile).model,
        **{cost: getattr(run.result, cost) for cost in ("seconds", "cpu_s", "peak_memory_gib")},
        **stamp(),
        "metrics": run.result.metrics,
        "texts": recorded.read(executed)[1],
    }
    if profile == "tiny":
        keep_outputs(path, executed, measured)
    else:
        results.write(figures_of(path.stem, profile), measured)
    return measured["seconds"]


def figures_of(stem: str, profile: str) -> Path:
    """Return the path of a notebook's recorded figures in another profile than tiny."""
    return data_dir() / "results" / f"{stem}.{profile}.json"


def keep_outputs(path: Path, executed, baseline: dict) -> None:
    """Write the baseline, and the outputs into the notebook's file."""
    record = baselines.path_of(path.stem, "tiny", data_dir() / "baselines")
    baselines.keep_tolerances(record, baseline["metrics"])
    results.write(record, baseline)
    # By cell id: the injected parameters have no cell of their own in the file.
    outputs = {cell.id: cell.outputs for cell in notebooks.code_cells(executed)}
    notebook = notebooks.read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = outputs[cell.id]
        elif "generated" in notebooks.tags(cell):
            cell.source = measured_line(baseline)
    made = {"versions": baseline["versions"], "date": baseline["date"]}
    notebook.metadata["pefthelpers"] = {"source_hash": notebooks.source_hash(notebook), **made}
    write(path, notebook)


def write(path: Path, notebook) -> None:
    """Write a notebook without execution counts, timings and tool metadata, whole or not at all."""
    language = {"name": "python", "file_extension": ".py"}
    ours = notebook.metadata.get("pefthelpers", {})
    kept = {"kernelspec": KERNEL, "language_info": language, "pefthelpers": ours}
    notebook.metadata = nbformat.from_dict(kept)
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "alt") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.get("metadata", {}).clear()
                if output.output_type == "execute_result":
                    output.execution_count = None
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)


def measured_line(baseline: dict) -> str:
    """Return the line of measured minutes under the title: the cell tagged ``generated``."""
    laptop, other = figures_of(baseline["notebook"], "laptop"), "laptop profile not recorded"
    if laptop.exists():
        other = f"{results.read(laptop)['seconds'] / 60:.1f} min in the laptop profile"
    return (
        f"*Measured on 2 CPU cores, without a GPU: {baseline['seconds']:.0f} s in the tiny "
        f"profile (the outputs below), {other}. No time is a GPU's.*"
    )
