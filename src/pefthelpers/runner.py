"""Run notebooks by papermill, one process each, and say clearly what failed."""

import ast
import json
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

from pefthelpers import models, notebooks
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path
from pefthelpers.profiles import settings
from pefthelpers.record import read_metrics


@dataclass
class Result:
    """How one notebook ended.

    Attributes:
        notebook: file stem.
        status: ``passed`` or ``failed``.
        seconds: wall time including the kernel's start.
        reason: one line for a failed notebook: the cell and the error's last line.
        metrics: ``{name: {"value", "unit"}}``.
        source_hash: of the code cells that ran.
    """

    notebook: str
    status: str
    seconds: float
    reason: str = ""
    metrics: dict[str, dict] = field(default_factory=dict)
    source_hash: str = ""


def typed(text: str) -> object:
    """Turn ``1e-4``, ``True``, ``[4, 8]`` into values, anything else into a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_parameters(path: Path, values: dict[str, object]) -> None:
    """Refuse parameters that the notebook does not have, or has with another type.

    papermill only warns about these and runs on.

    Raises:
        UserError: names the parameter and those there are.
    """
    known = notebooks.parameters(notebooks.read(path))
    for name, value in values.items():
        if name not in known:
            raise UserError(
                f"{path.stem} has no parameter {name!r}: it has {', '.join(known) or 'none'}."
            )
        default = known[name]
        if isinstance(default, float) and isinstance(value, int):
            continue
        if default is not None and type(value) is not type(default):
            kind = type(default).__name__
            raise UserError(f"Parameter {name} of {path.stem} takes a {kind}, not {value!r}.")


def check_models(path: Path, profile: str) -> None:
    """Refuse to start a notebook whose models are missing or damaged.

    Raises:
        UserError: names the model and the command that helps.
    """
    for role, of_profile in notebooks.models_needed(notebooks.read(path), profile):
        models.folder_of(role, settings(role, of_profile))


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables under which a notebook runs without a person watching."""
    return {
        "PEFTHELPERS_HEADLESS": "1",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def last_line(text: str) -> str:
    """Return the last line of an error's text, which says what went wrong."""
    return (text.strip().splitlines() or [""])[-1]


def failure(notebook) -> str:
    """Return why an executed notebook failed, in one line; an empty string if it did not."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        where = f"cell {number} ({cell.source.strip().splitlines()[0][:60] if cell.source else ''})"
        for output in cell.outputs:
            if output.output_type == "error":
                return f"{where}: {output.ename}: {last_line(output.evalue)}"
            text = output.get("text", "") if output.get("name") == "stderr" else ""
            # Python names the notebook's own line only if the call stands in the notebook.
            if "ipykernel_" in text and ("FutureWarning" in text or "DeprecationWarning" in text):
                line = next(line for line in text.splitlines() if "Warning" in line)
                return f"{where}: {line.split(': ', 1)[-1]}"
        if cell.source.strip() and cell.metadata.get("papermill", {}).get("status") != "completed":
            return f"{where}: it did not complete (a call of exit(), or a kernel that died)"
    return ""


def execute(
    path: Path,
    output: Path,
    values: dict[str, object],
    *,
    threads: int,
    cell_timeout_s: int | None = None,
) -> Result:
    """Execute one notebook into ``output``, which appears whole or not at all."""
    import papermill

    os.environ.update(environment(threads))
    start, reason = time.perf_counter(), ""
    with atomic_path(output) as temporary:
        try:
            papermill.execute_notebook(
                str(path),
                str(temporary),
                values,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                execution_timeout=cell_timeout_s,
                cwd=str(path.resolve().parent),
            )
        except papermill.PapermillExecutionError:
            pass  # the executed notebook says which cell and why
        except Exception as error:  # noqa: BLE001 - whatever ended it, the summary must say so
            reason = f"{type(error).__name__}: {last_line(str(error))}"
        executed = notebooks.read(temporary if temporary.exists() else path)
        if not temporary.exists():
            notebooks.nbformat.write(executed, temporary)
    reason = reason or failure(executed)
    return Result(
        notebook=path.stem,
        status="failed" if reason else "passed",
        seconds=round(time.perf_counter() - start, 1),
        reason=reason,
        metrics=read_metrics(executed),
        source_hash=notebooks.source_hash(notebooks.read(path)),
    )


def run(
    paths: Iterable[Path],
    out: Path,
    values: dict[str, object],
    *,
    executor: Executor,
    threads: int,
    cell_timeout_s: int | None = None,
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Execute notebooks on an executor; each result is reported as it comes.

    Args:
        paths: the notebooks.
        out: folder for the executed notebooks and ``metrics.json``.
        values: parameters; ``PROFILE`` among them.
        executor: a local pool, or anything with the same interface.
        threads: OpenMP threads of each notebook.
        cell_timeout_s: seconds after which a cell counts as stuck.
        report: called with each result.

    Raises:
        UserError: a parameter that a notebook does not have; a model that is missing or damaged; a
            folder that cannot be written.
    """
    paths = list(paths)
    for path in paths:
        check_parameters(path, values)
        check_models(path, str(values.get("PROFILE", "tiny")))
    writable(out)
    futures = {
        executor.submit(
            execute, path, out / path.name, values, threads=threads, cell_timeout_s=cell_timeout_s
        ): path
        for path in paths
    }
    results = []
    for future in as_completed(futures):
        result = result_of(future, futures[future])
        results.append(result)
        report(result)
        write_metrics(out, results)
    return sorted(results, key=lambda result: result.notebook)


def result_of(future, path: Path) -> Result:
    """Return a future's result, or a failed one if its process died."""
    try:
        return future.result()
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a worker may die in any way
        return Result(path.stem, "failed", 0.0, f"its process died: {type(error).__name__}")


def writable(out: Path) -> None:
    """Make the output folder and try it, before hours of work go into it.

    Raises:
        UserError: it cannot be made or written to.
    """
    with atomic_path(out / ".writable") as probe:
        probe.write_text("")
    (out / ".writable").unlink()


def write_metrics(out: Path, results: list[Result]) -> None:
    """Write ``metrics.json``: every result so far."""
    rows = [asdict(result) for result in sorted(results, key=lambda result: result.notebook)]
    with atomic_path(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")


def local_pool(jobs: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes, each of which runs one notebook."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
