"""How many bytes weights, gradients and optimiser states take, tensor by tensor."""

from collections import Counter

from peftmemory.configs import ModelConfig
from peftmemory.counts import (
    LLAMA_LIKE,
    base_parameters,
    block_linear,
    bottleneck_width,
    ia3_modules,
    linears,
    targets,
)
from peftmemory.methods import IA3, Bottleneck, Full, LayerNorm, Lora, Method, Prefix
from peftmemory.settings import WEIGHT_BYTES, Setting

BLOCK, SECOND_BLOCK = 64, 256  # NF4: weights per constant; constants per second constant
STATE_BLOCK, SMALLEST_8BIT = 256, 4096  # 8-bit AdamW


def nf4_bytes(weights: int, *, double_quant: bool) -> int:
    """Return the bytes of one NF4 matrix as bitsandbytes stores it, constants included.

    ``4 + 32/64`` bits per weight; with double quantisation ``4 + 8/64 + 32/(64 * 256)`` (Dettmers
    et al., 2023, section 3), and two small tables.
    """
    blocks, table = -(-weights // BLOCK), 16 * 4
    packed = (weights + 1) // 2
    if not double_quant:
        return packed + 4 * blocks + table
    return packed + blocks + 4 * -(-blocks // SECOND_BLOCK) + 256 * 4 + table + 4


def base_bytes(config: ModelConfig, setting: Setting) -> int:
    """Return the bytes of the model's own weights and of its rotary tables.

    In 4 bits only the layers' linear weights shrink: embeddings, output head and norms stay 16-bit
    (32-bit after ``prepare_model_for_kbit_training``).
    """
    tables = 2 * 4 * (config.head_dim // 2) if config.model_type in LLAMA_LIKE else 0
    if setting.precision != "nf4":
        return base_parameters(config) * WEIGHT_BYTES[setting.precision] + tables
    size = lambda each: nf4_bytes(each.d_in * each.d_out, double_quant=setting.double_quant)
    packed = sum(each.count * size(each) for each in linears(config))
    left = base_parameters(config) - block_linear(config)
    return packed + left * setting.stream_bytes + tables


def trained_bytes_each(method: Method, setting: Setting) -> int:
    """Return the bytes per trained parameter.

    PEFT keeps adapters in fp32 on a 16-bit base unless ``autocast_adapter_dtype=False``; virtual
    tokens always; a tuned norm is a copy in the base's dtype.
    """
    if isinstance(method, Full | LayerNorm):
        return setting.stream_bytes
    if hasattr(method, "num_virtual_tokens"):
        return 4
    return 4 if setting.autocast_adapter_dtype else setting.stream_bytes


def trained_tensors(config: ModelConfig, method: Method) -> Counter[int]:
    """Return the trained tensors as a count by number of elements."""
    h, n, kv = config.hidden_size, config.layers, config.kv_dim
    if isinstance(method, Full):
        return model_tensors(config)
    if isinstance(method, Lora):
        return lora_tensors(config, method)
    if isinstance(method, Prefix):
        virtual, out = method.num_virtual_tokens, 2 * n * kv
        if not method.prefix_projection:
            return Counter([virtual * out])
        inner = method.encoder_hidden_size or kv
        return Counter([virtual * kv, kv * inner, inner, inner * out, out])
    if isinstance(method, IA3):
        tensors: Counter[int] = Counter()
        for each in linears(config):
            if each.name in ia3_modules(config):
                tensors[each.d_in if each.name == "down_proj" else each.d_out] += each.count
        return tensors
    if isinstance(method, LayerNorm):
        return Counter({h: n if config.model_type == "qwen3" else 2 * n + 1})
    if isinstance(method, Bottleneck):
        m = bottleneck_width(config, method)
        adapters = n * (2 if method.placement == "houlsby" else 1)
        return Counter({h * m: 2 * adapters}) + Counter({m: adapters}) + Counter({h: adapters})
    return Counter([method.num_virtual_tokens * h])


def lora_tensors(config: ModelConfig, method: Lora) -> Counter[int]:
    """Return A, B and DoRA's magnitude of every target, as a count by number of elements."""
    tensors: Counter[int] = Counter()
    for each in targets(config, method):
        tensors[method.r * each.d_in] += each.count
        tensors[method.r * each.d_out] += each.count
        if method.use_dora:
            tensors[each.d_out] += each.count
    return tensors


def model_tensors(config: ModelConfig) -> Counter[int]:
    """Return all weights of a Llama-like model as a count by number of elements."""
    h, n = config.hidden_size, config.layers
    tensors = Counter({config.vocab_size * h: 1 if config.tied else 2})
    for each in linears(config):
        tensors[each.d_in * each.d_out] += each.count
    tensors[h] += 2 * n + 1
    if config.model_type == "qwen3":
        tensors[config.head_dim] += 2 * n
    return tensors


def optimizer_bytes(tensors: Counter[int], each: int, optimizer: str) -> int:
    """Return the bytes of the optimiser's states.

    AdamW (Loshchilov and Hutter, 2019): two moments in the parameter's dtype and a step count per
    tensor. 8-bit AdamW (Dettmers et al., 2022): two bytes per element and two constants per 256;
    tensors below 4,096 elements keep fp32 moments; two tables for all.

    Args:
        tensors: the trained tensors, as a count by number of elements.
        each: bytes per trained parameter.
        optimizer: the Trainer's name.
    """
    if optimizer != "adamw_8bit":
        return sum(count * (2 * size * each + 4) for size, count in tensors.items())
    total = 0
    for size, count in tensors.items():
        small = size < SMALLEST_8BIT
        total += count * (8 * size if small else 2 * size + 8 * -(-size // STATE_BLOCK))
    return total + (2 * 256 * 4 if max(tensors) >= SMALLEST_8BIT else 0)
