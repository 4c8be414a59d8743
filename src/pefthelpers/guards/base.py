"""Is this the base that the adapter was trained on? A fingerprint of every frozen weight answers."""

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pefthelpers.errors import UserError
from pefthelpers.guards.files import check_keys

FINGERPRINT = "base_fingerprint.json"
FLOATS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
NOISE = {
    "4bit": 0.25,
    "int8": 0.03,
}  # largest error of a sample that quantising explains; else 0.01
BLOCK = 64  # neighbouring weights per sampled block, the blocks of NF4


def digest(tensor: torch.Tensor) -> str:
    """Return a hash of a tensor's bytes, whatever its dtype; an empty one if it is offloaded."""
    if tensor.is_meta:
        return ""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(data.numpy()).hexdigest()[:32]


def base_weights(
    model: nn.Module, path: str = ""
) -> dict[str, tuple[nn.Module, torch.Tensor, bool]]:
    """Return a base's weights by the names they have without adapters or wrappers around them.

    Returns:
        ``{name: (module, weight, replaced)}``; replaced where an adapter brings a trained copy.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    copied = isinstance(model, ModulesToSaveWrapper)
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(model, AuxiliaryTrainingWrapper):
            model = model.original_module
        elif isinstance(model, BaseTunerLayer):
            model = model.get_base_layer()
        elif hasattr(model, "adaption_prompt"):  # a LLaMA-Adapter's attention
            model = model.model
        elif list(model._modules) in (["_orig_mod"], ["module"]):  # compiled, distributed
            model = next(iter(model._modules.values()))
        else:
            break
    own = dict(model._parameters)
    if not hasattr(model, "running_mean"):  # statistics move whenever a batch norm is in training
        own |= {
            n: b for n, b in model._buffers.items() if n not in model._non_persistent_buffers_set
        }
    found = {path + n: (model, t, copied) for n, t in own.items() if t is not None}
    for name, child in model.named_children():
        inside = base_weights(child, f"{path}{name}.")
        found |= {n: (owner, t, copied or below) for n, (owner, t, below) in inside.items()}
    return found


def _offloaded(module: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a tensor's values, from where accelerate keeps them if need be; None if nowhere."""
    if not tensor.is_meta:
        return tensor
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        try:
            return one.weights_map[name]
        except (AttributeError, TypeError, KeyError):
            continue
    return None


def _read(module: nn.Module, tensor: torch.Tensor) -> tuple[str, torch.Tensor, torch.Tensor | None]:
    """Return a weight's format, its stored values, and what they stand for in float32 (or None)."""
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        values = dequantize_4bit(tensor.data, state).float().reshape(state.shape)
        return f"4bit {state.quant_type} {state.blocksize}", tensor.data, values
    if tensor.dtype == torch.int8:
        scales = getattr(tensor, "SCB", None)
        scales = getattr(getattr(module, "state", None), "SCB", None) if scales is None else scales
        return "int8", tensor, None if scales is None else tensor * scales[:, None] / 127
    if type(tensor) not in (nn.Parameter, torch.Tensor) and hasattr(tensor, "dequantize"):
        tensor = tensor.dequantize()  # torchao
    if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
        return str(tensor.dtype), tensor, None
    values = tensor.detach().float()
    values = values.T if type(module).__name__ == "Conv1D" and values.dim() == 2 else values
    dtypes = FLOATS.items()
    exact = [n for n, dtype in dtypes if torch.equal(values.to(dtype).float(), values)]
    return (exact or ["float32"])[0], values, values


def _describe(module: nn.Module, name: str, tensor: torch.Tensor) -> dict:
    """Return one weight's entry of a fingerprint."""
    tensor = _offloaded(module, name, tensor)
    if tensor is None:
        return {"unread": "no values here (meta device)"}
    if getattr(getattr(tensor, "quant_state", None), "packing_format_for_cpu", False):
        return {"unread": "packed by an evaluation on this CPU"}
    kind, stored, values = _read(module, tensor)
    entry = {"format": kind, "shape": list((stored if values is None else values).shape)}
    if kind not in FLOATS:
        entry["hash"] = {kind: digest(stored)}
    else:
        entry["hash"] = {
            name: digest(values.to(dtype))
            for name, dtype in FLOATS.items()
            if name != "float32" or kind == name
        }
    if values is not None:
        flat, count = values.reshape(-1), values.numel() // BLOCK
        starts = sorted({i * count // 4 * BLOCK for i in range(4)})
        sample = torch.cat([flat[start : start + BLOCK] for start in starts]).cpu().numpy()
        entry["sample"] = base64.b64encode(sample.astype("<f4").tobytes()).decode()
    return entry


def fingerprint(model: nn.Module) -> dict[str, dict]:
    """Describe every weight of a base model, with or without adapters around it.

    Each weight has its shape, its format, hashes of all its values as bfloat16, float16 and, if they
    need it, float32 (or of its quantised bytes), and 256 of its values. So a base is known again in
    another format: exactly among floats; in 4 and 8 bits by the sample, which notices other or
    zeroed weights and, in NF4, a merged correction from 3 % of a weight's size. Every weight is read
    once: 15 s of CPU time per 10⁹ float32 weights, measured, and 1.6 kB in the file per weight.

    Returns:
        ``{name: entry}``; an entry that could not be read says why under ``unread``.
    """
    return {
        name: _describe(module, name.rpartition(".")[2], tensor)
        for name, (module, tensor, _) in base_weights(model).items()
    }


def sign(folder: str | Path, model: nn.Module) -> None:
    """Write the base model's fingerprint beside a saved adapter.

    Left out is what the adapter replaces or trains in place: copies of a head or of embeddings, and
    biases.

    Raises:
        UserError: the adapter is merged at the moment; there is a weight that cannot be read.
    """
    if any(getattr(module, "merged", False) is True for module in model.modules()):
        raise UserError("The adapter is merged into the base: call unmerge_adapter() before sign.")
    adapted = hasattr(model, "peft_config")
    ours = {
        name
        for name, (_, tensor, replaced) in base_weights(model).items()
        if adapted and (replaced or tensor.requires_grad)
    }
    entries = {name: entry for name, entry in fingerprint(model).items() if name not in ours}
    _refuse_unread({n: e["unread"] for n, e in entries.items() if "unread" in e}, len(entries))
    (Path(folder) / FINGERPRINT).write_text(json.dumps({"weights": entries}) + "\n")


def _refuse_unread(unread: dict[str, str], total: int) -> None:
    """Say which weights could not be read, if there are any."""
    if unread:
        name, why = next(iter(unread.items()))
        raise UserError(
            f"{len(unread)} of {total} weights of the base could not be checked, the first is {name}: "
            f"{why}; load the base in floating point, not quantised or offloaded, and check again."
        )


def _same(old: dict, new: dict) -> bool | None:
    """Tell whether two entries are of one weight, in whatever formats; None where none can tell."""
    kinds = {old["format"], new["format"]}
    if old["shape"] != new["shape"] and all(kind in FLOATS or kind[:4] == "4bit" for kind in kinds):
        return False
    common = kinds & set(old["hash"]) & set(new["hash"])
    if any(old["hash"][kind] == new["hash"][kind] for kind in common):
        return True
    if kinds <= set(FLOATS) and kinds != {"bfloat16", "float16"}:
        return False
    if "sample" not in old or "sample" not in new:
        return False if len(kinds) == 1 else None
    old_values, new_values = (
        np.frombuffer(base64.b64decode(entry["sample"]), "<f4") for entry in (old, new)
    )
    noise = max(NOISE.get(kind.split()[0], 0.01) for kind in kinds)
    if np.linalg.norm(old_values - new_values) > noise * np.linalg.norm(old_values):
        return False
    four_bit = next((kind for kind in kinds if kind.endswith(f" {BLOCK}")), None)
    if four_bit is None or len(old_values) % BLOCK:
        return True
    return bool(np.mean(_codes(four_bit, old_values) != _codes(four_bit, new_values)) < 0.05)


def _codes(kind: str, values: np.ndarray) -> np.ndarray:
    """Return the 4-bit code of each value, by blocks of 64."""
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type(kind.split()[1], device="cpu").numpy()
    blocks = values.reshape(-1, BLOCK)
    scaled = blocks / np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-30)
    return np.abs(scaled[:, :, None] - levels).argmin(axis=-1)


def check_base(folder: str | Path, model: nn.Module) -> None:
    """Compare an adapter's signature and its keys with the model it is about to be loaded on.

    Raises:
        UserError: the folder has no signature, or an old one; the adapter was trained on another
            base; weights could not be compared; the adapter's keys do not fit this base.
    """
    file = Path(folder) / FINGERPRINT
    if not file.is_file():
        raise UserError(f"{file.parent.name} has no {FINGERPRINT}: call guards.sign when saving.")
    try:
        signed = json.loads(file.read_text())["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{FINGERPRINT} in {file.parent.name} is damaged, or of an older version that did not "
            f"cover linear weights: load the base that the adapter was trained on, and sign again."
        ) from error
    here, absent = fingerprint(model), {"unread": "this model has no weight of that name"}
    unread = {n: e["unread"] for n in signed if "unread" in (e := here.get(n, absent))}
    verdicts = {n: _same(e, here[n]) for n, e in signed.items() if n not in unread}
    wrong = [n for n in signed if n not in here or verdicts.get(n) is False]
    if wrong:
        raise UserError(
            f"The adapter in {file.parent.name} was trained on another base model: {len(wrong)} of "
            f"{len(signed)} weights differ, the first is {wrong[0]}{_hint(wrong, signed, here)}; "
            f"load the base that it was trained on."
        )
    unread |= {n: "in formats that cannot be compared" for n, v in verdicts.items() if v is None}
    _refuse_unread(unread, len(signed))
    if not hasattr(model, "peft_config"):  # else: check_adapter
        check_keys(folder, model)


def _hint(wrong: list[str], signed: dict, here: dict) -> str:
    """Return what the differing weights suggest about the other base."""
    first, now = signed[wrong[0]], here.get(wrong[0])
    if now is None:
        return ", which this model does not have"
    if first["shape"] != now["shape"]:
        return f" ({first['shape']} there, {now['shape']} here: were tokens added?)"
    if any(len(signed[name]["shape"]) < 2 for name in wrong) or len(wrong) == len(signed):
        return ": shapes fit, answers would not"
    return ": only matrices differ, as after a merge or with a new head"
