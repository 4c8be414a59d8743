"""The runner's commands: run, baseline, compare, matrix."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from pefthelpers.errors import UserError


def plan_of(options: argparse.Namespace):
    """Return the plan that a command line asks for.

    Raises:
        UserError: an unknown profile, or a parameter without a value.
    """
    from nbregress.plan import Plan, parse_parameters
    from pefthelpers.profiles import settings

    settings("decoder", options.profile)
    return Plan(
        profile=options.profile,
        values=parse_parameters(options.param),
        threads=max(1, (os.cpu_count() or 1) // options.jobs),
        timeout_s=options.timeout,
        cell_timeout_s=options.cell_timeout,
        resume=options.resume,
        fail_fast=options.fail_fast,
        baselines=options.baselines,
    )


def command_run(options: argparse.Namespace) -> int:
    """Execute notebooks; 0 if all is good, 1 if a notebook or metric failed."""
    from nbregress import executors, notebooks, plan, progress, schedule

    paths = plan.matching(notebooks.find(options.notebook), options.globs)
    if options.shard:
        paths = plan.shard(paths, options.shard, options.profile)
    out = Path(options.out or f"runs/{options.profile}")
    terminal = sys.stdout.isatty()
    names = [path.stem for path in paths]
    watch = (
        progress.Table(names, shutil.get_terminal_size().columns) if terminal else progress.Lines()
    )
    where = executors.cluster(options.cluster) if options.cluster else executors.local(options.jobs)
    with where as executor:
        kept = schedule.run(paths, out, plan_of(options), executor=executor, watch=watch)
    print(progress.summary(kept, cut=terminal))
    return 0 if kept.good else 1


def command_baseline(options: argparse.Namespace) -> int:
    """Write baselines from runs: the first one's values, tolerances from the spread of all."""
    from nbregress import baselines, run_store

    runs = [run_store.read_rows(folder) for folder in options.run]
    profiles = {run["about"]["profile"] for run in runs}
    if len(profiles) > 1:
        raise UserError(f"The runs are of several profiles: {', '.join(sorted(profiles))}.")
    by_name = [{row["notebook"]: row for row in run["notebooks"]} for run in runs]
    about = {key: runs[0]["about"][key] for key in ("profile", "date", "processor")}
    for name in sorted(by_name[0]):
        if missing := [
            str(f) for f, rows in zip(options.run, by_name, strict=True) if name not in rows
        ]:
            raise UserError(f"{name} is not in {', '.join(missing)}: every run must hold it.")
        path = baselines.path_of(name, about["profile"], options.baselines)
        baselines.write(path, [rows[name] for rows in by_name], about)
        print(f"{path.name}: {len(by_name[0][name]['metrics'])} metrics from {len(runs)} runs")
    return 0


def command_compare(options: argparse.Namespace) -> int:
    """Compare two runs, profiles or stacks; 1 if a metric moved beyond its tolerance."""
    from nbregress.compare import Comparison
    from pefthelpers.paths import atomic_path

    comparison = Comparison(options.before, options.after, options.baselines)
    print(comparison.text())
    if options.html:
        with atomic_path(options.html) as temporary:
            temporary.write_text(comparison.html(), encoding="utf-8")
    return 0 if comparison.good else 1


def command_matrix(options: argparse.Namespace) -> int:
    """Run notebooks under several package stacks; 1 if one fails or drifts anywhere."""
    from nbregress import matrix, notebooks, plan, stacks

    paths = plan.matching(notebooks.find(options.notebook), options.globs)
    pythons = stacks.pythons(options.python)
    names = options.stacks.split(",")
    wanted = [stacks.named(name, pythons.get(name, sys.executable)) for name in names]
    table = matrix.run(wanted, paths, options.out, jobs=options.jobs, profile=options.profile)
    print(table.text())
    return 0 if table.good else 1


def at_least(option: str, lowest: int, kind: type):
    """Return a function that reads an option's number, not below ``lowest``."""

    def read(text: str):
        try:
            value = kind(text)
            assert lowest <= value < float("inf")
        except (ValueError, AssertionError) as error:
            name = "whole number" if kind is int else "number of seconds"
            raise UserError(f"{option} takes a {name} from {lowest}, not {text!r}.") from error
        return value

    return read


def add_shared(command: argparse.ArgumentParser) -> None:
    """Add what run and matrix have in common."""
    command.add_argument(
        "--notebook",
        action="append",
        default=[],
        dest="globs",
        metavar="GLOB",
        help="e.g. '0[1-3]*'",
    )
    command.add_argument("--profile", default="tiny", help="tiny (default), laptop or gpu")
    command.add_argument(
        "--jobs", type=at_least("--jobs", 1, int), default=1, help="notebooks at a time; default: 1"
    )


def add_run(run: argparse.ArgumentParser) -> None:
    """Add the options of run."""
    add_shared(run)
    run.add_argument("--out", help="folder for all that a run leaves; default: runs/PROFILE")
    run.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    for option, default, what in (("--timeout", 3600, "notebook"), ("--cell-timeout", 0, "cell")):
        run.add_argument(
            option,
            type=at_least(option, 0, float),
            default=default,
            metavar="SECONDS",
            help=f"for a {what}; default: {default}; 0: no limit",
        )
    run.add_argument("--resume", action="store_true", help="keep what passed with the same source")
    run.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    run.add_argument("--shard", metavar="I/N", help="one of N parts of even recorded time")
    run.add_argument("--cluster", metavar="ADDRESS", help="a Dask scheduler, tcp://HOST:PORT")


def add_compare(compare: argparse.ArgumentParser) -> None:
    """Add the options of compare."""
    compare.add_argument("before", type=Path, help="folder of the reference run")
    compare.add_argument("after", type=Path, help="folder of the other run")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write the table as a page too")


def add_commands(add) -> None:
    """Add the runner's commands to the command line.

    Args:
        add: ``add(name, function, takes_notebooks=...)`` returns the command's parser.
    """
    run = add("run", command_run, takes_notebooks=True)
    add_run(run)
    baseline = add("baseline", command_baseline, takes_notebooks=False)
    baseline.add_argument("run", nargs="+", type=Path, help="folders of runs, the reference first")
    compare = add("compare", command_compare, takes_notebooks=False)
    add_compare(compare)
    for command in (run, baseline, compare):
        command.add_argument(
            "--baselines", type=Path, metavar="FOLDER", help="default: the collection's own"
        )
    matrix = add("matrix", command_matrix, takes_notebooks=True)
    add_shared(matrix)
    matrix.add_argument("--stacks", default="pinned,floor,newest", help="default: %(default)s")
    matrix.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="STACK=PROGRAM",
        help="another Python for a stack, e.g. floor=python3.10; default: the running one",
    )
    matrix.add_argument("--out", type=Path, default=Path("runs/matrix"))
