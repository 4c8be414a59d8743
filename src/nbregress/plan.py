"""What a run is asked to do: checked before hours of work go into it, and put in order."""

import re
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from nbregress import notebooks
from pefthelpers import models, results
from pefthelpers.errors import UserError
from pefthelpers.profiles import settings

# A run of an hour should not end at a model that is not here. Other ways of loading one say so as they do it.
LOADS_A_MODEL = re.compile(r'models\.load\("(\w+)"(, PROFILE)?')


@dataclass
class Plan:
    """How notebooks are to be run."""

    profile: str = "tiny"  # tiny, laptop or gpu
    values: dict[str, object] = field(default_factory=dict)  # parameters beyond the profile
    threads: int = 1  # of OpenMP, for each notebook
    timeout_s: float = 3600  # for a notebook; 0 is no limit
    cell_timeout_s: float = 0  # for a cell; 0 is no limit
    resume: bool = False  # keep what the folder holds of the same source and parameters
    fail_fast: bool = False  # stop at the first notebook that is not good
    answers: str = (
        ""  # stubs or solutions: run with these, and hold the checks' verdicts against them
    )
    baselines: Path | None = None  # folder of recorded metrics; None is the collection's own

    @property
    def parameters(self) -> dict[str, object]:
        """Return all parameters, the profile among them."""
        return {"PROFILE": self.profile, **self.values}


def check(paths: list[Path], plan: Plan) -> None:
    """Refuse what cannot end well: an unknown parameter, a model that is missing or damaged.

    Each model is verified once, however many notebooks load it.

    Raises:
        UserError: names the profile, notebook, parameter or model, and what helps.
    """
    settings("decoder", plan.profile)
    if "PROFILE" in plan.values:
        raise UserError(
            "PROFILE is no --param: --profile chooses it, and with it what a run is held against."
        )
    if repeated := {p.stem for p in paths if [q.stem for q in paths].count(p.stem) > 1}:
        raise UserError(f"Two notebooks named {', '.join(repeated)}: run them into two folders.")
    needed: set[tuple[str, str]] = set()
    for path in paths:
        needed |= check_notebook(path, plan)
    for role, profile in sorted(needed):
        chosen = settings(role, profile)
        models.folder_of(role, chosen)
        if chosen.source == "hub":
            check_hub(chosen.model)


def check_notebook(path: Path, plan: Plan) -> set[tuple[str, str]]:
    """Refuse parameters that a notebook cannot be given; return the roles and profiles of its models."""
    notebook = notebooks.read(path)
    try:
        known = notebooks.parameters(notebook)
    except UserError as error:
        raise UserError(f"{path.stem}: {error}") from error
    for parameter, value in plan.parameters.items():
        check_parameter(path.stem, known, parameter, value)
    check_lasting(path.stem, notebook, plan.values)
    own = bool(plan.values.get("MODEL"))  # then all but the article's run stays on the small models
    loads = [LOADS_A_MODEL.findall(cell.source) for cell in notebooks.code_cells(notebook)]
    return {
        (role, plan.profile if asked and not own else "tiny")
        for found in loads
        for role, asked in found
    }


def check_hub(model: str) -> None:
    """Refuse a model of the hub that is neither in the cache nor to be had here.

    Raises:
        UserError: says why not: no network, no such model, or one that asks for a login.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    weights = ("model.safetensors", "model.safetensors.index.json")
    if any(isinstance(try_to_load_from_cache(model, name), str) for name in weights):
        return
    try:
        HfApi().model_info(model, timeout=5)
    except Exception as error:  # its network errors have no common class
        raise UserError(
            f"{model} is not in the cache, and the model hub does not give it ({type(error).__name__}): connect "
            "to a network (HF_HUB_OFFLINE must not be set), `hf auth login` if it asks for a licence, or use the profile tiny."
        ) from error


def check_lasting(name: str, notebook, values: dict[str, object]) -> None:
    """Refuse a value that a cell below sets anew: the run would be recorded under one that it did not have."""
    code = notebooks.code_cells(notebook)
    tagged = [number for number, cell in enumerate(code) if "parameters" in notebooks.tags(cell)]
    for cell in code[tagged[0] + 1 :] if tagged else []:
        if again := values.keys() & notebooks.constants(cell.source).keys():
            raise UserError(
                f"{name} sets {again.pop()} anew in its cell {cell.id!r}: a value given to the run would not "
                "last; delete that line."
            )


def check_parameter(name: str, known: dict[str, object], parameter: str, value: object) -> None:
    """Refuse one that a notebook does not have, or has with another type: papermill only warns."""
    if parameter not in known:
        has = ", ".join(known) or "none"
        raise UserError(f"{name} has no parameter {parameter!r}: it has {has}.")
    default = known[parameter]
    takes = {float, int} if isinstance(default, float) else {type(default)}
    if default is not None and type(value) not in takes:
        kind = type(default).__name__
        raise UserError(f"Parameter {parameter} of {name} takes a {kind}, not {value!r}.")


def matching(paths: list[Path], globs: list[str]) -> list[Path]:
    """Return the notebooks whose stem, file name or path fits one of the patterns; all without one.

    Raises:
        UserError: a pattern that fits none.
    """
    chosen: set[Path] = set()
    for glob in globs:
        fits = {p for p in paths for name in (p.stem, p.name, str(p)) if fnmatch(name, glob)}
        if not fits:
            known = ", ".join(path.stem for path in paths)
            raise UserError(f"No notebook fits {glob!r}: choose from {known}.")
        chosen |= fits
    return [path for path in paths if path in chosen] if globs else paths


def recorded_seconds(path: Path, profile: str) -> float:
    """Return how long a notebook took when it was recorded; unknown ones count as the longest."""
    try:
        return float(results.read(f"{path.stem}.{profile}")["seconds"])
    except (UserError, ValueError, KeyError, TypeError):
        return float("inf")


def longest_first(paths: list[Path], profile: str) -> list[Path]:
    """Order notebooks so that the last to start is a short one."""
    return sorted(paths, key=lambda path: (-recorded_seconds(path, profile), path.stem))


def shard(paths: list[Path], text: str, profile: str) -> list[Path]:
    """Return the notebooks of shard ``i/n``: the shards' recorded times are as even as may be.

    Every machine finds the same division, from the same recorded times.

    Raises:
        UserError: not two whole numbers with 1 <= i <= n.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard takes I/N with 1 <= I <= N, for instance 2/3, not {text!r}.")
    shards: list[list[Path]] = [[] for _ in range(int(count))]
    loads = [0.0] * len(shards)
    for path in longest_first(paths, profile):
        lightest = loads.index(min(loads))
        shards[lightest].append(path)
        seconds = recorded_seconds(path, profile)
        loads[lightest] += seconds if seconds < float("inf") else 60
    return sorted(shards[int(number) - 1])
