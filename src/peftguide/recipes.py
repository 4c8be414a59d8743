"""The minimal recipes: one template over the table of methods."""

import json
import textwrap
from functools import cache
from typing import Any

import yaml

from peftguide.template import render
from pefthelpers.errors import UserError
from pefthelpers.methods import METHODS, TASK_TYPES, fields
from pefthelpers.paths import data_dir
from peftmemory.configs import read_sheet

# Whose modules a model has, by transformers' `model_type`; all others have Llama's.
ARCHITECTURES = {"roberta": "encoder", "t5": "seq2seq"}
KITCHEN = '"data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"'


def recipe(method: str) -> str:
    """Return a method's recipe as text: a script to run and change, on the kitchen decoder.

    Raises:
        UserError: there is none of that name.
    """
    return _rendered(method, KITCHEN, "decoder", "decoder", whole=True)


def configuration(method: str, model: str | None = None, role: str = "decoder") -> str:
    """Return a recipe's configuration with the imports it needs.

    Args:
        method: a key of ``methods.METHODS``.
        model: a name of ``peftmemory`` to write into it instead of the kitchen decoder.
        role: ``decoder``, ``seq2seq`` or ``encoder``: what the model is used as.
    """
    if model is None:
        return _rendered(method, KITCHEN, role, "decoder", whole=False)
    sheet = read_sheet(model)
    names = ARCHITECTURES.get(sheet["config"]["model_type"], "decoder")
    return _rendered(method, json.dumps(sheet["source"]), role, names, whole=False)


@cache
def _rendered(method: str, model: str, role: str, names: str, *, whole: bool) -> str:
    if method not in METHODS:
        known = ", ".join(sorted(METHODS))
        raise UserError(f"There is no recipe {method!r}: take one of {known}.")
    notes = yaml.safe_load((data_dir() / "recipes.yaml").read_text(encoding="utf-8"))[method]
    row, given = METHODS[method], fields(method, names=names)
    values = {"key": method, "row": row, "model": model, "whole": whole, "fields": given}
    call = _call(row.config_class, {"task_type": TASK_TYPES[role], **given})
    return render("recipe.py", call=call, **values, **notes)


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
