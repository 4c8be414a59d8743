"""``pefthelpers memory MODEL``: the estimate, and what fits a card, on the command line."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from peftmemory import questions
from peftmemory.advice import PRECISIONS, advise, changes, fits, named
from peftmemory.cards import in_words, on_card_gib, range_in_words, verdict
from peftmemory.configs import ModelConfig, load_config
from peftmemory.constants import GIB
from peftmemory.errors import EstimateError
from peftmemory.methods import method
from peftmemory.phases import Estimate

# The options that are fields of a method and of a step.
OF_A_METHOD = ("r", "num_virtual_tokens", "reduction_factor", "target_modules")
SWITCHES = {
    "checkpointing": "gradient checkpointing",
    "padding": "the batch holds padding, so a mask is built",
    "packing": "rows hold several documents, so a mask is built but for flash attention",
    "accumulation": "gradients of earlier batches are there",
    "free-outputs": "the loop keeps the loss alone, as the Trainer does",
    "autocast": "bf16 autocast over the weights' format (bf16=True in the Trainer)",
    "prepare-kbit": "prepare_model_for_kbit_training was called (with --precision nf4)",
    "adapters-16bit": "adapters in the base's 16 bits, as TRL has them on a 4-bit base",
}
OF_A_STEP = ("batch", "seq", "optimizer", "loss", "attention", "head", "checkpointing", "padding")
OF_A_STEP += ("packing", "accumulation", "free_outputs", "prepare_kbit", "recompute")


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
    add("model", help="llama-3.1-8b, a hub id, a folder, or the path of a config.json")
    add("--method", default="full", help="full (default), lora, dora, prefix, prompt, ia3, ln, …")
    add("--rank", dest="r", metavar="RANK", type=whole, help="rank r of LoRA or DoRA")
    add("--targets", dest="target_modules", help="all-linear, or names such as q_proj,v_proj")
    virtual = "virtual tokens of prefix or prompt tuning"
    add("--virtual-tokens", dest="num_virtual_tokens", metavar="TOKENS", type=whole, help=virtual)
    factor = "reduction factor of houlsby or pfeiffer"
    add("--reduction", dest="reduction_factor", metavar="FACTOR", type=number, help=factor)
    add_step(add)
    card = "say whether it fits a card that reports so much memory"
    add("--card-gib", "--max-vram", type=number, metavar="GIB", help=card)
    add("--card", metavar="NAME", help="the same for a card by name: t4, a10g, l4, a100-80, …")
    must = "exit code 1 unless it fits the card; a verdict of uncertain is not enough"
    add("--must-fit", action="store_true", help=must)
    questions.add_arguments(add, whole)
    add("--trace", action="store_true", help="trace the step even where a formula covers it")
    add("--json", action="store_true", help="print JSON")


def add_step(add: Callable) -> None:
    """Describe the arguments that are about the step; ``add`` is a parser's ``add_argument``."""
    add("--batch", type=whole, default=1, help="sequences per step (1)")
    add("--seq", type=whole, default=1024, help="tokens per sequence (1024)")
    add("--precision", choices=[*PRECISIONS, "fp16"], default="bf16", help="default: bf16")
    add("--optimizer", default="adamw_torch_fused", help="adamw_torch_fused, adamw_torch, …")
    add("--loss", help="plain (default), chunked as in TRL (default with --task), or liger")
    add("--attention", default="sdpa", help="sdpa, flash_attention_2 or eager")
    kinds = "with --checkpointing: layers (default), selective or offloaded"
    add("--recompute", default="layers", help=kinds)
    add("--head", help="causal-lm, seq2seq-lm, classifier, …; default: the family's usual one")
    for switch, text in SWITCHES.items():
        add(f"--{switch}", action="store_true", help=text)


def step_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the step that the options name."""
    step = {name: getattr(options, name) for name in OF_A_STEP}
    step["loss"] = options.loss if options.loss is not None else "plain"
    if options.task:
        step |= {} if options.packing else {"padding": True}
        step |= {"loss": options.loss or "chunked", "free_outputs": True}
    step |= PRECISIONS.get(options.precision, {"precision": options.precision})
    if options.autocast:
        step["autocast"] = True
    return step | {"autocast_adapter_dtype": not options.adapters_16bit}


def method_of(options: argparse.Namespace) -> Any:
    """Return the method that the options name."""
    given = {name: getattr(options, name) for name in OF_A_METHOD}
    if (text := options.target_modules) is not None and text != "all-linear":
        names = tuple(name.strip() for name in text.split(","))
        if not all(names):
            raise EstimateError("--targets takes names such as q_proj,v_proj, or all-linear.")
        given["target_modules"] = names
    return method(options.method, **{k: v for k, v in given.items() if v is not None})


def run(options: argparse.Namespace, before_trace: Callable[[], None] = lambda: None) -> int:
    """Print the estimate, and with a card whether it fits; return the exit code.

    ``before_trace`` is called before a trace, to make known to PEFT what it does not bring.
    """
    config = load_config(options.model)  # the first thing a reader got wrong, if it is wrong
    card = card_of(options)
    described, step = method_of(options), step_of(options)
    ask = questions.asked(options, before_trace)
    tables, lines = questions.more(config, described, card, step, options, ask)
    if options.serve:
        found = questions.served(config, described, options)
    else:
        found = ask(config, described, **step)
    result, words = found.to_dict(), [str(found)]
    good = True
    if card is not None:
        plain = not (options.serve or options.devices or options.task)
        told = on_card(config, described, card, step, found, plain=plain)
        result |= told
        words += ["", *told["lines"]]
        good = told["verdict"] == "fits" or not options.must_fit
    result = {key: value for key, value in (result | tables).items() if key != "lines"}
    print(json.dumps(result, indent=1) if options.json else "\n".join([*words, *lines]))
    return 0 if good else 1


def card_of(options: argparse.Namespace) -> Any:
    """Return the card that the options name, or None, once all options go together.

    Raises:
        EstimateError: they do not, or there is no such card.
    """
    if options.must_fit and options.card is None and options.card_gib is None:
        raise EstimateError("--must-fit needs a card: add --card NAME or --card-gib GIB.")
    if options.card is not None and options.card_gib is not None:
        raise EstimateError("--card and --card-gib name two cards: take one of them.")
    questions.check(options)
    card = options.card if options.card is not None else options.card_gib
    if card is not None:
        named(card)
    return card


def on_card(
    config: ModelConfig,
    described: Any,
    card: Any,
    step: dict[str, Any],
    found: Estimate | questions.Serving,
    *,
    plain: bool,
) -> dict[str, Any]:
    """Return the verdict on a card, and what would help: by formula, or in words for a trace.

    ``plain``: the step of one device, for which there is advice.
    """
    name, gib = named(card)
    shown = {"on_card_gib": on_card_gib(found.peak)}
    if not plain or found.traced:
        word = verdict(found.peak, gib)
        lines = [in_words(word, gib, found.peak / GIB, name)]
        if word != "fits" and plain:
            possible = ", ".join(change for change, *_ in changes(described, found.setting))
            lines.append(f"What can still be changed, and traced again: {possible}.")
        lines.insert(1, range_in_words(found.peak))
        return shown | {"verdict": word, "sentence": lines[0], "lines": lines}
    advice = advise(config, described, card_gib=card, **step)
    rows = fits(config, card_gib=gib, **{key: step[key] for key in ("batch", "seq", "optimizer")})
    lines = [str(advice), range_in_words(found.peak), "", *map(line, rows)]
    return shown | {
        "verdict": advice.word, "advice": advice.to_dict(), "fits": rows, "lines": lines
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """Return one row of ``fits`` as a line."""
    mark = {"does not fit": "-", "uncertain": "maybe"}.get(row["verdict"], "fits")
    size = f"{mark:6}{row['peak_gib']:7.1f} GiB"
    extras = "checkpointing" * row["checkpointing"]
    return f"{size}  {row['method']:28} {row['loss']:8} {extras}".rstrip()
