"""How many bytes the whole forward pass keeps for the backward pass, and from which tensors."""

from collections import Counter

from peftmemory.activations import Layer
from peftmemory.configs import ModelConfig
from peftmemory.methods import Full, Method, Prefix
from peftmemory.settings import StepSetting


def saved_activations(config: ModelConfig, method: Method, setting: StepSetting) -> dict[str, int]:
    """Return the bytes autograd keeps after the forward pass, by kind, to the byte.

    Counted are the tensors that autograd saves, without the parameters and the batch itself.
    They are a CPU's, where they can be counted; CUDA keeps the same but for grouped heads in fp32,
    for which it has no fused kernel. With gradient checkpointing a layer keeps its input alone,
    ``e h`` bytes per token.

    Returns:
        Bytes of ``norms``, ``linear inputs``, ``attention``, ``mlp``, ``adapters``, ``layer
        inputs`` (checkpointing), ``weight copies`` (autocast), ``loss`` and ``rest``.
    """
    return saved_by(Layer(config, method, setting, cuda=False))


def saved_by(layer: Layer) -> dict[str, int]:
    """Return what ``saved_activations`` returns for a model of such layers."""
    n, layers, total = layer.rows, layer.config.layers, Counter()
    if layer.setting.checkpointing:
        total["layer inputs"] = layers * n * (layer.e * layer.h + selected(layer))
        if getattr(layer.method, "placement", "") == "pfeiffer":  # outside the segment
            total["adapters"] = round(layers * n * layer.other.per_token["adapters"])
    else:
        for saved, times in ((layer.first, 1), (layer.other, layers - 1)):
            for kind, per_token in saved.per_token.items():
                total[kind] += round(times * n * per_token)
            total["weight copies"] += times * saved.fixed
        total["rest"] += rotary(layer)
    method, virtual = layer.method, getattr(layer.method, "num_virtual_tokens", 0)
    total["rest"] += 8 * virtual  # their indices
    if isinstance(method, Prefix) and method.prefix_projection:
        widths = layer.config.kv_dim + (method.encoder_hidden_size or layer.config.kv_dim)
        total["rest"] += 4 * layer.setting.batch * virtual * widths
    total.update(end(layer))
    return {kind: size for kind, size in total.items() if size}


def selected(layer: Layer) -> int:
    """Return the bytes per token that selective checkpointing keeps of a layer beside its input.

    The fused kernel's output and its one number per head.
    """
    selective = layer.setting.recompute == "selective"
    return (layer.c * layer.config.q_dim + 4 * layer.config.heads) * selective


def end(layer: Layer) -> dict[str, int]:
    """Return the bytes kept by the last norm, the output head and the loss."""
    n, h, v = layer.rows, layer.h, layer.config.vocab_size
    norms = (4 * h + 4) * n + layer.norm_is_trained("final") * layer.e * h * n
    if layer.setting.loss == "chunked":  # the hidden states, without each sequence's last
        return {"norms": norms, "loss": layer.c * h * (n - layer.setting.batch)}
    if layer.setting.loss == "liger":  # gradients of the hidden states, and of a trained head
        return {"norms": norms, "loss": layer.e * h * (n + v * layer.full)}
    return {
        "norms": norms,
        # The log-probabilities in fp32, the shifted labels and the sum of their weights. The labels
        # of a single row are a view into the row that was padded by one.
        "loss": 4 * n * v + 8 * (n + (layer.setting.batch == 1)) + 4,
        "linear inputs": layer.c * h * n if isinstance(layer.method, Full) else 0,
        "weight copies": 2 * h * v if layer.setting.autocast and layer.e == 4 else 0,
    }


def rotary(layer: Layer) -> int:
    """Return the bytes of the rotary cosines and sines."""
    return 2 * layer.positions * layer.config.head_dim * layer.e


def prefix_cache(layer: Layer) -> int:
    """Return the keys and values a prefix's cache holds beside the repeated ones autograd keeps.

    The cache is part of the outputs, which a plain loop holds until after the backward pass.
    """
    config = layer.config
    if not isinstance(layer.method, Prefix) or config.heads == config.kv_heads:
        return 0
    return 2 * layer.e * config.kv_dim * layer.setting.batch * layer.keys * config.layers
