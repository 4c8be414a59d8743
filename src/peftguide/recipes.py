"""The recipes: one template over the table of methods, sized for a model and a card."""

import inspect
import json
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from peftguide import memory_need, own_data
from peftguide.template import render
from pefthelpers.errors import UserError
from pefthelpers.methods import METHODS, TASK_TYPES, fields
from pefthelpers.paths import data_dir

# What a task is, the model it is shown on where none is given, the tokens of an example, epochs.
TASKS = {
    "chat": ("answer in a conversation", "Qwen/Qwen3-0.6B", 1024, 3),
    "summarise": ("write summaries", "Qwen/Qwen3-0.6B", 1024, 3),
    "classify": ("label sentences", "FacebookAI/roberta-base", 256, 5),
}
# How a model is used: PEFT's name for it, transformers' class, in words.
FORMS = {
    "decoder": ("decoder", "AutoModelForCausalLM", "a decoder such as Llama or Qwen"),
    "seq2seq": ("seq2seq", "AutoModelForSeq2SeqLM", "an encoder-decoder such as T5"),
    "classifier": ("encoder", "AutoModelForSequenceClassification", "an encoder or a decoder"),
}
# Whose modules a bottleneck follows, where a model of the role is not told more closely.
FAMILIES = {
    "decoder": ("llama", "gpt2"),
    "seq2seq": ("t5",),
    "encoder": ("roberta", "distilbert"),
}
LEAST = 16  # tokens: less holds no example
TOGETHER = 16  # sequences before the weights move
PRECISIONS = ("auto", "float32", "bf16", "fp16")
GIVEN_PRECISION = '"bf16" if has_bf16 else "fp16" if gpu else "float32"'
IMPORTS = {
    "decoder": [],
    "seq2seq": ["DataCollatorForSeq2Seq", "Seq2SeqTrainer", "Seq2SeqTrainingArguments"],
    "classifier": ["DataCollatorWithPadding", "Trainer", "TrainingArguments"],
}


def recipe(
    method: str,
    model: str | None = None,
    task: str = "chat",
    *,
    data: str = "data.jsonl",
    held_out: str | None = None,
    card_gib: float | None = 24,
    seq: int | None = None,
    precision: str = "auto",
) -> str:
    """Return a script that fine-tunes a model on the reader's data with the public packages alone.

    Args:
        method: a key of ``methods.METHODS``.
        model: a name on the hub or a folder; None for a small model that fits the task.
        task: ``chat``, ``summarise`` or ``classify``.
        data: JSONL: messages, or prompt and completion; text and summary; text and label.
        held_out: a second such file; None holds a tenth of the first one out.
        card_gib: the card's memory as it is sold; None for no GPU.
        seq: tokens of an example; None for what is usual for the task.
        precision: ``auto`` (by hardware), ``float32``, ``bf16`` or ``fp16``.

    Raises:
        UserError: these do not go together, or the step does not fit the card.
    """
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}: take one of {', '.join(TASKS)}.")
    if precision not in PRECISIONS:
        raise UserError(f"There is no precision {precision!r}: take {', '.join(PRECISIONS)}.")
    if seq is not None and (type(seq) is not int or seq < LEAST):
        raise UserError(f"seq must be a whole number of at least {LEAST} tokens, not {seq!r}.")
    doing, usual, length, epochs = TASKS[task]
    model = loadable(usual if model is None else model)
    names = memory_need.role_of(model) or ("encoder" if task == "classify" else "decoder")
    form = "classifier" if task == "classify" else names
    refuse(method, task, names)
    length = seq or (length if names == "decoder" else min(length, 512))
    batch, notes = sized(method, model, names, length, card_gib)
    values = {"task": task, "doing": doing, "form": form, "data": data, "epochs": epochs}
    values |= {"length": length, "model": model}
    values |= {"held_out": json.dumps(held_out) if held_out else "None", "notes": notes}
    values |= {"batch": batch, "accumulation": max(1, TOGETHER // batch)}
    values |= {"precision": GIVEN_PRECISION if precision == "auto" else json.dumps(precision)}
    return _script(method, names, form, values)


def loadable(model: str) -> str:
    """Return what ``from_pretrained`` takes for a model's name or folder.

    Raises:
        UserError: it has no weights.
        EstimateError: the folder's configuration is damaged.
    """
    name, path = memory_need.hub_name(model), Path(model)
    a_file = (path.exists() or model.endswith(".json")) and not path.is_dir()
    if not model.strip() or " " in name or a_file:
        raise UserError(
            f"A recipe loads weights: give a name on the hub or the folder that holds them, not {model!r}."
        )
    if path.is_dir():
        memory_need.known(model)
    return name


def refuse(method: str, task: str, names: str) -> None:
    """Refuse what does not go together.

    Raises:
        UserError: an unknown method, or a task that the model or the method cannot do.
    """
    if method not in METHODS:
        known = ", ".join(sorted(METHODS))
        raise UserError(f"There is no recipe {method!r}: take one of {known}.")
    if names == "encoder" and task != "classify":
        raise UserError(f"An encoder writes no text: give a decoder or a T5 for {task!r}.")
    if names == "seq2seq" and task != "summarise":
        raise UserError(f"An encoder-decoder is for 'summarise' here: give a decoder for {task!r}.")
    if method == "qlora" and names != "decoder":
        raise UserError("QLoRA is for models that do not fit in 16 bits: take lora for this one.")
    if method in ("prefix", "prompt") and (task, names) == ("classify", "decoder"):
        label = METHODS[method].label
        raise UserError(
            f"{label} does not go with a classifier on a decoder: virtual tokens move the place it "
            "reads its answer from; take lora."
        )


def sized(method: str, model: str, names: str, length: int, card_gib: float | None) -> tuple:
    """Return the sequences that a step takes on a card, and what to say about it.

    Raises:
        UserError: not one sequence fits.
    """
    if names != "decoder":
        return 16 if names == "encoder" else 8, []
    try:
        memory_need.check_length(model, length)
        need = {batch: memory_need.peak(model, method, batch, length) for batch in (8, 4, 2, 1)}
    except memory_need.Unknown:
        need = {1: None}
    if need[1] is None:
        said = f"The shape of {model} is not known here, so BATCH is 1: raise it while it fits;"
        return 1, [said, "`pefthelpers memory CONFIG.JSON --trace` works out what a step needs."]
    if card_gib is None:
        small = "Without a GPU a step of one sequence needs"
        return 1, [f"{small} {need[1]:.1f} GiB of RAM, and patience: see pefthelpers doctor."]
    room = memory_need.room(card_gib)
    batch = next((batch for batch in need if need[batch] <= room), None)
    if batch is None:
        raise UserError(memory_need.too_small(model, method, length, card_gib))
    said = (
        f"A step of {batch} x {length:,} tokens peaks at {need[batch]:.1f} GiB by formula, not run;"
    )
    return batch, [said, f"a card of {card_gib:g} GB is counted as {room:.1f} GiB for it."]


def configuration(method: str, model: str | None = None, role: str = "decoder") -> str:
    """Return a recipe's configuration with the imports it needs.

    Args:
        method: a key of ``methods.METHODS``.
        model: what to load: a name on the hub, a folder, or one of ``peftmemory``'s models.
        role: ``decoder``, ``seq2seq`` or ``encoder``: what the model is used as.
    """
    model = model or TASKS["chat"][1]
    names = memory_need.role_of(model) or "decoder"
    return _configuration(method, memory_need.hub_name(model), role, names, whole=False)


def rates(method: str) -> dict[str, str]:
    """Return the learning rate that a method's recipe starts from, and the range worth a try."""
    notes = _notes()["methods"][method]
    return {name: notes[name] for name in ("learning_rate", "low", "high")}


@cache
def _notes() -> dict[str, Any]:
    return yaml.safe_load((data_dir() / "recipes.yaml").read_text(encoding="utf-8"))


def _configuration(method: str, model: str, role: str, names: str, *, whole: bool) -> str:
    if method not in METHODS:
        known = ", ".join(sorted(METHODS))
        raise UserError(f"There is no recipe {method!r}: take one of {known}.")
    row, given = METHODS[method], fields(method, names=names)
    if (
        role == "encoder"
        and given.get("target_modules") == fields("lora", names="encoder")["target_modules"]
    ):
        given["target_modules"] = "all-linear"  # also where an encoder names its layers otherwise
    call = _call(row.config_class, {"task_type": TASK_TYPES[role], **given})
    values = {"key": method, "row": row, "model": model, "fields": given, "whole": whole}
    values |= {"sites": "" if row.in_peft or not whole else sites(given["placement"], names)}
    return render("configuration.py", call=call, **values, **_notes()["methods"][method])


def _script(method: str, names: str, form: str, values: dict[str, Any]) -> str:
    row, notes = METHODS[method], _notes()
    role, auto, kind = FORMS[form]
    ours = ["PeftModel", "get_peft_model_state_dict", row.config_class]
    ours += ["get_peft_model"] * (form != "decoder")
    theirs = ["AutoConfig", auto, "AutoTokenizer", *IMPORTS[form], "set_seed"]
    theirs += ["BitsAndBytesConfig"] * (method == "qlora")
    source = inspect.getsource(own_data)
    adapter = (
        Path(__file__).with_name("bottleneck.py").read_text(encoding="utf-8")
    )  # needs no torch here
    values |= {"bottleneck": adapter[adapter.index("class Bottleneck") :].rstrip()}
    values |= {"peft": bool(row.in_peft and row.config_class), "carried": not row.in_peft}
    values |= {"configuration": _configuration(method, "", role, names, whole=True).rstrip()}
    values |= {"functions": source[source.index("# For a tokenizer") :].rstrip(), "auto": auto}
    values |= {"key": method, "row": row, "kind": kind, "packages": notes["packages"]}
    values |= {"title": notes["methods"][method]["title"], "fields": fields(method, names=names)}
    values |= {"checkpointing": names == "decoder" and method != "prefix"}
    order = lambda found: sorted(filter(None, found), key=lambda name: (name[0].islower(), name))
    return render("recipe.py", from_peft=order(ours), from_transformers=order(theirs), **values)


def sites(placement: str, names: str) -> str:
    """Return as code the pattern of the modules that a bottleneck follows in models of a role."""
    from peftbottleneck.sites import ARCHITECTURES  # here, as it brings torch

    found = [getattr(ARCHITECTURES[family], placement) for family in FAMILIES[names]]
    return (
        "(\n    "
        + "\n    ".join(f'r"{"|" * bool(i)}{each}"' for i, each in enumerate(found))
        + "\n)"
    )


def _call(name: str | None, given: dict[str, Any]) -> str:
    """Return a call in Python, on one line if that is short enough."""
    code = lambda value: json.dumps(value) if isinstance(value, str | list) else repr(value)
    arguments = [f"{field}={code(value)}" for field, value in given.items()]
    if "prompt_tuning_init" in given:
        arguments.append("tokenizer_name_or_path=MODEL")
    inner = ", ".join(arguments)
    if len(inner) <= 80:
        return f"{name}({inner})"
    lines = textwrap.wrap(inner, 96, break_long_words=False, break_on_hyphens=False)
    return "\n    ".join([f"{name}(", *lines]) + "\n)"
