"""Each guard on models that it should catch and on models that it should pass: none missed, no alarm."""

import copy
import json

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peftbottleneck import BottleneckConfig
from pefthelpers import guards
from support.bottleneck_models import batch, tiny

QV = ["q_proj", "v_proj"]
LORA = {"r": 4, "target_modules": QV}
METHODS = {
    "LoRA": (LoraConfig, LORA),
    "rsLoRA": (LoraConfig, LORA | {"use_rslora": True}),
    "DoRA": (LoraConfig, LORA | {"use_dora": True}),
    "AdaLoRA": (AdaLoraConfig, {"target_modules": QV, "total_step": 10}),
    "LoHa": (LoHaConfig, LORA),
    "LoKr": (LoKrConfig, LORA),
    "VeRA": (VeraConfig, {"r": 8, "target_modules": QV}),
    "OFT": (OFTConfig, {"oft_block_size": 8, "r": 0, "target_modules": QV}),
    "(IA)³": (IA3Config, {"target_modules": ["down_proj"], "feedforward_modules": ["down_proj"]}),
    "LN tuning": (LNTuningConfig, {"target_modules": ["input_layernorm"]}),
    "bottleneck": (BottleneckConfig, {"reduction_factor": 4}),
    "prefix": (PrefixTuningConfig, {"num_virtual_tokens": 4}),
    "prompt": (PromptTuningConfig, {"num_virtual_tokens": 4}),
}
MERGEABLE = [name for name in METHODS if name not in ("bottleneck", "prefix", "prompt")]
TASKS = dict.fromkeys(("bert", "roberta", "distilbert"), "SEQ_CLS") | {"t5": "SEQ_2_SEQ_LM"}
QUERIES = {"bert": "query", "roberta": "query", "distilbert": "q_lin", "t5": "q", "gpt2": "c_attn"}
IDS = torch.arange(3, 43).reshape(4, 10)


def base(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**sizes | {"pad_token_id": 0} | changes)).eval()


def wrap(method="LoRA", model=None, *, name="default", **options):
    config, own = METHODS[method]
    torch.manual_seed(1)
    options = {"task_type": "CAUSAL_LM"} | own | options
    return get_peft_model(base() if model is None else model, config(**options), name)


def step(model, parameters=None, *, steps=1, lr=1e-2, inputs=None):
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted if parameters is None else parameters, lr, weight_decay=0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**(inputs or {"input_ids": IDS, "labels": IDS})).loss.backward()
        optimizer.step()
    return model


def trained(method="LoRA", model=None, **options):
    return step(wrap(method, model, **options), steps=2).eval()


@torch.no_grad()
def spoil(model, mark, change):
    """Change in place all weights whose name holds a mark."""
    for name, parameter in model.named_parameters():
        if mark in name:
            parameter.copy_(change(parameter))
    return model


def classifier(kind, **options):
    options = {
        "task_type": TASKS.get(kind, "CAUSAL_LM"),
        "target_modules": [QUERIES[kind]],
    } | options
    return wrap("LoRA", tiny(kind), **options)


def four_bit(model, **options):
    """Return a copy with the blocks' linear layers in NF4, as bitsandbytes loads them."""
    import bitsandbytes as bnb

    model = copy.deepcopy(model)
    for parent in [m for n, m in model.named_modules() if n.endswith(("self_attn", "mlp"))]:
        for name, old in [(n, m) for n, m in parent.named_children() if isinstance(m, nn.Linear)]:
            new = nf4(old.weight.data, **options)
            assert isinstance(new, bnb.nn.Linear4bit)
            setattr(parent, name, new)
    return model


def nf4(weight, *, packs=False, quant_type="nf4", **options):
    """Return a linear layer in 4 bits."""
    import bitsandbytes as bnb

    new = bnb.nn.Linear4bit(weight.shape[1], weight.shape[0], bias=False, quant_type=quant_type)
    held = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type=quant_type, module=new, **options
    )
    new.weight = held.to("cpu")
    new.support_avx512bf16_for_cpu = packs
    return new


def after(model, train=step, **options):
    """Return the arguments of check_training, after training."""
    before = guards.snapshot(model)
    train(model, **options)
    return model, before


def training_cases(tmp):
    for method in METHODS:
        yield f"{method}, 1 step", True, after(wrap(method))
    for method in ("LoRA", "DoRA", "bottleneck", "prefix"):
        yield f"{method}, 3 steps", True, after(wrap(method), steps=3)
    for kind in QUERIES:
        yield f"LoRA on {kind}, 1 step", True, after(classifier(kind), inputs=batch(kind))
    yield "bfloat16 base", True, after(wrap(model=base().to(torch.bfloat16)))
    yield "two adapters, one trained", True, after(second(wrap(), active="second"))
    yield "full fine-tuning", True, after(base().train())
    yield "nothing to train", False, after(base().requires_grad_(False), lambda model: None)
    early = base()
    old = list(early.parameters())
    yield "optimizer older than the adapter", False, after(wrap(model=early), parameters=old)
    yield "rate zero", False, after(wrap(), lr=0.0)
    yield "rate zero, DoRA", False, after(wrap("DoRA"), lr=0.0)
    yield "no step", False, after(wrap("prefix"), lambda model: None)
    for mark in ("lora_A", "lora_B", "layers.0", "layers.1.self_attn.v_proj"):
        model = wrap()
        some = [p for n, p in model.named_parameters() if mark in n and p.requires_grad]
        yield f"optimizer of {mark} alone", False, after(model, parameters=some, steps=3)
    yield "base unfrozen", False, after(wrap(), lambda m: step(m.requires_grad_(True)))
    for mark in ("norm", "embed_tokens", "layers.1.mlp.up_proj"):
        yield f"{mark} moved", False, after(wrap(), spoil, mark=mark, change=lambda p: p * 1.01)
    for value in (float("nan"), float("inf")):
        yield f"{value}", False, after(wrap(), spoil, mark="lora_", change=lambda p, v=value: p + v)
    dead = wrap()
    dead.base_model.model.model.layers[1].register_forward_pre_hook(
        lambda module, inputs: (inputs[0].detach(), *inputs[1:])
    )
    yield "gradient cut below the last layer", False, after(dead, steps=3)


def folder(tmp, model):
    """Save an adapter, sign it, and return its folder."""
    place = tmp / f"adapter{sum(1 for _ in tmp.iterdir())}"
    model.save_pretrained(place)
    guards.sign(place, model)
    return place


def merged(method="LoRA", **options):
    return trained(method, **options).merge_and_unload()


def small_merge(share):
    """Return the base with a correction of this share of each weight's norm merged in."""
    model = trained()
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            ratio = layer.get_delta_weight("default").norm() / layer.get_base_layer().weight.norm()
            layer.scaling["default"] *= share / ratio.item()
    return model.merge_and_unload()


def base_cases(tmp):
    place = folder(tmp, trained())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        yield f"the same in {dtype}", True, (place, base().to(dtype))
        yield f"NF4 of {dtype}", True, (place, four_bit(base().to(dtype)))
    yield "16 bits and back", True, (place, base().to(torch.bfloat16).float())
    yield "NF4, its constants quantised", True, (place, four_bit(base(), compress_statistics=True))
    yield "wearing another adapter", True, (place, wrap("DoRA"))
    yield "compiled", True, (place, torch.compile(base()))
    in_nf4 = folder(tmp, step(wrap(model=four_bit(base()))))
    yield "signed in NF4", True, (in_nf4, base())
    yield "signed and used in NF4", True, (in_nf4, four_bit(base()))
    yield "signed in NF4, used dequantised", True, (in_nf4, dequantised(four_bit(base())))
    half = folder(tmp, trained(model=base().to(torch.float16)))
    yield "signed in float16, used in bfloat16", True, (half, base().to(torch.bfloat16))
    for method in METHODS:
        yield method, True, (folder(tmp, trained(method)), base())
    for name, extra in {
        "trained embeddings": {"modules_to_save": ["embed_tokens"]},
        "trained tokens": {"trainable_token_indices": [5, 6]},
        "trained biases": {"bias": "lora_only"},
    }.items():
        yield name, True, (folder(tmp, trained(**extra)), base())
    head = step(classifier("roberta"), inputs=batch("roberta"))
    yield "another new head", True, (folder(tmp, head), tiny("roberta"))
    yield (
        "Conv1D",
        True,
        (folder(tmp, step(classifier("gpt2"), inputs=batch("gpt2"))), tiny("gpt2")),
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        yield f"merged, {dtype}", False, (place, merged().to(dtype))
        yield f"another seed, {dtype}", False, (place, base(5).to(dtype))
    yield "a merge of 1 %, bfloat16", False, (place, small_merge(0.01).to(torch.bfloat16))
    yield "a merge of 0.01 %", False, (place, small_merge(1e-4))
    yield "merged, NF4", False, (place, four_bit(merged()))
    yield "a merge of 1.2 %, NF4", False, (place, four_bit(small_merge(0.012)))
    yield "another seed, NF4", False, (place, four_bit(base(5)))
    yield "signed in NF4, a merge of 1.2 %", False, (in_nf4, small_merge(0.012))
    yield "signed and used in NF4, merged", False, (in_nf4, four_bit(merged()))
    for method in ("DoRA", "LoHa", "(IA)³", "LN tuning", "OFT"):
        yield f"{method} merged", False, (place, merged(method))
    for mark in ("q_proj", "layers.1.mlp.down_proj", "proj", "norm"):
        yield f"{mark} zeroed", False, (place, spoil(base(), mark, torch.zeros_like))
        zeroed = four_bit(spoil(base(), mark, torch.zeros_like))
        yield f"{mark} zeroed, NF4", False, (place, zeroed)
    row = lambda p: torch.cat([p[:5], p[5:6] * 2, p[6:]])
    yield "one row of one weight", False, (place, spoil(base(), "layers.1.mlp.up_proj", row))
    one = lambda p: p.clone().index_fill_(0, torch.tensor([7]), 1.01)
    yield "one value of a norm", False, (place, spoil(base(), "layers.1.post", one))
    nan = lambda p: p + float("nan")
    yield "NaN, NF4", False, (place, four_bit(spoil(base(), "up_proj", nan)))
    yield "tokens added", False, (place, base(vocab_size=66))
    yield "a layer less", False, (place, base(num_hidden_layers=1))
    yield "a layer more", False, (place, base(num_hidden_layers=3))
    yield "meta device", False, (place, base().to("meta"))
    yield "FP4", False, (place, four_bit(base(), quant_type="fp4"))
    yield "not signed", False, (tmp, base())
    old = folder(tmp, trained())
    (old / guards.FINGERPRINT).write_text(json.dumps({"base_fingerprint": "0" * 32}))
    yield "signed by the old scheme", False, (old, base())


def dequantised(model):
    """Return a copy whose 4-bit layers are linear layers of what they stood for."""
    from bitsandbytes.functional import dequantize_4bit

    model = copy.deepcopy(model)
    for parent in [m for n, m in model.named_modules() if n.endswith(("self_attn", "mlp"))]:
        for name, old in list(parent.named_children()):
            if hasattr(old, "quant_state") or type(old).__name__ == "Linear4bit":
                new = nn.Linear(old.in_features, old.out_features, bias=False)
                new.weight.data = dequantize_4bit(old.weight.data, old.weight.quant_state)
                setattr(parent, name, new)
    return model


def second(model, active=("default", "second"), **options):
    """Add a second adapter with weights to a model, and make these active."""
    model.add_adapter("second", LoraConfig(**LORA, init_lora_weights=False, **options))
    model.base_model.set_adapter(active)
    return model


def in_bfloat16(method="LoRA", **options):
    return wrap(method, base().to(torch.bfloat16), **options)


def sized(ratio, dtype=torch.bfloat16, **options):
    """Return a trained LoRA in a dtype, each correction this share of its weight's norm."""
    model = step(wrap(model=base().to(dtype), **options), steps=2).eval()
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            name = layer.active_adapters[0]
            now = layer.get_delta_weight(name).float().norm() / layer.get_base_layer().weight.norm()
            layer.scaling[name] *= ratio / now.item()
    return model


def times(factor):
    return lambda p: p * factor


def merge_cases(tmp):
    for method in MERGEABLE:
        yield method, True, (trained(method),)
    yield "untrained", True, (wrap(),)
    yield "untrained DoRA", True, (wrap("DoRA"),)
    yield "named", True, (trained(name="nonna"),)
    yield "named, bfloat16", True, (sized(0.1, name="nonna"),)
    yield "two active", True, (second(trained()),)
    yield "second active", True, (second(trained(), active="second"),)
    yield "two active DoRAs", True, (second(trained("DoRA"), use_dora=True),)
    for ratio in (0.1, 0.03, 0.01):  # noise of 1, 5 and 15 %
        yield f"bfloat16, ΔW {ratio} of W", True, (sized(ratio),)
    yield "float16, ΔW 0.001 of W", True, (sized(1e-3, torch.float16),)
    for kind in QUERIES:
        yield f"on {kind}", True, (step(classifier(kind), steps=2, inputs=batch(kind)),)
    yield "tokens of tied embeddings", True, (trained(trainable_token_indices=[5, 6]),)
    untied = base(tie_word_embeddings=False)
    yield "untied head", True, (trained(model=untied, target_modules=["v_proj", "lm_head"]),)
    for method in ("prefix", "prompt", "bottleneck"):
        yield method, False, (trained(method),)
    yield "plain model", False, (base(),)
    for target in ("lm_head", "embed_tokens"):
        yield f"tied {target}", False, (trained(target_modules=["v_proj", target]),)
    yield "tied lm_head, named", False, (trained(name="nonna", target_modules=["lm_head"]),)
    for ratio in (2e-3, 1e-3, 1e-4):  # 0.85, 0.6 and 0.1 of the correction kept
        yield f"bfloat16, ΔW {ratio} of W", False, (sized(ratio),)
    yield "float16, ΔW 1e-5 of W", False, (sized(1e-5, torch.float16),)
    yield "named, bfloat16, small", False, (sized(1e-3, name="nonna"),)
    first = spoil(in_bfloat16(), "lora_B", lambda p: p + 1)
    small = second(first, active="second")
    yield "second too small", False, (spoil(small, "lora_B.second", times(1e-6)),)
    yield (
        "DoRA, magnitudes × 1.001",
        False,
        (spoil(in_bfloat16("DoRA"), "magnitude", times(1.001)),),
    )
    yield "(IA)³ × 1.001", False, (spoil(in_bfloat16("(IA)³"), "ia3_l", times(1.001)),)
    for method, mark in {"LoHa": "hada_w2_a", "LoKr": "lokr_", "VeRA": "lambda_b"}.items():
        model = spoil(step(in_bfloat16(method), steps=2), mark, times(1e-2))
        yield f"{method}, bfloat16, small", False, (model,)
    for value in (float("nan"), float("inf")):
        yield f"{value} in B", False, (spoil(trained(), "lora_B", lambda p, v=value: p + v),)
    yield (
        "NaN in one A",
        False,
        (spoil(trained(), "layers.1.self_attn.v_proj.lora_A", times(torch.nan)),),
    )
    nan = spoil(second(trained()), "lora_B.second", times(torch.nan))
    yield "NaN in the second", False, (nan,)
    big = spoil(trained(model=base().to(torch.float16)), "lora_", times(1e4))
    yield "too large for float16", False, (big,)
    yield "NF4 base", False, (wrap(model=four_bit(base())),)
    yield (
        "NF4 base in bfloat16 storage",
        False,
        (wrap(model=four_bit(base(), quant_storage=torch.bfloat16)),),
    )
    for method in ("LoHa", "(IA)³"):
        config, own = METHODS[method]
        own = {"task_type": "SEQ_CLS", "target_modules": ["query"]} | (
            {"feedforward_modules": []} if config is IA3Config else {}
        )
        yield (
            f"{method} beside a trained head",
            False,
            (get_peft_model(tiny("roberta"), config(**own)),),
        )
    done = trained()
    done.merge_adapter()
    yield "merged already", False, (done,)


def prefix_cases(tmp):
    def prefixed(kind, *, train=False, checkpointing=False, off=None):
        model = base() if kind == "llama" else tiny(kind, num_key_value_heads=4)
        task = TASKS.get(kind, "CAUSAL_LM")
        model = get_peft_model(model, PrefixTuningConfig(task_type=task, num_virtual_tokens=4))
        model.train(train)
        if checkpointing:
            model.get_base_model().gradient_checkpointing_enable()
        if off:
            getattr(model, off).use_cache = False
        return model

    no_cache, ask = {"use_cache": False}, {"gradient_checkpointing": True}
    for kind in ("llama", "gpt2", "qwen2", "t5", "bert", "roberta"):
        yield f"{kind} trains", True, (prefixed(kind, train=True),)
        yield f"{kind} evaluates", True, (prefixed(kind),)
        yield f"{kind} evaluates, checkpointing on", True, (prefixed(kind, checkpointing=True),)
        yield (
            f"{kind} trains, checkpointing on",
            False,
            (prefixed(kind, train=True, checkpointing=True),),
        )
        yield f"{kind}, checkpointing asked for", False, ((prefixed(kind),), ask)
    for kind in ("gpt2", "qwen2", "mistral", "qwen3", "smollm3"):
        yield f"{kind} without cache", True, ((prefixed(kind),), no_cache)
    yield "bert without cache", True, ((prefixed("bert"),), no_cache)
    yield "llama, its configuration without cache", True, (prefixed("llama", off="config"),)
    for off in ("config", "generation_config"):
        yield f"llama trains, {off} without cache", True, (prefixed("llama", train=True, off=off),)
    for method in ("prompt", "LoRA", "bottleneck"):
        yield method, True, ((wrap(method),), no_cache | ask)
    yield "plain model", True, ((base(),), no_cache | ask)
    for kind in ("llama", "t5"):  # the first breaks, the second goes on without its prefix
        yield f"{kind} without cache", False, ((prefixed(kind),), no_cache)
        yield f"{kind}, generation without cache", False, (prefixed(kind, off="generation_config"),)
        yield (
            f"{kind} trains, asked to generate without",
            False,
            ((prefixed(kind, train=True),), no_cache),
        )


def cut(model, *layers):
    """Hand no gradient on in these of a model's 4-bit layers, as packing does."""
    found = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    for number in layers:
        found[number].register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
    return model


def gradient_cases(tmp):
    yield "NF4", True, (four_bit(base()),)
    yield "NF4, constants quantised", True, (four_bit(base(), compress_statistics=True),)
    yield "NF4 of bfloat16", True, (four_bit(base().to(torch.bfloat16)),)
    yield "FP4", True, (four_bit(base(), quant_type="fp4"),)
    for method in ("LoRA", "DoRA", "prefix"):
        yield f"{method} on NF4", True, (wrap(method, four_bit(base())),)
    yield "in training", True, (four_bit(base()).train(),)
    for layers in ((0,), (13,), (3, 4), (5, 6, 7), range(7), range(14)):
        yield f"{len(layers)} cut from {layers[0]}", False, (cut(four_bit(base()), *layers),)
    yield "LoRA, cut", False, (wrap(model=cut(four_bit(base()), 2)),)
    yield "prefix, cut", False, (wrap("prefix", cut(four_bit(base()), 2)),)
    for name, model in {"plain": base(), "LoRA": wrap(), "bfloat16": base().bfloat16()}.items():
        yield f"{name}, no 4-bit layer", False, (model,)


def evaluated(packs, shape=(64, 64)):
    """Return a 4-bit layer whose weight is packed, or not, as after an evaluation."""
    layer = nf4(torch.randn(shape), packs=packs)
    if packs:  # the mark that packing leaves, on any machine
        layer.weight.quant_state.packing_format_for_cpu = True
    return layer


def packing_cases(tmp):
    for shape in ((64, 64), (32, 128), (48, 192)):
        yield f"{shape} not evaluated", True, (nf4(torch.randn(shape), packs=True),)
        yield f"{shape} not packed", True, (evaluated(False, shape),)
        for place in range(3):
            layers = [evaluated(number == place, shape) for number in range(3)]
            yield f"{shape} packed at {place}", False, (nn.Sequential(*layers),)
    yield "plain model", True, (base(),)
    yield "NF4 model", True, (four_bit(base()),)
    packed = four_bit(base())
    packed.model.layers[1].mlp.up_proj = evaluated(True, (128, 64))
    yield "one layer of a model", False, (packed,)
    yield "LoRA on it", False, (wrap(model=copy.deepcopy(packed)),)


def width_cases(tmp):
    for inputs in (64, 128, 192, 576):
        for outputs in (8, 48, 100):
            yield f"{inputs} to {outputs}", True, (nf4(torch.randn(outputs, inputs)),)
    yield "not in 4 bits", True, (nn.Linear(96, 64),)
    yield "NF4 model", True, (four_bit(base()),)
    for inputs in (32, 48, 80, 96, 100, 160, 200, 300):
        yield f"{inputs} to 64", False, (nf4(torch.randn(64, inputs)),)
    last = nn.Sequential(nf4(torch.randn(96, 64)), nf4(torch.randn(64, 96)))
    yield "the second of two", False, (last,)
    wide = four_bit(base(intermediate_size=96))
    yield "a model's down_proj", False, (wide,)
    yield "LoRA on it", False, (wrap(model=wide),)


GUARDS = {
    guards.check_training: training_cases,
    guards.check_base: base_cases,
    guards.check_merge: merge_cases,
    guards.check_prefix: prefix_cases,
    guards.check_input_gradients: gradient_cases,
    guards.keep_input_gradients: packing_cases,
    guards.refuse_widths: width_cases,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_guard_matrix(guard, tmp_path):
    """Print a guard's right and wrong models, false alarms and misses; there may be neither."""
    counts, faults = {True: 0, False: 0}, []
    for name, right, arguments in GUARDS[guard](tmp_path):
        arguments, options = arguments if isinstance(arguments[0], tuple) else (arguments, {})
        said = guards.explain(guard, *arguments, **options)
        counts[right] += 1
        if (said == "ok") != right:
            faults.append(f"{'false alarm' if right else 'miss'}: {name}: {said}")
    alarms = sum(fault.startswith("false") for fault in faults)
    print(f"\n{guard.__name__:22} right {counts[True]:3}, wrong {counts[False]:3}, ", end="")
    print(f"false alarms {alarms}, misses {len(faults) - alarms}")
    assert not faults, "\n".join(faults)
    assert counts[True] >= 5 and counts[False] >= 10
