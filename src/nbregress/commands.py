"""The runner's commands: run, baseline, compare, matrix."""

import argparse
import os
import sys
from contextlib import nullcontext
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
    where = executors.cluster(options.cluster) if options.cluster else executors.local(options.jobs)
    terminal = sys.stdout.isatty()
    watch = progress.Screen([path.stem for path in paths]) if terminal else progress.Lines()
    with where as executor, watch if terminal else nullcontext():
        store = schedule.run(paths, out, plan_of(options), executor=executor, watch=watch)
    print(progress.summary(store, cut=terminal))
    return 0 if store.good else 1


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
        pairs = zip(options.run, by_name, strict=True)
        if missing := [str(folder) for folder, rows in pairs if name not in rows]:
            raise UserError(f"{name} is not in {', '.join(missing)}: every run must hold it.")
        path = baselines.path_of(name, about["profile"], options.baselines)
        baselines.write(path, [rows[name] for rows in by_name], about)
        print(f"{path.name}: {len(by_name[0][name]['metrics'])} metrics from {len(runs)} runs")
    return 0


def command_compare(options: argparse.Namespace) -> int:
    """Compare two runs, profiles or stacks; 1 if a metric moved beyond its tolerance."""
    from nbregress.compare import Comparison
    from nbregress.report import render
    from pefthelpers.paths import atomic_path

    comparison = Comparison(options.before, options.after, options.baselines)
    print(render("compare.txt", comparison=comparison))
    if options.html:
        with atomic_path(options.html) as temporary:
            temporary.write_text(render("compare.html", comparison=comparison), encoding="utf-8")
    return 0 if comparison.good else 1


def command_matrix(options: argparse.Namespace) -> int:
    """Run notebooks under several package stacks; 1 if one fails or drifts anywhere."""
    from nbregress import matrix, notebooks, plan, report

    paths = plan.matching(notebooks.find(options.notebook), options.globs)
    wanted = matrix.stacks(options.stacks.split(","), options.python)
    table = matrix.run(wanted, paths, options.out, jobs=options.jobs, profile=options.profile)
    print(report.render("matrix.txt", table=table))
    return 0 if table.good else 1


def from_one(text: str) -> int:
    """Read a whole number from 1."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"takes a whole number from 1, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Read a number of seconds from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a number of seconds from 0, not {text!r}")
    return value


def add_shared(command: argparse.ArgumentParser) -> None:
    """Add what run and matrix have in common."""
    add = command.add_argument
    add("--notebook", action="append", default=[], dest="globs", metavar="GLOB", help="'0[1-3]*'")
    add("--profile", default="tiny", help="tiny (default), laptop or gpu")
    add("--jobs", type=from_one, default=1, help="notebooks at a time; default: 1")


def add_run(run: argparse.ArgumentParser) -> None:
    """Add the options of run."""
    add_shared(run)
    add = run.add_argument
    add("--out", help="folder for all that a run leaves; default: runs/PROFILE")
    add("--param", action="append", default=[], metavar="NAME=VALUE")
    limit = {"type": seconds, "metavar": "SECONDS"}
    text = "for a {}; default: %(default)s; 0: no limit"
    add("--timeout", default=3600, help=text.format("notebook"), **limit)
    add("--cell-timeout", default=0, help=text.format("cell"), **limit)
    add("--resume", action="store_true", help="keep what passed with the same source")
    add("--fail-fast", action="store_true", help="stop at the first failure")
    add("--shard", metavar="I/N", help="one of N parts of even recorded time")
    add("--cluster", metavar="ADDRESS", help="a Dask scheduler, tcp://HOST:PORT")


def add_matrix(matrix: argparse.ArgumentParser) -> None:
    """Add the options of matrix."""
    add_shared(matrix)
    add = matrix.add_argument
    add("--stacks", default="pinned,floor,newest", help="default: %(default)s")
    text = "another Python for a stack, e.g. floor=python3.10; default: the running one"
    add("--python", action="append", default=[], metavar="STACK=PROGRAM", help=text)
    add("--out", type=Path, default=Path("runs/matrix"))


def add_commands(add) -> None:
    """Add the runner's commands to the command line.

    Args:
        add: ``add(name, function, takes_notebooks=..., runs=...)`` returns the command's parser.
    """
    run = add("run", command_run, takes_notebooks=True, runs=True)
    add_run(run)
    baseline = add("baseline", command_baseline, runs=True)
    baseline.add_argument("run", nargs="+", type=Path, help="folders of runs, the reference first")
    compare = add("compare", command_compare, runs=True)
    compare.add_argument("before", type=Path, help="folder of the reference run")
    compare.add_argument("after", type=Path, help="folder of the other run")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write the table as a page too")
    for command in (run, baseline, compare):
        text = "default: the collection's own"
        command.add_argument("--baselines", type=Path, metavar="FOLDER", help=text)
    add_matrix(add("matrix", command_matrix, takes_notebooks=True, runs=True))
