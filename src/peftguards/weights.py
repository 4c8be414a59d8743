"""A base's weights by name, inside whatever wraps them, and what one weight is known again by."""

import base64
import hashlib
import re

import numpy as np
import torch
from torch import nn

BLOCK = 64  # neighbouring weights that NF4 scales together; as many blocks are looked at
# Formats beside floats that can be compared with them, by which sums, and the largest change that they explain:
# rounding to 16 bits, to NF4 twice, to 8 bits.
COMPARED = (((), "plain", 0.005), ((f"nf4 {BLOCK}",), "nf4", 0.05), (("int8",), "plain", 0.03))


def digest(tensor: torch.Tensor) -> str:
    """Return a hash of a tensor's bytes, whatever its dtype; an empty one if it is offloaded."""
    if tensor.is_meta:
        return ""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(data.numpy(), digest_size=16).hexdigest()


def plain_name(key: str) -> str:
    """Return the name that a weight in an adapter's file has in the base, without wrappers."""
    key = key.removeprefix("base_model.model.")
    return re.sub(r"\.(token_adapter|base_layer|modules_to_save|original_module)(?=\.)", "", key)


def base_weights(model: nn.Module, path: str = "") -> dict[str, tuple]:
    """Return a base's weights by the names they have without adapters or wrappers around them.

    Returns:
        ``{name: (module, weight, replaced)}``; replaced where an adapter brings a trained copy.
    """
    from peft.utils import ModulesToSaveWrapper

    copied = isinstance(model, ModulesToSaveWrapper)
    while (inner := _inside(model)) is not None:
        model = inner
    own = dict(model._parameters)
    if not hasattr(model, "running_mean"):  # statistics move whenever a batch norm is in training
        kept = set(model._buffers) - model._non_persistent_buffers_set
        own |= {name: model._buffers[name] for name in kept}
    found = {path + n: (model, t, copied) for n, t in own.items() if t is not None}
    for name, child in model.named_children():
        inside = base_weights(child, f"{path}{name}.")
        found |= {n: (owner, t, copied or below) for n, (owner, t, below) in inside.items()}
    return found


def _inside(module: nn.Module) -> nn.Module | None:
    """Return what a wrapper wraps; None if this is no wrapper."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    if hasattr(module, "get_base_model"):
        return module.get_base_model()
    if isinstance(module, AuxiliaryTrainingWrapper):
        return module.original_module
    if isinstance(module, BaseTunerLayer):
        return module.get_base_layer()
    if hasattr(module, "adaption_prompt"):  # a LLaMA-Adapter's attention
        return module.model
    if list(module._modules) in (["_orig_mod"], ["module"]):  # compiled, distributed
        return next(iter(module._modules.values()))
    return None


def _loaded(module: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
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


def _read(module: nn.Module, tensor: torch.Tensor) -> tuple[str, torch.Tensor, bool]:
    """Return a weight's format, its values, and whether those are what it stands for."""
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        return f"{state.quant_type} {state.blocksize}", dequantize_4bit(tensor.data, state), True
    if tensor.dtype == torch.int8:
        scales = getattr(tensor, "SCB", None)
        scales = getattr(getattr(module, "state", None), "SCB", None) if scales is None else scales
        known = scales is not None
        return "int8", tensor.float() * scales[:, None] / 127 if known else tensor, known
    if type(tensor) not in (nn.Parameter, torch.Tensor, nn.Buffer):  # torchao's, for instance
        return type(tensor).__name__, getattr(tensor, "dequantize", tensor.detach)(), True
    values, known = tensor.detach(), tensor.is_floating_point() and tensor.itemsize > 1
    turned = type(module).__name__ == "Conv1D" and values.dim() == 2
    return str(tensor.dtype).removeprefix("torch."), values.T if turned else values, known


def describe(module: nn.Module, name: str, tensor: torch.Tensor) -> dict:
    """Return one weight's entry of a fingerprint: format, shape, hashes, sums over 64 blocks.

    Sums are of the values as they are and, for matrices, as NF4 would hold them, so that bases in 4
    bits can be compared with others.
    """
    shape, tensor = list(tensor.shape), _loaded(module, name, tensor)
    if tensor is None:
        return {"shape": shape, "unread": "it has no values here (meta device)"}
    if getattr(getattr(tensor, "quant_state", None), "packing_format_for_cpu", False):
        return {"shape": shape, "unread": "an evaluation on this CPU has packed it"}
    kind, values, known = _read(module, tensor)
    entry = {
        "format": kind,
        "shape": list(values.shape),
        "hash": {kind: digest(values)},
        "sums": {},
    }
    if not known:
        return entry
    if "16" in kind or kind == "float32":
        entry["hash"] = {str(d)[6:]: digest(values.to(d)) for d in (torch.bfloat16, torch.float16)}
    flat, count = values.flatten(), values.numel() // BLOCK
    starts = BLOCK * torch.linspace(0, max(count - 1, 0), BLOCK).long()
    index = (starts[:, None] + torch.arange(min(len(flat), BLOCK))).to(flat.device)
    some = flat[index].float().cpu()
    entry["sums"]["plain"] = _pack(some)
    if values.dim() > 1:  # else no loader quantises it
        entry["sums"]["nf4"] = _pack(_as_nf4(some))
    return entry


def _pack(blocks: torch.Tensor) -> str:
    """Return the sum of blocks as text."""
    return base64.b64encode(blocks.sum(0).numpy().astype("<f4").tobytes()).decode()


def _as_nf4(blocks: torch.Tensor) -> torch.Tensor:
    """Return what NF4 would keep of blocks of float32 values, its scales rounded to bfloat16 first.

    Values that are in NF4 already stay as they are, but for the rounding.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    return dequantize_4bit(*quantize_4bit(blocks.bfloat16().float(), quant_type="nf4"))


def same(old: dict, new: dict) -> bool | None:
    """Tell whether two entries are of one weight, in whatever formats; None where none can tell."""
    if old["shape"] != new["shape"]:
        return False
    if "brought" in old | new:
        return True
    if any(old["hash"][kind] == new["hash"].get(kind) for kind in old["hash"]):
        return True
    kinds = {old["format"], new["format"]}
    if kinds <= {"float32", "bfloat16"}:
        return False
    for more, which, noise in COMPARED:
        if kinds <= {"float32", "bfloat16", "float16", *more}:
            both = which in old["sums"] and which in new["sums"]
            return _near(old, new, which, noise) if both else None
    return False if len(kinds) == 1 else None


def _near(old: dict, new: dict, which: str, noise: float) -> bool:
    """Tell whether the sums of two entries differ by no more than their formats explain."""
    before, after = (np.frombuffer(base64.b64decode(e["sums"][which]), "<f4") for e in (old, new))
    return bool(np.linalg.norm(after - before) <= noise * np.linalg.norm(before))
