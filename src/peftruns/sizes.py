"""What a run needs and what a card has: choose before anything is loaded."""

from collections.abc import Callable, Iterator
from typing import Any

from pefthelpers import models, results
from pefthelpers.errors import UserError
from peftmemory.cards import CARDS, verdict
from peftmemory.constants import GIB
from peftmemory.predict import predict
from peftruns.rows import unreachable
from peftruns.sheet import RUNS, TABLE, Run, revision_of, shape_of, small, steps_of, way_options

Candidate = dict[str, Any]
PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def recorded(name: str) -> list[Candidate]:
    """Return the listed models' steps (data/results/article_runs.json), largest model first."""
    rows = results.read("article_runs")["rows"]
    order = RUNS[name]["models"]
    return sorted((r for r in rows if r["name"] == name), key=lambda r: order.index(r["model"]))


def predicted(name: str, model: str, method: Any, before_trace: Callable) -> Iterator[Candidate]:
    """Yield the steps of a model that is not listed, by the closed form or a trace."""
    for way in RUNS[name]["ways"]:
        options = way_options(name, way)
        found = predict(shape_of(model), method, before_trace=before_trace, **options)
        yield {"model": model, "peak_bytes": found.peak, **way}


SETTING = ("model", "method", "batch", "checkpointing", "length")


def by_card(name: str):
    """Return a table: for each card the largest listed model that fits, and what it takes.

    Minutes are estimated: traced operations at full length by a guessed share of the data sheet's rate.

    Args:
        name: ``lora``, ``prefix``, ``adapters`` or ``qlora``.

    Returns:
        A pandas Styler, one card a row; what is the same for each card stands above it.
    """
    import pandas as pd

    rows, candidates = [], recorded(name)
    for card, tera in TABLE["cards"].items():
        best = choose(candidates, CARDS[card])
        steps = steps_of(name, batch=best["batch"], accumulation=best["accumulation"])
        speed = tera * 1e12 * TABLE["utilisation"]
        operations = best["flops"] * best["accumulation"] * steps
        rows.append(
            {
                "card": card,
                "GiB": CARDS[card],
                "model": best["model"].split("/")[-1],
                "method": RUNS[name]["method"],
                "batch": f"{best['batch']} × {best['accumulation']}",
                "checkpointing": best["checkpointing"],
                "length": RUNS[name]["length"],
                "peak, GiB": round(best["peak_bytes"] / GIB, 1),
                "verdict": best["verdict"],
                "minutes (estimated)": float(f"{operations / speed / 60:.2g}"),
            }
        )
    table = pd.DataFrame(rows).set_index("card")
    same = [name for name in SETTING if table[name].nunique() == 1]
    words = "; ".join(f"{name} {table[name].iloc[0]}" for name in same)
    shown = table.drop(columns=same).style.format({"GiB": "{:.1f}", "peak, GiB": "{:.1f}"})
    return shown.format("{:g}", subset=["minutes (estimated)"]).set_caption(
        f"For each card: {words}"
    )


def choose(candidates: list[Candidate], card_gib: float) -> Candidate:
    """Return the first candidate that fits, else the first that may.

    Raises:
        UserError: none has a chance; the sentence says what the least needs.
    """
    judged = [each | {"verdict": verdict(each["peak_bytes"], card_gib)} for each in candidates]
    for word in ("fits", "uncertain"):
        if found := next((each for each in judged if each["verdict"] == word), None):
            return found
    least = min(judged, key=lambda each: each["peak_bytes"])
    raise UserError(
        f"{least['model']} needs {least['peak_bytes'] / GIB:.1f} GiB at a batch of {least['batch']}, "
        f'and this card has {card_gib:.1f}: take a smaller model in MODEL, or PROFILE = "tiny".'
    )


def plan(
    name: str,
    profile: str = "tiny",
    *,
    model: str = "",
    method: Any = None,
    before_trace: Callable[[], None] = lambda: None,
) -> Run:
    """Return what a run loads here: in ``gpu`` the largest listed model, or the reader's, that fits.

    Args:
        name: ``lora``, ``prefix``, ``adapters`` or ``qlora``.
        profile: ``tiny`` and ``laptop`` take the small model and the fixture.
        model: a hub id or a folder instead of the listed models.
        method: the PEFT configuration that the run trains; needed with ``model``.
        before_trace: see ``peftmemory.predict``.

    Raises:
        UserError: nothing fits the card, or the model cannot be had here.
    """
    if profile != "gpu":
        return small(name, model)
    device = models.place(profile)
    listed = not model or shape_of(model) in {shape_of(each) for each in RUNS[name]["models"]}
    candidates = recorded(name) if listed else [*predicted(name, model, method, before_trace)]
    if model and listed:
        same = [each for each in candidates if shape_of(each["model"]) == shape_of(model)]
        candidates = [each | {"model": model} for each in same]
    best, said = candidates[0], "There is no GPU here: the run goes on the CPU, and takes long."
    if device == "cuda":
        free = free_gib()
        best = choose(candidates, free)
        said = f"A step needs {best['peak_bytes'] / GIB:.1f} GiB, the card has {free:.1f} free: "
        said += f"it {best['verdict'].replace('uncertain', 'may fit')}."
    way = {key: best[key] for key in ("batch", "accumulation", "checkpointing")}
    size = {key: RUNS[name][key] for key in ("length", "epochs")} | {"device": device}
    dtype = str(models.dtype_on(device, "bfloat16")).removeprefix("torch.")
    needs, revision = best["peak_bytes"] / GIB, revision_of(best["model"])
    refuse_out_of_reach(best["model"], revision)
    return Run(best["model"], revision, **way, **size, dtype=dtype, verdict=said, peak_gib=needs)


def peak_gib(name: str, run: Run, method: Any, *, seq: int) -> float:
    """Return what a step of a run's own batch is predicted to need at a length, in GiB.

    Args:
        name: ``lora``, ``prefix``, ``adapters`` or ``qlora``.
        run: as planned.
        method: the PEFT configuration that it trains.
        seq: tokens per sequence, padding included.
    """
    options = way_options(name, vars(run)) | {"seq": seq}
    if options.get("precision") != "nf4":
        options["precision"] = PRECISION[run.dtype]
        options["autocast"] = run.dtype == "bfloat16"
    return predict(shape_of(run.model), method, **options).peak / GIB


def free_gib() -> float:
    """Return the card's memory that the models before have left free, in GiB."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0] / GIB


def refuse_out_of_reach(model: str, revision: str) -> None:
    """Refuse a hub model that is neither in the cache nor to be had: before anything is loaded.

    Raises:
        UserError: the sentence says what helps.
    """
    from pathlib import Path

    from huggingface_hub import HfApi, try_to_load_from_cache

    if Path(model).is_dir() or try_to_load_from_cache(model, "config.json", revision=revision):
        return
    if why := unreachable(HfApi().model_info, model, revision):
        raise UserError(
            f"{model} cannot be had here ({why}): connect to a network, `hf auth login` if it asks for "
            'a licence, give a folder in MODEL, or use PROFILE = "tiny".'
        )
