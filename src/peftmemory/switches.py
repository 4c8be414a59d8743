"""What each switch of a step is worth: the same step with one thing changed at a time."""

from typing import Any

from peftmemory.advice import peak_of
from peftmemory.configs import load_config
from peftmemory.constants import GIB
from peftmemory.errors import EstimateError
from peftmemory.estimate import by_formula_alone
from peftmemory.methods import read_method
from peftmemory.optimizers import OPTIMIZERS
from peftmemory.settings import CHOICES, StepSetting, read_setting

NO_MASK = {"padding": False, "packing": False}
# Column by column: what stands in it, and the fields of the step that it means.
COLUMNS: dict[str, dict[str, dict[str, Any]]] = {
    "optimizer": {name: {"optimizer": name} for name in OPTIMIZERS},
    "loss": {name: {"loss": name} for name in CHOICES["loss"]},
    "attention": {
        name.removesuffix("_attention_2"): {"attention": name} for name in CHOICES["attention"]
    },
    "recomputes": {"nothing": {"checkpointing": False, "recompute": "layers"}}
    | {kind: {"checkpointing": True, "recompute": kind} for kind in CHOICES["recompute"]},
    "rows": {
        "equal": NO_MASK,
        "padded": NO_MASK | {"padding": True},
        "packed": NO_MASK | {"packing": True},
    },
    "autocast": {"no": {"autocast": False}, "bf16": {"autocast": True}},
    "prepared": {"no": {"prepare_kbit": False}, "yes": {"prepare_kbit": True}},
    "adapters": {
        "fp32": {"autocast_adapter_dtype": True},
        "16-bit": {"autocast_adapter_dtype": False},
    },
    "outputs": {"kept": {"free_outputs": False}, "freed": {"free_outputs": True}},
}


def named_as(setting: StepSetting, column: str) -> str:
    """Return what stands in a column for a setting."""
    holds = lambda fields: all(getattr(setting, name) == value for name, value in fields.items())
    return next((word for word, fields in COLUMNS[column].items() if holds(fields)), "both")


def switches(model: Any, method: Any = "full", **step: Any) -> list[dict[str, Any]]:
    """Return a row for the step as it is, and one for each change of one column.

    Args:
        model: what ``load_config`` takes.
        method: a PEFT configuration, a light description, or a name such as ``"full"``.
        step: batch, seq and the other fields of ``StepSetting``.

    Returns:
        Rows with ``peak_gib`` and a word for each of ``COLUMNS``; what cannot be is left out.

    Raises:
        EstimateError: the step itself has no formula or cannot be.
    """
    config, described, now = load_config(model), read_method(method), read_setting(**step)
    rows = [row(by_formula_alone(config, described, now).peak, now)]
    for column, words in COLUMNS.items():
        for word, fields in words.items():
            if word == named_as(now, column):
                continue
            try:
                setting = read_setting(**step | fields)
                rows.append(row(peak_of(config, described, setting), setting))
            except EstimateError:
                continue
    return rows


def row(peak: int, setting: StepSetting) -> dict[str, Any]:
    """Return a setting's row."""
    return {"peak_gib": peak / GIB, **{column: named_as(setting, column) for column in COLUMNS}}


def as_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as lines: the step as it is, then only what is changed, a dot for the rest."""
    wide = {name: max(len(name), *map(len, words)) + 2 for name, words in COLUMNS.items()}
    head = f"{'peak GiB':>9}{'change':>8}  " + "".join(f"{n:{w}}" for n, w in wide.items())
    first, lines = rows[0], [head.rstrip()]
    for each in rows:
        change = "" if each is first else f"{each['peak_gib'] - first['peak_gib']:+.1f}"
        words = {n: each[n] if each is first or each[n] != first[n] else "." for n in COLUMNS}
        cells = "".join(f"{word:{wide[name]}}" for name, word in words.items())
        lines.append(f"{each['peak_gib']:9.1f}{change:>8}  {cells}".rstrip())
    return lines
