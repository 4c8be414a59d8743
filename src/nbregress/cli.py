"""The command line: run, baseline, compare, matrix, record, lint, fetch, memory, choose, check, recipe, doctor."""

import argparse
import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from pefthelpers import __version__
from pefthelpers.errors import UserError
from peftmemory import command as memory_command
from peftmemory.command import reads
from peftmemory.errors import EstimateError

RUN_EXTRA = ("papermill", "nbformat", "nbclient", "nbconvert", "jupyter_client", "psutil", "rich")

EXECUTE = ("run", "record", "matrix", "grade")
WINDOWS = (
    "executes notebooks on Linux, macOS or WSL (`wsl --install`) and not on Windows itself, where it was never "
    "tried; notebooks open there in Jupyter as everywhere."
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        message = re.sub(r"^argument (\S+): (?=takes )", r"\1 ", message)
        raise UserError(f"{message.rstrip('.')}. `{self.prog} --help` lists what there is.")


TOP = Parser(prog="pefthelpers", description=__doc__)
TOP.add_argument("--version", action="version", version=__version__)
COMMANDS = TOP.add_subparsers(dest="command", required=True, metavar="COMMAND")


# Described as ``add_argument`` takes it, above the command that it belongs to.
option = lambda name, **settings: (name, settings)


def command(*options, runs: bool = True) -> Callable[[Callable], Callable]:
    """Make a function a command of its name, its docstring's first line the help.

    Args:
        options: as ``option`` gives them.
        runs: whether it needs what runs notebooks, the packages of the extra ``run``.
    """

    def register(function: Callable) -> Callable:
        text = function.__doc__.splitlines()[0]
        parser = COMMANDS.add_parser(function.__name__, help=text, description=text)
        parser.set_defaults(function=function, runs=runs)
        for name, settings in options:
            parser.add_argument(name, **settings)
        return function

    return register


def parameter(text: str) -> tuple[str, object]:
    """Read ``NAME=VALUE``: the value is ``1e-4``, ``True``, ``[4, 8]``, or else a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"takes NAME=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


NOTEBOOK = option(
    "notebook", nargs="*", help="02, its companion 02b, 02_lora, a path; default: all"
)
BASELINES = option("--baselines", type=Path, metavar="FOLDER", help="default: the collection's own")
SEVERAL = {"action": "append", "default": []}
FROM_1 = reads(int, "a whole number from 1", least=1)
LIMIT = {"type": reads(float, "a number of seconds from 0", least=0), "metavar": "SECONDS"}
ANSWERS = "what exercises run with; each check must then say not attempted, or correct"
EACH = "for a {}; default: %(default)s; 0: no limit"
PYTHON = "another Python for a stack, e.g. floor=python3.10; default: the running one"
SHARED = (
    NOTEBOOK,
    option("--notebook", dest="globs", metavar="GLOB", help="'0[1-3]*'", **SEVERAL),
    option("--profile", default="tiny", help="tiny (default), laptop or gpu"),
    option("--jobs", type=FROM_1, default=1, help="notebooks at a time; default: 1"),
)


@command(
    *SHARED,
    option("--out", help="folder for all that a run leaves; default: runs/PROFILE"),
    option("--param", type=parameter, dest="values", metavar="NAME=VALUE", **SEVERAL),
    option("--timeout", dest="timeout_s", default=3600, help=EACH.format("notebook"), **LIMIT),
    option("--cell-timeout", dest="cell_timeout_s", default=0, help=EACH.format("cell"), **LIMIT),
    option("--resume", action="store_true", help="keep what passed with the same source"),
    option("--answers", default="", choices=("stubs", "solutions"), help=ANSWERS),
    option("--fail-fast", action="store_true", help="stop at the first failure"),
    option("--shard", metavar="I/N", help="one of N parts of even recorded time"),
    option("--cluster", metavar="ADDRESS", help="a Dask scheduler, tcp://HOST:PORT"),
    BASELINES,
)
def run(options: argparse.Namespace) -> int:
    """Execute notebooks; 0 if all is good, 1 if a notebook or metric failed."""
    from nbregress import doctor, executors, notebooks, plan, progress, schedule

    paths = plan.matching(notebooks.find(options.notebook), options.globs)
    if options.shard:
        paths = plan.shard(paths, options.shard, options.profile)
    options.values = dict(options.values)
    options.threads = max(1, doctor.cores() // options.jobs)
    wanted = plan.Plan(**{each.name: getattr(options, each.name) for each in fields(plan.Plan)})
    out, terminal = Path(options.out or f"runs/{options.profile}"), sys.stdout.isatty()
    watch = progress.Screen([path.stem for path in paths]) if terminal else progress.Lines()
    local = ThreadPoolExecutor(options.jobs)  # each thread waits for the process of one notebook
    where = executors.cluster(options.cluster) if options.cluster else local
    with where as executor, watch:
        store = schedule.run(paths, out, wanted, executor=executor, watch=watch)
    print(progress.summary(store, cut=terminal))
    return int(not store.good)


@command(
    option("run", nargs="+", type=Path, help="folders of runs, the reference first"), BASELINES
)
def baseline(options: argparse.Namespace) -> None:
    """Write baselines from runs: the first one's values, tolerances from the spread of all."""
    from nbregress import baselines, run_store

    runs = [run_store.read_rows(folder) for folder in options.run]
    profiles = {run["about"]["profile"] for run in runs}
    if len(profiles) > 1:
        raise UserError(f"The runs are of several profiles: {', '.join(sorted(profiles))}.")
    changed = {name for run in runs for name in run["about"]["parameters"]} - {"SEED"}
    if changed:
        raise UserError(
            f"The runs changed {', '.join(sorted(changed))}: a baseline is made of runs that differ in "
            "their SEED alone."
        )
    by_name = [{row["notebook"]: row for row in run["notebooks"]} for run in runs]
    about = {key: runs[0]["about"][key] for key in ("profile", "date", "processor")}
    for name in sorted(by_name[0]):
        pairs = zip(options.run, by_name, strict=True)
        if missing := [str(folder) for folder, rows in pairs if name not in rows]:
            raise UserError(f"{name} is not in {', '.join(missing)}: every run must hold it.")
        path = baselines.path_of(name, about["profile"], options.baselines)
        baselines.write(path, [rows[name] for rows in by_name], about)
        print(f"{path.name}: {len(by_name[0][name]['metrics'])} metrics from {len(runs)} runs")


@command(
    option("before", type=Path, help="folder of the reference run"),
    option("after", type=Path, help="folder of the other run"),
    option("--html", type=Path, metavar="FILE", help="write the table as a page too"),
    BASELINES,
)
def compare(options: argparse.Namespace) -> int:
    """Compare two runs, profiles or stacks; 1 if a metric moved beyond its tolerance."""
    from nbregress.compare import Comparison
    from nbregress.report import render
    from pefthelpers.paths import atomic_path

    comparison = Comparison(options.before, options.after, options.baselines)
    print(render("compare.txt", comparison=comparison))
    if options.html:
        with atomic_path(options.html) as temporary:
            temporary.write_text(render("compare.html", comparison=comparison), encoding="utf-8")
    return int(not comparison.good)


@command(
    *SHARED,
    option("--stacks", default="pinned,floor,newest", help="default: %(default)s"),
    option("--python", metavar="STACK=PROGRAM", help=PYTHON, **SEVERAL),
    option("--out", type=Path, default=Path("runs/matrix")),
)
def matrix(options: argparse.Namespace) -> int:
    """Run notebooks under several package stacks; 1 if one fails or drifts anywhere."""
    from nbregress import matrix, notebooks, plan, report

    paths = plan.matching(notebooks.find(options.notebook), options.globs)
    wanted = matrix.stacks(options.stacks.split(","), options.python)
    table = matrix.run(wanted, paths, options.out, jobs=options.jobs, profile=options.profile)
    print(report.render("matrix.txt", table=table))
    return int(not table.good)


@command(NOTEBOOK, option("--profile", default="tiny", choices=("tiny", "laptop")))
def record(options: argparse.Namespace) -> None:
    """Execute notebooks and keep what they show: outputs (tiny) or figures (laptop)."""
    from nbregress import notebooks, recorder

    for path in notebooks.find(options.notebook):
        print(f"{path.stem}: recorded in {recorder.record(path, options.profile):.0f} s")


@command(NOTEBOOK, option("--fix", action="store_true", help="strip stale outputs, refresh badges"))
def lint(options: argparse.Namespace) -> int:
    """Check notebooks against the house style; 1 if a rule is broken."""
    from nbregress import lint, notebooks

    found = []
    for path in notebooks.find(options.notebook):
        if options.fix:
            lint.fix(path)
        found += [f"{path.name}: {problem}" for problem in lint.problems(path)]
    print(*found, f"{len(found)} problems", sep="\n")
    return int(bool(found))


@command(option("profile", help="laptop"), runs=False)
def fetch(options: argparse.Namespace) -> None:
    """Bring a profile's models into the cache."""
    from pefthelpers import fetch

    print(fetch.fetch(options.profile))


@command(runs=False)
def memory(options: argparse.Namespace) -> int:
    """Estimate a training step's memory, and say what fits a card."""
    # Importing it makes adapters known to PEFT, so that they can be traced.
    return memory_command.run(options, lambda: importlib.import_module("peftbottleneck"))


memory_command.add_arguments(COMMANDS.choices["memory"])


CARD = option(
    "--card",
    type=lambda text: None if text == "none" else reads(float, "GB, or none", least=1)(text),
    default=24.0,
    metavar="GB",
    help="the card's memory as it is sold (24), or none",
)
TASK = option("--task", default="chat", help="chat (default), summarise or classify")
MODEL = {"help": "a name on the hub, a folder, or a name such as llama-3.1-8b"}


@command(
    option("method", help="lora, qlora, dora, prefix, houlsby, full, …"),
    TASK,
    option("--model", **MODEL),
    option("--data", default="data.jsonl", metavar="FILE", help="JSONL (data.jsonl)"),
    option("--held-out", metavar="FILE", help="a second one; default: a tenth of the first"),
    option("--seq", type=FROM_1, help="tokens of an example; default: the task's"),
    option("--precision", default="auto", help="auto (by hardware), float32, bf16 or fp16"),
    CARD,
    runs=False,
)
def recipe(options: argparse.Namespace) -> None:
    """Print a script that fine-tunes a model on your data, to run and change."""
    import peftguide

    given = {"data": options.data, "held_out": options.held_out, "card_gib": options.card}
    given |= {
        "seq": options.seq,
        "precision": options.precision,
        "task": options.task,
        "model": options.model,
    }
    print(peftguide.recipe(options.method, **given), end="")


@command(
    option("data", metavar="FILE", help="JSONL: messages, prompt and completion, …"),
    option("held_out", nargs="?", metavar="HELD_OUT", help="what to evaluate on"),
    TASK,
    option("--model", help="a name on the hub or a folder, for lengths in its own tokens"),
    option("--length", type=FROM_1, default=1024, help="tokens of an example (1024)"),
    runs=False,
)
def check(options: argparse.Namespace) -> None:
    """Check a data file before training, as the recipes do."""
    from peftguide import data_check

    given = (options.data, options.held_out, options.task, options.model, options.length)
    print(*data_check.findings(*given), sep="\n")


@command(
    option("task", help="chat, elicit, learn, classify or summarise"),
    option("--model", default="llama-3.2-3b", help="a name, a hub id or a config.json"),
    CARD,
    option("--tasks", type=FROM_1, default=1, help="tasks that share the base (1)"),
    option("--examples", type=FROM_1, default=1000, help="examples to train on (1000)"),
    option("--latency", default="small", help="small (default) or merged"),
    option("--tooling", default="any", help="any (default), peft or vllm"),
    option("--batch", type=FROM_1, default=1, help="sequences per step (1)"),
    option("--seq", type=FROM_1, default=1024, help="tokens per sequence (1024)"),
    runs=False,
)
def choose(options: argparse.Namespace) -> None:
    """Say which method fits a task, a model and a card, and why."""
    import peftguide

    names = ("model", "tasks", "examples", "latency", "tooling", "batch", "seq")
    given = {name: getattr(options, name) for name in names}
    print(peftguide.choose(options.task, card_gib=options.card, **given))


@command(runs=False)
def doctor(_: argparse.Namespace) -> None:
    """Say what this machine can run."""
    from nbregress import doctor

    print("\n".join(doctor.findings()))


def run_command(arguments: list[str] | None) -> int:
    """Run one command; return its exit code.

    Raises:
        UserError: wrong use, the command's packages are missing, or Windows cannot run it.
    """
    options = TOP.parse_args(arguments)
    missing = [name for name in RUN_EXTRA if importlib.util.find_spec(name) is None]
    if options.runs and missing:
        raise UserError(
            f"This command needs {', '.join(missing)}: pip install 'pefthelpers[run]' brings what "
            "runs and compares notebooks."
        )
    if sys.platform == "win32" and options.command in EXECUTE:
        raise UserError(f"`pefthelpers {options.command}` {WINDOWS}")
    return options.function(options) or 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; wrong use and what the machine refuses end in one sentence and exit code 2."""
    try:
        return run_command(arguments)
    except (UserError, EstimateError) as error:
        said, code = error, 2
    except KeyboardInterrupt as stopped:  # it names the notebooks that were finished
        kept = "; finished notebooks are kept, --resume runs the rest" if stopped.args else ""
        said, code = f"stopped{kept}.", 130
    except BrokenPipeError:
        # Nobody reads the output; nor would they what Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        said, code = f"{error.strerror or error}{where}.", 2
    print(f"pefthelpers: {said}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
