"""How many bytes the whole forward pass keeps for the backward pass, and from which tensors."""

from collections import Counter

from peftmemory.activations import Kept, Layer
from peftmemory.configs import ModelConfig
from peftmemory.methods import Full, Method, Prefix, Prompt
from peftmemory.settings import Setting


def rows(method: Method, setting: Setting) -> int:
    """Return the positions the layers work on: prompt tuning's virtual tokens are among them."""
    virtual = method.num_virtual_tokens if isinstance(method, Prompt) else 0
    return setting.batch * (setting.seq + virtual)


def enters_with_gradient(method: Method, setting: Setting) -> bool:
    """Tell whether the first layer's input needs a gradient.

    It does if the embedding is trained, if virtual tokens stand in it, and under gradient
    checkpointing, where ``enable_input_require_grads`` makes it.
    """
    return isinstance(method, Full | Prompt) or setting.checkpointing


def layers_kept(config: ModelConfig, method: Method, setting: Setting) -> tuple[Kept, Kept]:
    """Return what the first layer keeps and what each of the others keeps."""
    layer = Layer(config, method, setting)
    first = layer.keeps(grad_in=enters_with_gradient(method, setting))
    return first, layer.keeps(grad_in=True)


def saved_activations(config: ModelConfig, method: Method, setting: Setting) -> dict[str, int]:
    """Return the bytes autograd keeps after the forward pass, by kind, to the byte.

    Counted are the tensors that autograd saves, without the parameters and the batch itself.
    With gradient checkpointing a layer keeps its input alone, ``e h`` bytes per token.

    Returns:
        Bytes of ``norms``, ``linear inputs``, ``attention``, ``mlp``, ``adapters``, ``layer
        inputs`` (checkpointing), ``weight copies`` (autocast), ``loss`` and ``rest``.
    """
    n, total = rows(method, setting), Counter()
    first, other = layers_kept(config, method, setting)
    if setting.checkpointing:
        total["layer inputs"] = config.layers * n * setting.stream_bytes * config.hidden_size
        if getattr(method, "placement", "") == "pfeiffer":  # adapts the output, outside the segment
            total["adapters"] = round(config.layers * n * other.per_token["adapters"])
    else:
        for kept, times in ((first, 1), (other, config.layers - 1)):
            for kind, per_token in kept.per_token.items():
                total[kind] += round(times * n * per_token)
            total["weight copies"] += times * kept.fixed
        total["rest"] += rotary(config, method, setting)
    total["rest"] += virtual_tokens(config, method, setting)
    total.update(end(config, method, setting))
    return {kind: size for kind, size in total.items() if size}


def end(config: ModelConfig, method: Method, setting: Setting) -> dict[str, int]:
    """Return the bytes kept by the last norm, the output head and the loss."""
    n, h, v = rows(method, setting), config.hidden_size, config.vocab_size
    layer = Layer(config, method, setting)
    norms = (4 * h + 4) * n + layer.norm_is_trained("final") * setting.stream_bytes * h * n
    kept = {"norms": norms}
    if setting.loss == "chunked":
        kept["loss"] = layer.c * h * (n - setting.batch)  # the hidden states, without the last
        return kept
    head_input = layer.c * h * n if isinstance(method, Full) else 0
    cast = setting.autocast and setting.stream_bytes == 4
    # The log-probabilities in fp32, the shifted labels and the sum of their weights. The labels of
    # a single row are a view into the row that was padded by one.
    kept["loss"] = 4 * n * v + 8 * (n + (setting.batch == 1)) + 4
    kept["linear inputs"] = head_input
    kept["weight copies"] = 2 * h * v if cast else 0
    return kept


def rotary(config: ModelConfig, method: Method, setting: Setting) -> int:
    """Return the bytes of the rotary cosines and sines."""
    virtual = method.num_virtual_tokens if isinstance(method, Prompt) else 0
    return 2 * (setting.seq + virtual) * config.head_dim * setting.stream_bytes


def virtual_tokens(config: ModelConfig, method: Method, setting: Setting) -> int:
    """Return the bytes of the virtual tokens' indices and of the projection's activations."""
    virtual = getattr(method, "num_virtual_tokens", 0)
    if not (isinstance(method, Prefix) and method.prefix_projection):
        return 8 * virtual
    inner = method.encoder_hidden_size or config.kv_dim
    return 8 * virtual + 4 * setting.batch * virtual * (config.kv_dim + inner)
