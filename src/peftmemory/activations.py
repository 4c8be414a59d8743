"""What the forward pass keeps for the backward pass, tensor by tensor, for a Llama-like decoder.

Autograd keeps a tensor only if a gradient needs it: a product keeps a factor if the other one
needs a gradient, a linear map keeps its input if its weight is trained. The functions below walk
through transformers' layer (5.x) with that rule. Frozen layers therefore keep less than trained
ones, and a LoRA module in fp32 on a 16-bit base keeps an fp32 copy of its input of its own.

Symbols: h hidden size, I intermediate size, a heads, q and kv the widths of queries and of keys
(or values), T tokens per sequence, r rank, m bottleneck width. Korthikanti et al. (2022, section
4) did the same count for GPT-3's layer: ``s b h (34 + 5 a s / h)`` bytes.
"""

from collections import Counter
from dataclasses import dataclass, field

from peftmemory.configs import ModelConfig
from peftmemory.counts import bottleneck_width, ia3_modules, linears, targets
from peftmemory.methods import IA3, Bottleneck, Full, LayerNorm, Lora, Method, Prefix
from peftmemory.settings import Setting

NORMS_TUNED = {"llama": ("input", "post_attention", "final"), "qwen3": ("post_attention",)}


@dataclass
class Kept:
    """What one layer keeps.

    Attributes:
        per_token: bytes per token, by what is kept.
        fixed: bytes that do not grow with the batch.
    """

    per_token: Counter = field(default_factory=Counter)
    fixed: int = 0


class Layer:
    """One decoder layer under a method and a setting.

    Attributes:
        e: bytes per element of the residual stream.
        c: bytes per element that a matrix product reads and writes: 2 under autocast.
        y: bytes per element of a linear map's output.
        w: bytes per element of an adapter's weights.
    """

    def __init__(self, config: ModelConfig, method: Method, setting: Setting):
        """Collect the widths once."""
        self.config, self.method, self.setting = config, method, setting
        four_bit = setting.precision == "nf4"
        self.e = setting.stream_bytes
        self.c = 2 if setting.autocast else self.e
        self.y = self.e if four_bit else self.c
        self.w = 4 if setting.autocast_adapter_dtype else self.e
        self.by_name = {each.name: each for each in linears(config)}
        adapted = targets(config, method) if isinstance(method, Lora) else []
        self.adapted = {each.name for each in adapted}
        self.scaled = ia3_modules(config) if isinstance(method, IA3) else ()
        self.full = isinstance(method, Full)

    def keeps(self, *, grad_in: bool) -> Kept:
        """Return what the layer keeps; ``grad_in``: its input needs a gradient."""
        kept = Kept()
        x1 = self.norm(kept, "input", grad_in)
        attended = self.attention(kept, x1)
        grad_mid = grad_in or attended
        x2 = self.norm(kept, "post_attention", grad_mid)
        self.mlp(kept, x2)
        if isinstance(self.method, Bottleneck) and self.method.placement == "pfeiffer":
            self.bottleneck(kept, grad_mid)
        return kept

    def norm(self, kept: Kept, which: str, grad_in: bool) -> bool:
        """RMSNorm in fp32: ``w * (x * rsqrt(mean(x^2)))``. Return whether its output has a grad."""
        tuned = self.norm_is_trained(which)
        h = self.config.hidden_size
        if grad_in:
            kept.per_token["norms"] += 4 * h + 4
        if tuned:
            kept.per_token["norms"] += self.e * h
        return grad_in or tuned

    def norm_is_trained(self, which: str) -> bool:
        """Tell whether a norm's weight is trained."""
        tuned = NORMS_TUNED.get(self.config.model_type, ())
        return self.full or (isinstance(self.method, LayerNorm) and which in tuned)

    def linear(self, kept: Kept, name: str, grad_in: bool, inputs: set[str], source: str) -> bool:
        """One linear map; ``inputs`` are the inputs kept so far. Return whether it has a grad."""
        each = self.by_name[name]
        # Under autocast an fp32 input is cast for every product, and each cast is kept by its own.
        copied = self.setting.autocast and self.e == 4 and source != "attended"
        if self.full:
            key = f"{source} for {name}" if copied else source
            self.keep_input(kept, key, self.c * each.d_in, inputs)
        if grad_in and self.setting.autocast and self.setting.precision == "fp32":
            kept.fixed += 2 * each.d_in * each.d_out  # the weight's bf16 copy
        if name in self.adapted:
            self.lora(kept, each, grad_in, inputs, source)
        if name in self.scaled:
            self.factor(kept, each, grad_in)
        grad_out = grad_in or self.full or name in self.adapted or name in self.scaled
        houlsby = getattr(self.method, "placement", "") == "houlsby"
        if houlsby and name in ("o_proj", "down_proj"):
            self.bottleneck(kept, grad_out)
            return True
        return grad_out

    def factor(self, kept: Kept, each, grad_in: bool) -> None:
        """(IA)3: what the factor multiplies, an output or down_proj's input, and the factor."""
        outside = each.name != "down_proj"
        width = each.d_out if outside else each.d_in
        kept.per_token["adapters"] += (self.y if outside else self.w) * width
        kept.fixed += self.w * width * grad_in

    def keep_input(self, kept: Kept, key: str, size: int, inputs: set[str]) -> None:
        """Keep a linear map's input unless it is kept already."""
        if key not in inputs:
            inputs.add(key)
            kept.per_token["linear inputs"] += size

    def lora(self, kept: Kept, each, grad_in: bool, inputs: set[str], source: str) -> None:
        """``B A x``: the inputs of A and of B, and DoRA's two results."""
        r, w = self.method.r, self.w
        bytes_in = self.c if self.setting.autocast else w
        source_bytes = self.c if source == "attended" else self.e
        shared = bytes_in == source_bytes and (w == source_bytes or self.setting.precision == "nf4")
        if self.method.lora_dropout:
            kept.per_token["adapters"] += (grad_in + bytes_in) * each.d_in  # mask, input
        elif shared:
            self.keep_input(kept, source, self.e * each.d_in, inputs)
        else:
            kept.per_token["adapters"] += bytes_in * each.d_in
        kept.per_token["adapters"] += bytes_in * r
        if self.setting.autocast and w == 4:
            # The adapter's bf16 copies; A's only matters to a gradient of its input.
            kept.fixed += 2 * r * (each.d_in * grad_in + each.d_out)
        if self.method.use_dora:
            kept.per_token["adapters"] += (self.y + bytes_in) * each.d_out
            kept.fixed += w * (2 + grad_in) * each.d_out

    def attention(self, kept: Kept, grad_in: bool) -> bool:
        """Projections, norms of the heads (Qwen3), scaled dot product, output projection."""
        inputs: set[str] = set()
        project = lambda name: self.linear(kept, name, grad_in, inputs, "x1")
        q, k, v = project("q_proj"), project("k_proj"), project("v_proj")
        if self.config.model_type == "qwen3":
            q = self.head_norms(kept, q, self.config.heads)
            k = self.head_norms(kept, k, self.config.kv_heads)
        if isinstance(self.method, Prefix):
            k = v = True
        if self.setting.attention == "sdpa":
            self.fused_attention(kept, q or k or v)
            if q or k or v:
                inputs.add("attended")
        else:
            self.eager_attention(kept, q, k, v)
        return self.linear(kept, "o_proj", q or k or v, inputs, "attended")

    def head_norms(self, kept: Kept, grad_in: bool, heads: int) -> bool:
        """Qwen3's RMSNorm of every query or key head."""
        width = heads * self.config.head_dim
        if grad_in:
            kept.per_token["norms"] += 4 * width + 4 * heads
        if self.full:
            kept.per_token["norms"] += self.y * width
        return grad_in or self.full

    @property
    def masked(self) -> bool:
        """A mask is built for padding and for a prefix, whose keys outnumber the queries."""
        return self.setting.padding or isinstance(self.method, Prefix)

    @property
    def keys(self) -> int:
        """Keys per sequence: virtual tokens stand in front of the others."""
        return self.setting.seq + getattr(self.method, "num_virtual_tokens", 0)

    @property
    def keys_per_query(self) -> float:
        """Keys over queries: above 1 with a prefix, whose tokens ask nothing."""
        return self.keys / self.setting.seq if isinstance(self.method, Prefix) else 1.0

    def fused_attention(self, kept: Kept, any_grad: bool) -> None:
        """The fused kernel keeps q, k, v, its output and one number per head.

        With a mask, transformers repeats the key and value heads to the number of query heads,
        and every layer turns the boolean mask into one of numbers.
        """
        if not any_grad:
            return
        q, c = self.config.q_dim, self.c
        kv = q if self.masked else self.config.kv_dim
        size = 2 * c * q + 2 * c * kv * self.keys_per_query + 4 * self.config.heads
        if self.masked:
            size += c * self.keys
        kept.per_token["attention"] += size

    def eager_attention(self, kept: Kept, q: bool, k: bool, v: bool) -> None:
        """Scores, softmax in fp32, its 16-bit copy: ``a T`` numbers per token each."""
        width, c = self.config.q_dim, self.c
        scores = self.config.heads * self.keys
        attention = Counter()
        attention["q"] = c * width * k
        attention["k"] = c * width * self.keys_per_query * q
        attention["v"] = c * width * self.keys_per_query * (q or k)
        attention["softmax"] = 4 * scores * (q or k)
        if not (c == 4 and (q or k)):  # in fp32 the copy is the softmax itself
            attention["weights"] = c * scores * v
        kept.per_token["attention"] += sum(attention.values())

    def mlp(self, kept: Kept, grad_in: bool) -> None:
        """SwiGLU: ``down(silu(gate(x)) * up(x))``."""
        i = self.config.intermediate_size
        inputs: set[str] = set()
        gate = self.linear(kept, "gate_proj", grad_in, inputs, "x2")
        up = self.linear(kept, "up_proj", grad_in, inputs, "x2")
        kept.per_token["mlp"] += self.y * i * (gate + up + gate)  # gate; silu(gate); up
        self.linear(kept, "down_proj", gate or up, inputs, "product")

    def bottleneck(self, kept: Kept, grad_in: bool) -> None:
        """The input of ``down``, and the activation's input and output (ReLU: output alone)."""
        h, m = self.config.hidden_size, bottleneck_width(self.config, self.method)
        swish = self.method.placement == "houlsby"  # BottleneckConfig's default non-linearities
        size = self.c if self.setting.autocast else self.w
        kept.per_token["adapters"] += size * (h + m * (2 if swish else 1))
        if self.setting.autocast and self.w == 4:
            kept.fixed += 2 * h * m * (1 + grad_in)  # the adapter's bf16 copies
