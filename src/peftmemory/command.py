"""``pefthelpers memory MODEL``: the estimate, and what fits a card, on the command line."""

import argparse
import json
from typing import Any

from peftmemory.advice import PRECISIONS, advise, fits
from peftmemory.configs import load_config
from peftmemory.errors import EstimateError
from peftmemory.estimate import estimate
from peftmemory.methods import Method, method

# An option of the command line and the field of a method it sets.
FIELDS = {"rank": "r", "virtual_tokens": "num_virtual_tokens", "reduction": "reduction_factor"}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Describe the command's arguments; numbers are read later, so that errors are one sentence."""
    add = command.add_argument
    add("model", help="a name such as llama-3.1-8b, or the path of a config.json")
    add("--method", default="full", help="full (default), lora, dora, prefix, prompt, ia3, ln, …")
    add("--rank", help="rank r of LoRA or DoRA")
    add("--targets", help="all-linear, or module names such as q_proj,v_proj")
    add("--virtual-tokens", help="virtual tokens of prefix or prompt tuning")
    add("--reduction", help="reduction factor of houlsby or pfeiffer")
    add("--batch", default="1", help="sequences per step (1)")
    add("--seq", default="1024", help="tokens per sequence (1024)")
    add("--precision", default="bf16", help=f"{', '.join(PRECISIONS)} (bf16)")
    add("--optimizer", default="adamw_torch_fused", help="adamw_torch_fused, adamw_torch, …")
    add("--loss", default="plain", help="plain, or chunked as in TRL")
    add("--attention", default="sdpa", help="sdpa or eager")
    for switch in ("checkpointing", "padding", "accumulation"):
        add(f"--{switch}", action="store_true")
    add("--trace", action="store_true", help="trace the real step instead: any model, seconds")
    add("--max-vram", metavar="GIB", help="say which settings fit a card of this size")
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the estimate, and with ``--max-vram`` which settings fit; return the exit code.

    Raises:
        EstimateError: something in the question cannot be.
    """
    described, step = read(options)
    card = None if options.max_vram is None else number("--max-vram", options.max_vram, float)
    found = question(options.trace)(options.model, described, **step)
    result: dict[str, Any] = found.to_dict()
    words = [str(found)]
    if card is not None:
        advice = advise(options.model, described, card_gib=card, **step)
        common = {name: step[name] for name in ("batch", "seq", "optimizer")}
        rows = fits(options.model, max_vram_gib=card, **common)
        result |= {"advice": advice.to_dict(), "fits": rows}
        words += ["", str(advice), "", *map(line, rows)]
    print(json.dumps(result, indent=1) if options.json else "\n".join(words))
    return 0


def question(traced: bool):
    """Return the function that answers: the closed form, or the trace."""
    if not traced:
        return estimate
    from peftmemory.tracing import trace_step

    return trace_step


def read(options: argparse.Namespace) -> tuple[Method, dict[str, Any]]:
    """Return the method and the step that the options name.

    Raises:
        EstimateError: a number that is none, an unknown method, precision or option.
    """
    load_config(options.model)  # the first thing a reader got wrong, if it is wrong
    fields: dict[str, Any] = {}
    for name, field in FIELDS.items():
        if (text := getattr(options, name)) is not None:
            kind = float if name == "reduction" else int
            fields[field] = number(f"--{name.replace('_', '-')}", text, kind)
    if options.targets:
        names = tuple(options.targets.split(","))
        fields["target_modules"] = options.targets if options.targets == "all-linear" else names
    if options.precision not in PRECISIONS:
        choices = ", ".join(PRECISIONS)
        raise EstimateError(f"--precision takes one of {choices}, not {options.precision!r}.")
    step = {name: number(f"--{name}", getattr(options, name), int) for name in ("batch", "seq")}
    same = ("optimizer", "loss", "attention", "checkpointing", "padding", "accumulation")
    step |= {name: getattr(options, name) for name in same}
    return method(options.method, **fields), {**step, **PRECISIONS[options.precision]}


def number(option: str, text: str, kind: type) -> Any:
    """Return the number that ``text`` writes.

    Raises:
        EstimateError: it writes none.
    """
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise EstimateError(f"{option} takes {what}, not {text!r}.") from None


def line(row: dict[str, Any]) -> str:
    """Return one row of ``fits`` as a line."""
    mark = "fits" if row["fits"] else "-"
    extras = "checkpointing" if row["checkpointing"] else ""
    return (
        f"{mark:5}{row['peak_gib']:8.1f} GiB  {row['method']:28} {row['loss']:8} {extras}".rstrip()
    )
