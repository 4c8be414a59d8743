"""``pefthelpers memory MODEL``: the estimate, and what fits a card, on the command line."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from peftmemory.advice import PRECISIONS, advise, fits
from peftmemory.configs import load_config
from peftmemory.estimate import estimate
from peftmemory.methods import method

# The options that are fields of a method and of a step.
OF_A_METHOD = ("r", "num_virtual_tokens", "reduction_factor", "target_modules")
SWITCHES = ("checkpointing", "padding", "accumulation")
OF_A_STEP = ("batch", "seq", "optimizer", "loss", "attention", *SWITCHES)


def reads(kind: type, words: str, least: float | None = None) -> Callable[[str], Any]:
    """Return what argparse reads an option's number with; its error says what the option takes."""

    def read_number(text: str) -> Any:
        try:
            if least is None or least <= kind(text) < float("inf"):
                return kind(text)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"takes {words}, not {text!r}")

    return read_number


whole, number = reads(int, "a whole number"), reads(float, "a number")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Describe the command's arguments; what goes to a method has the name of its field."""
    add = command.add_argument
    add("model", help="a name such as llama-3.1-8b, or the path of a config.json")
    add("--method", default="full", help="full (default), lora, dora, prefix, prompt, ia3, ln, …")
    add("--rank", dest="r", metavar="RANK", type=whole, help="rank r of LoRA or DoRA")
    add("--targets", dest="target_modules", help="all-linear, or names such as q_proj,v_proj")
    virtual = "virtual tokens of prefix or prompt tuning"
    add("--virtual-tokens", dest="num_virtual_tokens", metavar="TOKENS", type=whole, help=virtual)
    factor = "reduction factor of houlsby or pfeiffer"
    add("--reduction", dest="reduction_factor", metavar="FACTOR", type=number, help=factor)
    add("--batch", type=whole, default=1, help="sequences per step (1)")
    add("--seq", type=whole, default=1024, help="tokens per sequence (1024)")
    add("--precision", choices=list(PRECISIONS), default="bf16", help="default: bf16")
    add("--optimizer", default="adamw_torch_fused", help="adamw_torch_fused, adamw_torch, …")
    add("--loss", default="plain", help="plain, or chunked as in TRL")
    add("--attention", default="sdpa", help="sdpa or eager")
    for switch in SWITCHES:
        add(f"--{switch}", action="store_true")
    add("--trace", action="store_true", help="trace the real step instead: any model, seconds")
    card = "say which settings fit a card of this size"
    add("--card-gib", "--max-vram", type=number, metavar="GIB", help=card)
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the estimate, and with ``--card-gib`` which settings fit; return the exit code."""
    load_config(options.model)  # the first thing a reader got wrong, if it is wrong
    given = {name: getattr(options, name) for name in OF_A_METHOD}
    if (names := options.target_modules) and names != "all-linear":
        given["target_modules"] = tuple(names.split(","))
    described = method(options.method, **{k: v for k, v in given.items() if v is not None})
    step = {name: getattr(options, name) for name in OF_A_STEP} | PRECISIONS[options.precision]
    ask = estimate
    if options.trace:
        from peftmemory.tracing import trace_step as ask
    found = ask(options.model, described, **step)
    result: dict[str, Any] = found.to_dict()
    words = [str(found)]
    if (card_gib := options.card_gib) is not None:
        advice = advise(options.model, described, card_gib=card_gib, **step)
        common = {name: step[name] for name in ("batch", "seq", "optimizer")}
        rows = fits(options.model, card_gib=card_gib, **common)
        result |= {"advice": advice.to_dict(), "fits": rows}
        words += ["", str(advice), "", *map(line, rows)]
    print(json.dumps(result, indent=1) if options.json else "\n".join(words))
    return 0


def line(row: dict[str, Any]) -> str:
    """Return one row of ``fits`` as a line."""
    mark, extras = "fits" if row["fits"] else "-", "checkpointing" * row["checkpointing"]
    size = f"{mark:5}{row['peak_gib']:8.1f} GiB"
    return f"{size}  {row['method']:28} {row['loss']:8} {extras}".rstrip()
