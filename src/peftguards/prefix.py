"""A prefix lives in the key-value cache: what it cannot live with."""

import torch
from torch import nn

from peftguards.errors import GuardError


def check_prefix(model: nn.Module, *, gradient_checkpointing: bool = False, use_cache: bool = True):
    """Refuse what a prefix cannot live with; on any other model, pass.

    The model is about to train, or in evaluation mode to generate; the options are what the training
    arguments and the call of ``generate`` say. If it is to keep no cache, generating is tried out.
    """
    config = getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", None))
    if getattr(config, "peft_type", None) not in ("PREFIX_TUNING", "CARTRIDGE"):
        return
    modules = model.get_base_model().modules()
    recomputes = any(getattr(m, "gradient_checkpointing", False) and m.training for m in modules)
    if gradient_checkpointing or recomputes:
        raise GuardError(
            "A prefix lives in the key-value cache, and gradient checkpointing recomputes layers "
            "without one: set gradient_checkpointing=False, or take a method without a cache."
        )
    settings = getattr(model, "generation_config", None)  # a classifier has none
    off = not use_cache or (not model.training and getattr(settings, "use_cache", None) is False)
    if settings and off and not _works_without_cache(model):
        raise GuardError(
            "A prefix lives in the key-value cache, and this model is told to keep none: "
            "set use_cache=True."
        )


def _works_without_cache(model: nn.Module) -> bool:
    """Tell whether a model with a prefix can generate without a cache; a Llama, for one, breaks."""
    ids = torch.tensor([[3]], device=model.device)
    try:
        model.generate(input_ids=ids, max_new_tokens=2, do_sample=False, use_cache=False)
    except RuntimeError:
        return False
    return not model.config.is_encoder_decoder  # peft gives it the prefix for the first token alone
