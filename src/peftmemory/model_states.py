"""How many bytes weights, gradients and optimiser states take, tensor by tensor."""

from peftmemory import constants
from peftmemory.configs import LLAMA_LIKE, ModelConfig
from peftmemory.counts import base_parameters, block_linear, linears
from peftmemory.methods import Full, LayerNorm, Method
from peftmemory.settings import WEIGHT_BYTES, StepSetting


def nf4_tensors(weights: int, *, double_quant: bool) -> dict[str, tuple[int, int]]:
    """Return the tensors of one NF4 matrix as bitsandbytes stores it: elements and bytes of each.

    ``4 + 32/64`` bits per weight; with double quantisation ``4 + 8/64 + 32/(64 * 256)`` (Dettmers
    et al., 2023, section 3), and two small tables.
    """
    blocks = -(-weights // constants.NF4_BLOCK)
    tensors = {"packed": ((weights + 1) // 2, 1), "code": (constants.NF4_CODES, 4)}
    if not double_quant:
        return tensors | {"constants": (blocks, 4)}
    second = {
        "second": (-(-blocks // constants.NF4_SECOND_BLOCK), 4),
        "second_code": (constants.BYTE_CODES, 4),
    }
    return tensors | {"constants": (blocks, 1), **second, "mean": (1, 4)}


def nf4_bytes(weights: int, *, double_quant: bool) -> int:
    """Return the bytes of one NF4 matrix, constants included."""
    tensors = nf4_tensors(weights, double_quant=double_quant)
    return sum(elements * each for elements, each in tensors.values())


def base_bytes(config: ModelConfig, setting: StepSetting) -> int:
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


def trained_bytes_each(method: Method, setting: StepSetting) -> int:
    """Return the bytes per trained parameter.

    PEFT keeps adapters in fp32 on a 16-bit base unless ``autocast_adapter_dtype=False``; virtual
    tokens always; a tuned norm is a copy in the base's dtype.
    """
    if isinstance(method, Full | LayerNorm):
        return setting.stream_bytes
    fp32 = setting.autocast_adapter_dtype or hasattr(method, "num_virtual_tokens")
    return 4 if fp32 else setting.adapter_bytes
