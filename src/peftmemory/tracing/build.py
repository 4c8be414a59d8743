"""A model with its real PEFT configuration and no values: on meta, then on fake tensors."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn

from peftmemory.configs import ModelConfig
from peftmemory.errors import EstimateError
from peftmemory.methods import KINDS, Full, Method, read_method
from peftmemory.settings import StepSetting
from peftmemory.tracing.heads import HEADS, head_of, hf_config
from peftmemory.tracing.refusals import (
    check_positions,
    check_rank,
    check_targets,
    in_one_sentence,
)

# LoRA's starts that are worked out from the base's values.
READ_WEIGHTS = ("pissa", "olora", "loftq", "corda", "lora_ga", "eva")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_model(
    config: ModelConfig,
    method: Any,
    setting: StepSetting,
    *,
    device: str = "meta",
    quantise: Callable | None = None,
) -> nn.Module:
    """Return the model wrapped by PEFT, in training mode.

    Args:
        config: the model's shape.
        method: a real PEFT configuration, a light description or a name.
        setting: decides dtypes, quantisation, attention and checkpointing.
        device: ``"meta"``, or ``"cpu"`` for real tensors with random values.
        quantise: what puts linear maps in 4 bits; the default puts stand-ins, for meta, there.
    """
    model = build_base(config, setting, device=device)
    return adapt(model, config, method, setting, quantise=quantise)


def adapt(
    model: nn.Module,
    config: ModelConfig,
    method: Any,
    setting: StepSetting,
    *,
    quantise: Callable | None = None,
) -> nn.Module:
    """Return what ``build_model`` returns, out of a bare model."""
    peft_config = to_peft(config, method, HEADS[head_of(config, setting)].task)
    if setting.precision == "nf4":
        with in_one_sentence("bitsandbytes", config):
            quantise_base(model, setting, quantise)
    if peft_config is not None:
        model = wrap(model, config, peft_config, setting)
    if setting.checkpointing:
        again = {"use_reentrant": False, **selective(setting)}
        with in_one_sentence("transformers", config):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=again)
            if peft_config is not None:
                model.enable_input_require_grads()
    if setting.loss != "plain":
        use_own_loss(model, setting.loss)
    return model.train()


def build_base(config: ModelConfig, setting: StepSetting, *, device: str) -> nn.Module:
    """Return the bare model in the setting's dtype, on ``device``.

    Raises:
        EstimateError: transformers does not know the family, the head or the attention.
    """
    import transformers

    dtype = DTYPES.get(setting.precision, torch.bfloat16)
    kind = getattr(transformers, f"AutoModelFor{HEADS[head_of(config, setting)].auto}")
    with in_one_sentence("transformers", config), torch.device(device):
        raw = hf_config(config, dtype)
        if not raw.is_encoder_decoder:
            raw.use_cache = False
        # The CPU has no flash attention package: the same bytes, since no mask is built.
        attention = "eager" if setting.attention == "eager" else "sdpa"
        options = {"attn_implementation": attention, "dtype": dtype}
        model = kind.from_config(raw, **options)
    check_positions(model, config, setting.seq)
    return model


def quantise_base(model: nn.Module, setting: StepSetting, quantise: Callable | None) -> None:
    """Put the layers' linear maps in 4 bits."""
    from peftmemory.tracing import four_bit

    quantise = quantise or four_bit.quantise
    quantise(model, compute_dtype=torch.bfloat16, double_quant=setting.double_quant)
    if setting.prepare_kbit:
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def to_peft(config: ModelConfig, method: Any, task: str | None) -> Any:
    """Return a real PEFT configuration, or None for full fine-tuning."""
    if hasattr(method, "peft_type"):
        made = copy.deepcopy(method)  # PEFT fills in the model's own targets and widths
        if str(getattr(made, "init_lora_weights", "")).lower().startswith(READ_WEIGHTS):
            made.init_lora_weights = True  # the same shapes, and nothing is read
        return made
    described: Method = read_method(method)
    if isinstance(described, Full):
        return None
    values = asdict(described)
    if isinstance(values.get("target_modules"), tuple):
        values["target_modules"] = list(values["target_modules"])
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(KINDS[type(described)][1])
    if kind is None:  # adapters come from outside: known once they are registered
        raise EstimateError("Adapters are traced after `import peftbottleneck`: PEFT has none.")
    return kind(task_type=task, **values)


def wrap(
    model: nn.Module, config: ModelConfig, peft_config: Any, setting: StepSetting
) -> nn.Module:
    """Put the method on the model.

    Raises:
        EstimateError: PEFT refuses it, or a target fits no module.
    """
    from peft import get_peft_model

    check_targets(model, config, getattr(peft_config, "target_modules", None))
    if peft_config.peft_type == "LORA":  # others' r may be above the widths
        check_rank(model, config, peft_config.r)
    # Else PEFT draws adapters on the CPU before they move. On meta it would leave them in fp32,
    # which is right only where it makes them fp32 in the end.
    fp32 = setting.autocast_adapter_dtype
    draw_nothing = next(model.parameters()).is_meta and fp32
    options = {"autocast_adapter_dtype": fp32, "low_cpu_mem_usage": draw_nothing}
    with in_one_sentence("PEFT", config):
        wrapped = get_peft_model(model, peft_config, **options)
    if setting.precision == "nf4" and not fp32:
        cast_adapters(wrapped)
    return wrapped


def cast_adapters(model: nn.Module) -> None:
    """Cast adapters to bf16, as TRL does on a quantised base (PEFT alone leaves them in fp32)."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "prompt_encoder" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)


def selective(setting: StepSetting) -> dict[str, Any]:
    """Return what tells checkpointing to keep the fused attention's output, as TRL does."""
    if setting.recompute != "selective":
        return {}
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    kept = (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,)

    def policy(context, operation, *args, **kwargs):
        keep = operation in kept
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    return {"context_fn": partial(create_selective_checkpoint_contexts, policy)}


def use_own_loss(model: nn.Module, loss: str) -> None:
    """Let the model return hidden states: these losses apply the output head themselves."""
    head = getattr(model, "lm_head", None)
    if not isinstance(head, nn.Linear):
        raise EstimateError(
            f"The {loss} loss needs a model with an output head: take loss='plain'."
        )
    model.set_output_embeddings(nn.Identity())
    model.lm_head.weight = head.weight  # still tied to the embedding if it was


def materialise(model: nn.Module) -> None:
    """Replace meta tensors by tensors of the current mode: fake ones inside a fake mode.

    PEFT cannot wrap a model whose tensors are fake already (``Module._apply`` cannot swap them).
    Tied parameters stay tied.
    """
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, nn.Parameter):
                        empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
                        for hook in (tensor._backward_hooks or {}).values():
                            empty.register_hook(hook)
                    # The old tensor is kept too, or its id could be given to another.
                    made[id(tensor)], made[-id(tensor)] = empty, tensor
                store[name] = made[id(tensor)]
