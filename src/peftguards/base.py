"""Is this the base that the adapter was trained on? A fingerprint of every weight answers."""

import json
from pathlib import Path

from torch import nn

from peftguards.errors import GuardError
from peftguards.files import brought_whole, check_keys
from peftguards.weights import base_weights, describe, same

FINGERPRINT = "base_fingerprint.json"
# Starts of LoRA that subtract from the base what they put into the adapter.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def fingerprint(model: nn.Module) -> dict[str, dict]:
    """Describe every weight of a base model, with or without adapters around it.

    A base is known again in another format: among 32 and 16 bits by hashes of all its values, as
    far as the coarser format can tell; with 4 or 8 bits, or with bfloat16 against float16, by sums
    over 64 blocks, which notice another model, zeroed weights, and a merge that changed many weights
    by 1 % or more (3 % with 8 bits). Every value is read once: for 10⁹ weights 11 s of one CPU in
    float32, 8 s in bfloat16, measured; the file has about 0.9 kB for each weight.

    Returns:
        ``{name: entry}``. An entry that could not be read says why under ``unread``; it has a shape
        alone, and ``brought``, where an adapter trains the weight or replaces it.
    """
    adapted = hasattr(model, "peft_config")
    return {
        name: {"shape": list(tensor.shape), "brought": True}
        if replaced or (adapted and tensor.requires_grad)
        else describe(module, name.rpartition(".")[2], tensor)
        for name, (module, tensor, replaced) in base_weights(model).items()
    }


def sign(folder: str | Path, model: nn.Module) -> None:
    """Write the base model's fingerprint beside a saved adapter.

    Of what the adapter's file brings along, such as a head, trained biases, or embeddings that were
    resized, the shape alone is kept.

    Raises:
        GuardError: an adapter is merged at the moment, or took a part of the base as it started;
            there is a weight that cannot be read.
    """
    if any(getattr(module, "merged", False) is True for module in model.modules()):
        raise GuardError("The base holds a merged adapter: call unmerge_adapter() before signing.")
    for config in getattr(model, "peft_config", {}).values():
        start = getattr(config, "init_lora_weights", None)
        if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
            raise GuardError(
                f"The start {start!r} took a part of the base's weights into the adapter: sign with a "
                f"freshly loaded base, sign(folder, base)."
            )
    entries = fingerprint(model)
    for name in entries.keys() & brought_whole(folder):
        entries[name] = {key: entries[name].get(key, True) for key in ("shape", "brought")}
    _refuse_unread({n: e["unread"] for n, e in entries.items() if "unread" in e}, entries)
    text = json.dumps({"weights": entries}) + "\n"
    (Path(folder) / FINGERPRINT).write_text(text, encoding="utf-8")


def _refuse_unread(unread: dict[str, str], entries: dict) -> None:
    """Say which weights could not be read, if there are any."""
    if unread:
        name, why = next(iter(unread.items()))
        raise GuardError(
            f"{len(unread)} of {len(entries)} weights of the base could not be checked, the first is "
            f"{name}: {why}; load the base in 32 or 16 bits or in NF4, and check again."
        )


def _signed(file: Path) -> dict[str, dict]:
    """Read a signature."""
    if not file.is_file():
        raise GuardError(
            f"{file.parent.name} has no {FINGERPRINT}: call peftguards.sign when saving."
        )
    try:
        signed = json.loads(file.read_text(encoding="utf-8"))["weights"]
        whole = ({"shape", "brought"}, {"format", "shape", "hash", "sums"})
        if all(any(keys <= set(entry) for keys in whole) for entry in signed.values()):
            return signed
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise GuardError(
        f"{FINGERPRINT} in {file.parent.name} is damaged, or of an older version: load the base that "
        f"the adapter was trained on, and sign again."
    )


def check_base(folder: str | Path, model: nn.Module) -> None:
    """Compare an adapter's signature, and its keys, with the model it is about to be loaded on.

    Raises:
        GuardError: the folder has no signature, or an old one; the adapter was trained on another
            base; weights could not be compared; the adapter's keys do not fit this base.
    """
    file = Path(folder) / FINGERPRINT
    signed, here = _signed(file), fingerprint(model)
    pairs = {n: (signed[n], here[n]) for n in signed if n in here}
    unread = {n: new["unread"] for n, (_, new) in pairs.items() if "unread" in new}
    verdicts = {n: same(*pair) for n, pair in pairs.items() if n not in unread}
    wrong = [n for n in signed | here if n not in signed or n not in here]
    wrong += [n for n, verdict in verdicts.items() if verdict is False]
    if wrong:
        raise GuardError(
            f"The adapter in {file.parent.name} was trained on another base model: {len(wrong)} of "
            f"{len(signed)} weights differ, the first is {wrong[0]}{_hint(wrong, signed, here)}; "
            f"load the base that it was trained on, with no other adapter merged into it."
        )
    unread |= {n: "in formats that cannot be compared" for n, v in verdicts.items() if v is None}
    _refuse_unread(unread, signed)
    if not hasattr(model, "peft_config"):  # else it may wear another adapter: see check_adapter
        check_keys(folder, model)


def _hint(wrong: list[str], signed: dict, here: dict) -> str:
    """Return what the differing weights suggest about the other base."""
    first, now = signed.get(wrong[0]), here.get(wrong[0])
    if wrong[0] not in here:
        return ", which this model does not have"
    if wrong[0] not in signed:
        return ", which that base did not have"
    if first["shape"] != now["shape"]:
        hint = f" ({first['shape']} there, {now['shape']} here"
        if "embed" in wrong[0] or "lm_head" in wrong[0]:
            hint += (
                f": if tokens were added, call resize_token_embeddings({first['shape'][0]}) first"
            )
        return f"{hint})"
    if len(wrong) < len(signed) and all(len(signed[name]["shape"]) > 1 for name in wrong):
        return " (only matrices differ, as after a merge)"
    return ""
