"""What people ask next, on the command line: tables, several devices, preferences, serving."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from peftmemory import capacity, switches
from peftmemory.advice import named
from peftmemory.configs import ModelConfig
from peftmemory.errors import EstimateError
from peftmemory.methods import Full
from peftmemory.phases import Estimate
from peftmemory.predict import predict
from peftmemory.preference import REFERENCES, dpo, grpo
from peftmemory.serving import Serving, most_sequences, serve
from peftmemory.sharding import STRATEGIES, per_device

# An option that means something only beside another one.
NEEDS = {
    "strategy": "devices",
    "offload": "devices",
    "reference": "task",
    "generated": "task",
    "adapters": "serve",
    "prefill": "serve",
    "cache_8bit": "serve",
}
# Questions of which one is asked at a time.
APART = (("devices", "task", "serve", "trace", "switches"), ("serve", "table"))


def add_arguments(add: Callable, whole: Callable) -> None:
    """Describe the arguments; ``add`` is a parser's ``add_argument``, ``whole`` reads a number."""
    size = {"type": whole, "metavar": "N"}
    add(
        "--table",
        action="store_true",
        help="peaks by batch and length, the largest that fit a card",
    )
    add("--switches", action="store_true", help="what each switch is worth, one at a time")
    add("--devices", **size, help="devices that share the step: what one of them holds")
    add("--strategy", choices=STRATEGIES, help="how they share it (default: fsdp)")
    add("--offload", choices=("optimizer", "all"), help="what lies in the host's memory")
    add("--task", choices=("dpo", "grpo"), help="train on pairs (--batch of them), or on rewards")
    add("--reference", choices=REFERENCES, help="the reference model; default: TRL's choice")
    add("--generated", **size, help="with grpo: sequences generated at a time (default: --batch)")
    add("--serve", action="store_true", help="answer --batch requests of --seq tokens instead")
    add("--adapters", **size, help="adapters of --method loaded side by side")
    add("--prefill", **size, help="tokens of prompts read at once (default: all)")
    add("--cache-8bit", action="store_true", help="keys and values in 8 bits")


def check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        EstimateError: the sentence names both.
    """
    given = {name for name, value in vars(options).items() if value not in (None, False)}
    flag = lambda name: "--" + name.replace("_", "-")
    for name, other in NEEDS.items():
        if name in given and other not in given:
            raise EstimateError(
                f"{flag(name)} goes with {flag(other)}: add it, or drop {flag(name)}."
            )
    for names in APART:
        if len(both := [flag(name) for name in names if name in given]) > 1:
            raise EstimateError(f"{' and '.join(both[:2])} are two questions: take one of them.")
    if "table" in given and not {"card", "card_gib"} & given:
        raise EstimateError("--table needs a card: add --card NAME or --card-gib GIB.")
    if "generated" in given and options.task != "grpo":
        raise EstimateError("--generated goes with --task grpo: DPO generates nothing.")


def asked(options: argparse.Namespace, before_trace: Callable) -> Callable[..., Estimate]:
    """Return what answers the question that the options ask: a step's peak."""
    if options.devices is not None:
        shared = {"strategy": options.strategy or "fsdp", "offload": options.offload or "none"}
        return partial(per_device, devices=options.devices, **shared)
    chosen = {"reference": options.reference} if options.reference else {}
    if options.task == "dpo":
        return partial(dpo, **chosen)
    if options.task == "grpo":
        return partial(grpo, generated=options.generated, **chosen)
    return partial(predict, trace=options.trace, before_trace=before_trace)


def served(config: ModelConfig, method: Any, options: argparse.Namespace) -> Serving:
    """Return what a model holds while it answers."""
    return serve(config, batch=options.batch, seq=options.seq, **of_serving(method, options))


def of_serving(method: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of ``serve`` beside batch and length.

    Raises:
        EstimateError: a precision in which nobody serves.
    """
    if options.precision == "mixed":
        raise EstimateError("mixed is a way to train: take --precision bf16, fp16, fp32 or nf4.")
    if isinstance(method, Full) and options.adapters:
        raise EstimateError("--adapters needs --method: lora with its --rank, for example.")
    kinds = {"adapters": options.adapters or 0, "prefill": options.prefill}
    kinds |= {"precision": options.precision, "cache_bytes": 1 if options.cache_8bit else 2}
    return kinds | ({} if isinstance(method, Full) else {"method": method})


def more(
    config: ModelConfig, method: Any, card: Any, step: dict[str, Any], options: argparse.Namespace,
    ask: Callable[..., Estimate],
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Return the tables that were asked for: as JSON-ready values, and as lines."""
    result, lines = {}, []
    if options.switches:
        result["switches"] = switches.switches(config, method, **step)
        lines += ["", *switches.as_lines(result["switches"])]
    if options.table:
        result["table"] = capacity.capacity(config, method, card_gib=card, ask=ask, **step)
        lines += ["", *capacity.in_words(result["table"], step["batch"], step["seq"])]
    if options.serve and card is not None:
        kinds = of_serving(method, options)
        result["sequences"] = most_sequences(config, card_gib=card, seq=options.seq, **kinds)
        fits, may = result["sequences"].values()
        lines.append(
            f"Sequences of {options.seq:,} tokens at a time on {named(card)[1]:g} GiB:"
            f" {fits:,} fit, {may:,} may."
        )
    return result, lines
