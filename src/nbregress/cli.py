"""The command line: run, baseline, compare, matrix, record, lint, fetch, memory, recipe, doctor."""

import argparse
import importlib.util
import re
import sys
from typing import NoReturn

from nbregress.commands import add_commands as add_runner_commands
from pefthelpers import __version__
from pefthelpers.errors import UserError
from peftmemory.command import add_arguments as add_memory_arguments
from peftmemory.errors import EstimateError

RUN_EXTRA = ("papermill", "nbformat", "nbclient", "nbconvert", "jupyter_client", "psutil", "rich")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        message = re.sub(r"^argument (\S+): (?=takes )", r"\1 ", message)
        raise UserError(f"{message.rstrip('.')}. `{self.prog} --help` lists what there is.")


def command_record(options: argparse.Namespace) -> int:
    """Execute notebooks and keep what they show: outputs (tiny) or figures (laptop)."""
    from nbregress import notebooks, recorder

    record = {"tiny": recorder.record_outputs, "laptop": recorder.record_laptop}
    for path in notebooks.find(options.notebook):
        seconds = record[options.profile](path)
        print(f"{path.stem}: recorded in {seconds:.0f} s")
    return 0


def command_lint(options: argparse.Namespace) -> int:
    """Check notebooks against the house style; 1 if a rule is broken."""
    from nbregress import lint, notebooks

    found = 0
    for path in notebooks.find(options.notebook):
        if options.fix:
            lint.fix(path)
        for problem in lint.problems(path):
            print(f"{path.name}: {problem}")
            found += 1
    print(f"{found} problems")
    return 1 if found else 0


def command_fetch(options: argparse.Namespace) -> int:
    """Bring a profile's models into the cache."""
    from pefthelpers import fetch

    print(fetch.fetch(options.profile))
    return 0


def command_doctor(_: argparse.Namespace) -> int:
    """Say what this machine can run."""
    from nbregress import doctor

    print("\n".join(doctor.findings()))
    return 0


def command_memory(options: argparse.Namespace) -> int:
    """Estimate a training step's memory, and say what fits a card."""
    from peftmemory import command

    if options.trace:
        import peftbottleneck  # noqa: F401 - makes adapters known to PEFT, so that they can be traced
    return command.run(options)


def command_recipe(options: argparse.Namespace) -> int:
    """Print a method's minimal recipe, to copy and run."""
    import peftguide

    print(peftguide.recipe(options.method), end="")
    return 0


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(prog="pefthelpers", description=__doc__)
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, function, *, takes_notebooks=False, runs=False) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function, runs=runs)
        if takes_notebooks:
            command.add_argument("notebook", nargs="*", help="02, 02_lora, a path; default: all")
        return command

    add_runner_commands(add)
    record = add("record", command_record, takes_notebooks=True, runs=True)
    record.add_argument("--profile", default="tiny", choices=("tiny", "laptop"))
    lint = add("lint", command_lint, takes_notebooks=True, runs=True)
    lint.add_argument("--fix", action="store_true", help="strip stale outputs, refresh badges")
    fetch = add("fetch", command_fetch)
    fetch.add_argument("profile", help="laptop")
    add_memory_arguments(add("memory", command_memory))
    recipe = add("recipe", command_recipe)
    recipe.add_argument("method", help="lora, qlora, dora, prefix, houlsby, full, …")
    add("doctor", command_doctor)
    return top


def check_extra() -> None:
    """Refuse a command that runs notebooks where only notebooks' own packages are installed.

    Raises:
        UserError: names what is missing and the line that brings it.
    """
    missing = [name for name in RUN_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"This command needs {', '.join(missing)}: pip install 'pefthelpers[run]' brings what runs "
            "and compares notebooks."
        )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; wrong use and unmet needs end in one sentence and exit code 2."""
    try:
        options = parser().parse_args(arguments)
        if options.runs:
            check_extra()
        return options.function(options)
    except (UserError, EstimateError) as error:
        print(f"pefthelpers: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "finished notebooks are kept, --resume runs the rest."
        print(f"pefthelpers: stopped; {kept}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
