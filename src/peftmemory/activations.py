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
from functools import cached_property

from peftmemory.configs import ModelConfig
from peftmemory.counts import Linear, linears
from peftmemory.methods import IA3, Bottleneck, Full, LayerNorm, Lora, Method, Prefix, Prompt
from peftmemory.settings import StepSetting
from peftmemory.trained import IA3_SCALED, NORMS_TUNED, bottleneck_width, default_of, targets


@dataclass
class SavedBytes:
    """What one layer saves for its backward pass.

    Attributes:
        per_token: bytes per token, by what is saved.
        fixed: bytes that do not grow with the batch.
        inputs: the inputs of linear maps that are among it, each saved once.
    """

    per_token: Counter = field(default_factory=Counter)
    fixed: int = 0
    inputs: set[str] = field(default_factory=set)

    def total(self, tokens: int) -> int:
        """Return the bytes that the layer saves for so many tokens."""
        return round(sum(self.per_token.values()) * tokens + self.fixed)

    def keep_input(self, name: str, size: int) -> None:
        """Save a linear map's input, ``size`` bytes per token, unless it is saved already."""
        if name not in self.inputs:
            self.inputs.add(name)
            self.per_token["linear inputs"] += size


class Layer:
    """One decoder layer under a method and a setting; built once for an estimate.

    Attributes:
        h: hidden size.
        i: intermediate size.
        e: bytes per element of the residual stream.
        c: bytes per element that a matrix product reads and writes: 2 under autocast.
        y: bytes per element of a linear map's output.
        w: bytes per element of an adapter's weights.
        positions: tokens per sequence; prompt tuning's virtual tokens are among them.
        rows: positions of the whole batch.
        masked: a mask is built, for padding or for a prefix, whose keys outnumber the queries.
        keys: keys per sequence; virtual tokens stand in front of the others.
        fused: attention runs in one kernel, so no scores exist.
    """

    def __init__(
        self, config: ModelConfig, method: Method, setting: StepSetting, *, cuda: bool = True
    ):
        """Collect the widths once; ``cuda``: its kernels attend, not a CPU's."""
        self.config, self.method, self.setting = config, method, setting
        self.h, self.i = config.hidden_size, config.intermediate_size
        self.e = setting.stream_bytes
        self.c = 2 if setting.autocast else self.e
        self.y = self.e if setting.precision == "nf4" else self.c
        self.w = setting.adapter_bytes
        virtual = method.num_virtual_tokens if isinstance(method, Prompt) else 0
        self.positions = setting.seq + virtual
        self.rows = setting.batch * self.positions
        prefix = isinstance(method, Prefix)
        self.masked = setting.masked or prefix
        self.keys = setting.seq + getattr(method, "num_virtual_tokens", 0)
        self.keys_per_query = self.keys / setting.seq if prefix else 1.0
        self.by_name = {each.name: each for each in linears(config)}
        adapted = targets(config, method) if isinstance(method, Lora) else []
        self.adapted = {each.name for each in adapted}
        self.scaled = default_of(IA3_SCALED, config) if isinstance(method, IA3) else ()
        self.full = isinstance(method, Full)
        # CUDA's fused kernels take grouped heads in 16 bits, or no mask and fp32, but not both: without
        # a mask transformers leaves key and value heads grouped, and torch falls back to plain products.
        grouped = config.heads != config.kv_heads and not self.masked
        grouped_fp32 = cuda and self.c == 4 and grouped
        plain = setting.attention == "eager" or setting.attention == "sdpa" and grouped_fp32
        self.fused = not plain

    @cached_property
    def first(self) -> SavedBytes:
        """The first layer's input needs a gradient only if something before it is trained.

        That is the embedding, or virtual tokens in it; or gradient checkpointing asks for it
        (``enable_input_require_grads``).
        """
        trained_before = isinstance(self.method, Full | Prompt) or self.setting.checkpointing
        return self.saves(grad_in=trained_before)

    @cached_property
    def other(self) -> SavedBytes:
        """Behind the first layer every input needs a gradient."""
        return self.saves(grad_in=True)

    @cached_property
    def attention_alone(self) -> SavedBytes:
        """The part of ``other`` that its feed-forward half does not save."""
        saved = SavedBytes()
        self.attention(saved, self.norm(saved, "input", True))
        return saved

    def saves(self, *, grad_in: bool) -> SavedBytes:
        """Return what the layer saves; ``grad_in``: its input needs a gradient."""
        saved = SavedBytes()
        attended = self.attention(saved, self.norm(saved, "input", grad_in))
        grad_mid = grad_in or attended
        x2 = self.norm(saved, "post_attention", grad_mid)
        self.mlp(saved, x2)
        if isinstance(self.method, Bottleneck) and self.method.placement == "pfeiffer":
            self.bottleneck(saved, grad_mid)
        return saved

    def norm(self, saved: SavedBytes, which: str, grad_in: bool) -> bool:
        """A norm of the residual stream. Return whether its output has a gradient."""
        return self.rms_norm(saved, grad_in, self.norm_is_trained(which), self.h, 1, self.e)

    def rms_norm(
        self, saved, grad_in: bool, tuned: bool, width: int, count: int, size: int
    ) -> bool:
        """``count`` norms in fp32, ``width`` elements of ``size`` bytes together.

        ``w * (x * rsqrt(mean(x^2)))``. Return whether the output has a gradient.
        """
        saved.per_token["norms"] += grad_in * (4 * width + 4 * count) + tuned * size * width
        return grad_in or tuned

    def norm_is_trained(self, which: str) -> bool:
        """Tell whether a norm's weight is trained."""
        tuned = NORMS_TUNED.get(self.config.model_type, ())
        return self.full or (isinstance(self.method, LayerNorm) and which in tuned)

    def attention(self, saved: SavedBytes, grad_in: bool) -> bool:
        """Projections, norms of the heads (Qwen3), scaled dot product, output projection."""
        q, k, v = (self.linear(saved, f"{each}_proj", grad_in, "x1") for each in "qkv")
        if self.config.model_type == "qwen3":
            config = self.config  # a norm for every head of queries and of keys
            q = self.rms_norm(saved, q, self.full, config.q_dim, config.heads, self.y)
            k = self.rms_norm(saved, k, self.full, config.kv_dim, config.kv_heads, self.y)
        if isinstance(self.method, Prefix):
            k = v = True
        if not self.fused:
            self.eager_attention(saved, q, k, v)
        else:
            self.fused_attention(saved, q or k or v)
        return self.linear(saved, "o_proj", q or k or v, "attended")

    def mlp(self, saved: SavedBytes, grad_in: bool) -> None:
        """SwiGLU: ``down(silu(gate(x)) * up(x))``."""
        gate = self.linear(saved, "gate_proj", grad_in, "x2")
        up = self.linear(saved, "up_proj", grad_in, "x2")
        saved.per_token["mlp"] += self.y * self.i * (gate + up + gate)  # gate; silu(gate); up
        self.linear(saved, "down_proj", gate or up, "product")

    def linear(self, saved: SavedBytes, name: str, grad_in: bool, source: str) -> bool:
        """One linear map of the input called ``source``. Return whether its output has a grad."""
        each = self.by_name[name]
        # Under autocast an fp32 input is cast for every product, and each cast is kept by its own.
        copied = self.setting.autocast and self.e == 4 and source != "attended"
        if self.full:
            saved.keep_input(f"{source} for {name}" if copied else source, self.c * each.d_in)
        if grad_in and self.setting.autocast and self.setting.precision == "fp32":
            saved.fixed += 2 * each.d_in * each.d_out  # the weight's bf16 copy
        if name in self.adapted:
            self.lora(saved, each, grad_in, source)
        if name in self.scaled:
            self.factor(saved, each, grad_in)
        grad_out = grad_in or self.full or name in self.adapted or name in self.scaled
        houlsby = getattr(self.method, "placement", "") == "houlsby"
        if houlsby and name in ("o_proj", "down_proj"):
            self.bottleneck(saved, grad_out)
            return True
        return grad_out

    def factor(self, saved: SavedBytes, each: Linear, grad_in: bool) -> None:
        """(IA)3: what the factor multiplies, an output or down_proj's input, and the factor."""
        outside = each.name != "down_proj"
        width = each.d_out if outside else each.d_in
        saved.per_token["adapters"] += (self.y if outside else self.w) * width
        saved.fixed += self.w * width * grad_in

    def lora(self, saved: SavedBytes, each: Linear, grad_in: bool, source: str) -> None:
        """``B A x``: the inputs of A and of B, and DoRA's two results."""
        r, w = self.method.r, self.w
        bytes_in = self.c if self.setting.autocast else w
        source_bytes = self.c if source == "attended" else self.e
        shared = bytes_in == source_bytes and (w == source_bytes or self.setting.precision == "nf4")
        if self.method.lora_dropout:
            saved.per_token["adapters"] += (grad_in + bytes_in) * each.d_in  # mask, input
        elif shared:
            saved.keep_input(source, self.e * each.d_in)
        else:
            saved.per_token["adapters"] += bytes_in * each.d_in
        saved.per_token["adapters"] += bytes_in * r
        if self.setting.autocast and w == 4:
            # The adapter's bf16 copies; A's only matters to a gradient of its input.
            saved.fixed += 2 * r * (each.d_in * grad_in + each.d_out)
        if self.method.use_dora:
            saved.per_token["adapters"] += (self.y + bytes_in) * each.d_out
            saved.fixed += w * (2 + grad_in) * each.d_out

    def fused_attention(self, saved: SavedBytes, any_grad: bool) -> None:
        """The fused kernel keeps q, k, v, its output and one number per head.

        With a mask, transformers repeats the key and value heads to the number of query heads,
        and every layer turns the boolean mask into one of numbers.
        """
        if not any_grad:
            return
        q, c = self.config.q_dim, self.c
        kv = q if self.masked else self.config.kv_dim
        mask = c * self.keys * self.masked
        size = 2 * c * q + 2 * c * kv * self.keys_per_query + 4 * self.config.heads + mask
        saved.per_token["attention"] += size
        saved.inputs.add("attended")  # its output is o_proj's input

    def eager_attention(self, saved: SavedBytes, q: bool, k: bool, v: bool) -> None:
        """Scores, softmax in fp32, its 16-bit copy: ``a T`` numbers per token each."""
        c, kept = self.c, q or k  # the scores need a gradient
        width, scores = c * self.config.q_dim, self.config.heads * self.keys
        keys_and_values = width * self.keys_per_query * (q + kept)
        copy = 0 if c == 4 and kept else c * scores * v  # in fp32 it is the softmax itself
        saved.per_token["attention"] += width * k + keys_and_values + 4 * scores * kept + copy

    def bottleneck(self, saved: SavedBytes, grad_in: bool) -> None:
        """The input of ``down``, and the activation's input and output (ReLU: output alone)."""
        m = bottleneck_width(self.config, self.method)
        swish = self.method.placement == "houlsby"  # BottleneckConfig's default non-linearities
        size = self.c if self.setting.autocast else self.w
        saved.per_token["adapters"] += size * (self.h + m * (2 if swish else 1))
        if self.setting.autocast and self.w == 4:
            saved.fixed += 2 * self.h * m * (1 + grad_in)  # the adapter's bf16 copies
