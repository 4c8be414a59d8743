"""Each guard on models it should catch and models it should pass: no miss, no false alarm."""

import copy
import json
import warnings

import pytest
import torch
from peft import (
    AdaLoraConfig,
    CartridgeConfig,
    FourierFTConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peftbottleneck import BottleneckConfig
from pefthelpers import guards
from support.bottleneck_models import batch, tiny

QV = ["q_proj", "v_proj"]
METHODS = {
    "lora": (LoraConfig, {"r": 4, "target_modules": QV}),
    "dora": (LoraConfig, {"r": 4, "target_modules": QV, "use_dora": True}),
    "rslora": (LoraConfig, {"r": 4, "target_modules": QV, "use_rslora": True}),
    "adalora": (AdaLoraConfig, {"target_modules": QV, "total_step": 10}),
    "loha": (LoHaConfig, {"r": 4, "target_modules": QV}),
    "lokr": (LoKrConfig, {"r": 4, "target_modules": QV}),
    "vera": (VeraConfig, {"r": 8, "target_modules": QV}),
    "oft": (OFTConfig, {"oft_block_size": 8, "r": 0, "target_modules": QV}),
    "fourier": (FourierFTConfig, {"n_frequency": 50, "target_modules": QV}),
    "ia3": (IA3Config, {"target_modules": ["down_proj"], "feedforward_modules": ["down_proj"]}),
    "ln": (LNTuningConfig, {"target_modules": ["input_layernorm"]}),
    "prefix": (PrefixTuningConfig, {"num_virtual_tokens": 4}),
    "prompt": (PromptTuningConfig, {"num_virtual_tokens": 4}),
}
MERGEABLE = [name for name in METHODS if name not in ("prefix", "prompt")]
KINDS = {"bert": "query", "roberta": "query", "distilbert": "q_lin", "t5": "q", "gpt2": "c_attn"}


def base(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**sizes | {"pad_token_id": 0} | changes)).eval()


def wrap(method="lora", model=None, **options):
    config, own = METHODS[method]
    torch.manual_seed(1)
    name = {"adapter_name": options.pop("adapter_name", "default")}
    options = {"task_type": "CAUSAL_LM"} | own | options
    return get_peft_model(base() if model is None else model, config(**options), **name)


def step(model, parameters=None, *, steps=1, lr=1e-2, inputs=None, loss=lambda out: out.loss):
    parameters = (
        [p for p in model.parameters() if p.requires_grad] if parameters is None else parameters
    )
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    ids = torch.arange(3, 43).reshape(4, 10)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(**(inputs or {"input_ids": ids, "labels": ids}))).backward()
        optimizer.step()
    return model


def trained(method="lora", model=None, **options):
    return step(wrap(method, model, **options), steps=2).eval()


def part(model, mark):
    return [p for n, p in model.named_parameters() if mark in n and p.requires_grad]


def after(model, train=step, **options):
    """Return the arguments of check_training after training."""
    before = guards.snapshot(model)
    train(model, **options)
    return model, before


TASKS = {"t5": "SEQ_2_SEQ_LM", "gpt2": "CAUSAL_LM"}


def classifier(kind, **options):
    options = {"task_type": TASKS.get(kind, "SEQ_CLS")} | options
    return wrap("lora", tiny(kind), target_modules=[KINDS[kind]], **options)


def unfrozen(mark):
    model = wrap()
    for name, parameter in model.named_parameters():
        if mark in name:
            parameter.requires_grad = True
    return model


def spoil(model, mark, change):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if mark in name:
                parameter.copy_(change(parameter))
    return model


def training_cases(tmp):
    frozen_head = {"task_type": None}
    for method in METHODS:
        for steps in (1, 2):
            yield f"{method}, {steps} steps", True, after(wrap(method), steps=steps)
    for kind in KINDS:
        yield f"{kind}, 1 step", True, after(classifier(kind), inputs=batch(kind))
    for kind in ("roberta", "t5"):
        bottleneck = BottleneckConfig(task_type=TASKS.get(kind, "SEQ_CLS"), reduction_factor=4)
        model = get_peft_model(tiny(kind), bottleneck)
        yield f"bottleneck on {kind}, 1 step", True, after(model, inputs=batch(kind))
    yield "bfloat16 base", True, after(wrap(model=base().to(torch.bfloat16)))
    yield "full fine-tuning", True, after(base().train())
    half_off = wrap()
    half_off.base_model.model.model.norm = offloaded(half_off.base_model.model.model.norm)
    yield "a frozen weight offloaded", True, after(half_off)
    yield "nothing trainable", False, after(base().requires_grad_(False), lambda model: None)
    model = base()
    early = list(model.parameters())
    yield "optimizer too early", False, after(wrap(model=model), parameters=early)
    yield "zero rate", False, after(wrap(), lr=0.0)
    for mark in ("lora_A", "lora_B", "layers.0"):
        model = wrap()
        yield (
            f"optimizer of {mark} alone",
            False,
            after(model, parameters=part(model, mark), steps=3),
        )
    model = wrap()
    yield "lora_B alone, 1 step", False, after(model, parameters=part(model, "lora_B"))
    yield (
        "detached",
        False,
        after(wrap(), lambda m: step(m, [m.lm_head.weight.requires_grad_()])),
    )
    nan = lambda m: spoil(step(m), "lora_B", lambda p: p * float("nan"))
    yield "NaN", False, after(wrap(), nan)
    yield "base unfrozen", False, after(wrap(), lambda m: step(m.requires_grad_(True)))
    yield "norms trained, not saved", False, after(unfrozen("layernorm"))
    yield "embeddings trained, not saved", False, after(unfrozen("embed_tokens"))
    yield "half of the targets", False, after(wrap(target_modules=["q_proj", "c_attn"]))
    for kind in ("bert", "roberta", "distilbert"):
        yield (
            f"{kind}, head left out",
            False,
            after(classifier(kind, **frozen_head), inputs=batch(kind)),
        )


def folder(tmp, model, *, of=None):
    """Save an adapter, sign it, and return its folder."""
    place = tmp / f"adapter{sum(1 for _ in tmp.iterdir())}"
    model.save_pretrained(place)
    guards.sign(place, model if of is None else of)
    return place


def four_bit(model, **options):
    """Return a copy whose linear layers are in 4 bits."""
    import bitsandbytes as bnb

    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            new = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=False, **options)
            weight = bnb.nn.Params4bit(
                module.weight.data, requires_grad=False, module=new, **options
            )
            new.weight = weight.to("cpu")
            new.support_avx512bf16_for_cpu = False
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, new)
    return model


def eight_bit(model):
    """Return a copy whose linear layers are in 8 bits, as LLM.int8 holds them."""
    import bitsandbytes as bnb

    model = copy.deepcopy(model)
    for module in [m for m in model.modules() if type(m) is nn.Linear][:-1]:
        weight = bnb.nn.Int8Params(module.weight.data, requires_grad=False).to("cpu")
        if weight.dtype != torch.int8:  # this version quantises on GPUs alone
            scales = module.weight.data.abs().amax(1)
            weight.data = (module.weight.data * 127 / scales[:, None]).round().to(torch.int8)
            weight.SCB = scales
        module.weight = weight
    return model


def offloaded(model):
    from accelerate import cpu_offload

    return cpu_offload(model, execution_device=torch.device("cpu"))


def merged(model=None, **options):
    return trained("lora", model, **options).merge_and_unload()


def base_cases(tmp):
    place, nf4 = folder(tmp, trained()), {"quant_type": "nf4"}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield f"same base in {dtype}", True, (place, base().to(dtype))
    yield "16 bits and back", True, (place, base().to(torch.bfloat16).float())
    yield "4 bits", True, (place, four_bit(base(), **nf4))
    yield "4 bits of 16", True, (place, four_bit(base().to(torch.bfloat16), **nf4))
    yield "8 bits", True, (place, eight_bit(base()))
    yield "seed, 8 bits", False, (place, eight_bit(base(5)))
    yield "merged, 8 bits", False, (place, eight_bit(merged()))
    yield "offloaded", True, (place, offloaded(base()))
    yield "wrapped", True, (place, wrap(modules_to_save=["embed_tokens"]))
    yield "compiled", True, (place, torch.compile(base()))
    quantised = folder(tmp, step(wrap(model=four_bit(base(), **nf4))))
    yield "signed in 4 bits", True, (quantised, base())
    yield "signed and used in 4 bits", True, (quantised, four_bit(base(), **nf4))
    half = folder(tmp, trained(model=base().to(torch.float16)))
    yield "float16, bfloat16", True, (half, base().to(torch.bfloat16))
    for method in METHODS:
        yield method, True, (folder(tmp, trained(method)), base())
    for name, extra in {
        "trained embeddings": {"modules_to_save": ["embed_tokens"]},
        "trained tokens": {"trainable_token_indices": [5, 6]},
        "trained biases": {"bias": "lora_only"},
    }.items():
        yield name, True, (folder(tmp, trained(**extra)), base())
    head = classifier("roberta", task_type="SEQ_CLS")
    yield (
        "another new head",
        True,
        (folder(tmp, step(head, inputs=batch("roberta"))), tiny("roberta")),
    )
    yield (
        "conv1d",
        True,
        (folder(tmp, step(classifier("gpt2"), inputs=batch("gpt2"))), tiny("gpt2")),
    )
    for dtype in (torch.float32, torch.bfloat16):
        yield f"merged, {dtype}", False, (place, merged().to(dtype))
        yield f"seed, {dtype}", False, (place, base(5).to(dtype))
    yield "merged gently", False, (place, merged(lora_alpha=0.01))
    yield "merged, 4 bits", False, (place, four_bit(merged(), **nf4))
    yield "seed, 4 bits", False, (place, four_bit(base(5), **nf4))
    yield "signed in 4 bits, merged", False, (quantised, merged())
    for method in ("loha", "ia3", "ln", "oft"):
        yield f"{method} merged", False, (place, trained(method).merge_and_unload())
    yield "linear weights zeroed", False, (place, spoil(base(), "q_proj", torch.zeros_like))
    row = lambda p: torch.cat([p[:5], p[5:6] * 2, p[6:]])
    yield "one row of one weight", False, (place, spoil(base(), "layers.1.mlp.up_proj", row))
    yield "tokens added", False, (place, spoil(base(vocab_size=66), "none", None))
    yield "a layer less", False, (place, base(num_hidden_layers=1))
    yield "meta device", False, (place, base().to("meta"))
    yield "not signed", False, (tmp, base())
    old = folder(tmp, trained())
    (old / guards.FINGERPRINT).write_text(json.dumps({"base_fingerprint": "0" * 32}))
    yield "signed by the old scheme", False, (old, base())
    for name, change in RENAMED.items():
        yield f"keys {name}", False, (rename(folder(tmp, trained()), change), base())


RENAMED = {
    "of a compiled model": lambda k: k.replace("model.model.", "model._orig_mod.model."),
    "of a distributed model": lambda k: k.replace("base_model.", "base_model.module."),
    "without prefix": lambda k: k.removeprefix("base_model.model."),
    "with the adapter's name": lambda k: k.replace(".weight", ".default.weight"),
}


def rename(place, change):
    file = place / "adapter_model.safetensors"
    save_file({change(k): v for k, v in load_file(file).items()}, file)
    return place


def rewrite(place, change):
    file = place / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    return place


def adapter_cases(tmp):
    for method in METHODS:
        model = trained(method)
        place = folder(tmp, model)
        yield f"{method} saved", True, (place, model)
        yield f"{method} loaded", True, (place, PeftModel.from_pretrained(base(), place))
    rows = trained(model=base(tie_word_embeddings=False), target_modules=["q_proj", "embed_tokens"])
    yield "embeddings adapted", True, (folder(tmp, rows), rows)
    model = trained()
    place, untrained = folder(tmp, model), wrap()
    yield "loaded under a name", True, (place, PeftModel.from_pretrained(base(), place, "nonna"))
    two = PeftModel.from_pretrained(base(), place)
    two.load_adapter(place, "second")
    two.base_model.set_adapter(["default", "second"])
    yield "two active", True, (place, two)
    yield (
        "4 bits",
        True,
        (place, PeftModel.from_pretrained(four_bit(base(), quant_type="nf4"), place)),
    )
    swapped = PeftModel.from_pretrained(base(), folder(tmp, trained(lora_alpha=32)))
    hotswap_adapter(swapped, str(place), adapter_name="default")
    yield "hot swapped, other alpha", True, (place, swapped)
    yield "B zero", False, (folder(tmp, untrained), untrained)
    yield "offloaded", False, (place, offloaded(trained()))
    yield "plain model", False, (place, base())
    yield "no file", False, (tmp, model)
    for name, change in RENAMED.items():
        broken = rename(folder(tmp, model), change)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield f"keys {name}", False, (broken, PeftModel.from_pretrained(base(), broken))
    fewer = lambda state: {k: v for k, v in state.items() if "layers.0" in k}
    yield "half of the keys", False, (rewrite(folder(tmp, model), fewer), model)
    nan = lambda state: {k: v * float("nan") for k, v in state.items()}
    yield "NaN", False, (rewrite(folder(tmp, model), nan), model)
    cut = folder(tmp, model)
    (cut / "adapter_model.safetensors").write_bytes(b"cut short")
    yield "cut file", False, (cut, model)
    yield "trained on", False, (folder(tmp, model), step(copy.deepcopy(model)))
    reused = PeftModel.from_pretrained(base(), folder(tmp, trained(lora_alpha=32)))
    reused.load_adapter(place, "default")
    yield "name used again, other alpha", False, (place, reused)
    lost = step(unfrozen("layernorm"))
    yield "norms not saved", False, (folder(tmp, lost), lost)
    head = step(classifier("roberta", task_type=None), steps=2, inputs=batch("roberta"))
    yield "head left out", False, (folder(tmp, head), head)


def gentle(model, mark="lora_B", share=1e-2):
    return spoil(model, mark, lambda p: p * share)


def second(model, **options):
    """Add a second adapter with weights to a model, and make both active."""
    model.add_adapter(
        "second", LoraConfig(r=4, target_modules=QV, init_lora_weights=False, **options)
    )
    model.base_model.set_adapter(["default", "second"])
    return model


def in_bfloat16(method, **options):
    return wrap(method, base().to(torch.bfloat16), **options)


def merge_cases(tmp):
    for method in MERGEABLE:
        yield method, True, (trained(method),)
    yield "named", True, (trained(adapter_name="nonna"),)
    yield "two active", True, (second(trained()),)
    yield "two active DoRAs", True, (second(trained("dora"), use_dora=True),)
    yield "untrained", True, (wrap(),)
    yield "bfloat16, large", True, (spoil(in_bfloat16("lora"), "lora_B", lambda p: p + 1.0),)
    yield "float16", True, (trained(model=base().to(torch.float16)),)
    for kind in KINDS:
        kept = (
            step(classifier(kind), steps=2, inputs=batch(kind))
            if kind != "distilbert"
            else trained()
        )
        yield f"on {kind}", True, (kept,)
    tokens = trained(trainable_token_indices=[5, 6])
    yield "tokens of tied embeddings", True, (tokens,)
    for method in ("prefix", "prompt"):
        yield method, False, (trained(method),)
    yield "plain model", False, (base(),)
    for target in ("lm_head", "embed_tokens"):
        yield f"tied {target}", False, (trained(target_modules=["v_proj", target]),)
    yield "bfloat16, gentle", False, (gentle(step(in_bfloat16("lora"), steps=2)),)
    dora = spoil(in_bfloat16("dora"), "magnitude", lambda p: p * 1.001)
    yield "dora, magnitudes alone", False, (dora,)
    for method, mark in {
        "loha": "hada_w2_a",
        "lokr": "lokr_w1",
        "vera": "lambda_b",
        "oft": "oft_",
    }.items():
        model = gentle(step(in_bfloat16(method), steps=2), mark)
        yield f"{method} in bfloat16, gentle", False, (model,)
    yield (
        "ia3 in bfloat16, gentle",
        False,
        (spoil(in_bfloat16("ia3"), "ia3_l", lambda p: p * 1.001),),
    )
    for value in (float("nan"), float("inf")):
        yield f"{value} in B", False, (spoil(wrap(), "lora_B", lambda p, v=value: p + v),)
    yield "4-bit base", False, (wrap(model=four_bit(base(), quant_type="nf4")),)
    ofts = trained("oft")
    ofts.add_adapter("second", OFTConfig(**METHODS["oft"][1]))
    ofts.base_model.set_adapter(["default", "second"])
    yield "two active OFTs", False, (spoil(ofts, "oft_R.second", lambda p: p + 0.1),)
    named = spoil(in_bfloat16("lora", adapter_name="nonna"), "lora_B", lambda p: p + 1e-4)
    yield "named, gentle", False, (named,)
    done = trained()
    done.merge_adapter()
    yield "merged already", False, (done,)
    yield "offloaded", False, (offloaded(trained()),)


def target_cases(tmp):
    lora = lambda model, **options: get_peft_model(model, LoraConfig(r=4, **options))
    for method in METHODS:
        yield method, True, (wrap(method),)
    for kind in KINDS:
        yield f"{kind}, all-linear", True, (lora(tiny(kind), target_modules="all-linear"),)
    yield (
        "regular expression",
        True,
        (lora(base(), target_modules=r".*layers\.[01]\..*(q|v)_proj"),),
    )
    yield "excluded", True, (lora(base(), target_modules=QV, exclude_modules=r".*v_proj"),)
    yield "one layer", True, (lora(base(), target_modules=QV, layers_to_transform=[0]),)
    yield "rank pattern", True, (lora(base(), target_modules=QV, rank_pattern={"v_proj": 8}),)
    moe = mixtral()
    yield (
        "experts named",
        True,
        (lora(moe, target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"]),),
    )
    for names in (
        ["q_proj", "c_attn"],
        ["q_proj", "query"],
        ["v_proj", "w1", "w2"],
        ["up_proj", "gate_up_proj"],
    ):
        yield f"llama, {names}", False, (lora(base(), target_modules=names),)
    yield "expression", False, (lora(base(), target_modules=r".*\.(q_proj|qkv_proj)"),)
    yield (
        "layer of another",
        False,
        (lora(base(), target_modules=["layers.0.self_attn.q_proj", "layers.7.self_attn.q_proj"]),),
    )
    for names in (["q_proj", "c_proj"], ["c_attn", "fc1"]):
        yield f"gpt2, {names}", False, (lora(tiny("gpt2"), target_modules=names),)
    yield "bert, dense and q", False, (lora(tiny("bert"), target_modules=["query", "k"]),)
    yield (
        "fused experts",
        False,
        (lora(mixtral(), target_modules=["q_proj", "gate_proj", "up_proj"]),),
    )
    yield (
        "rank pattern of none",
        False,
        (lora(base(), target_modules=QV, rank_pattern={"o_proj": 8}),),
    )
    yield "alpha pattern of none", False, (lora(base(), target_modules=QV, alpha_pattern={"o": 8}),)
    yield "second adapter", False, (partial_second(),)


def partial_second():
    model = wrap()
    model.add_adapter("second", LoraConfig(target_modules=["o_proj", "out_proj"]))
    return model


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    return MixtralForCausalLM(MixtralConfig(**sizes, bos_token_id=1, eos_token_id=2))


def prefix_cases(tmp):
    def prefixed(kind, *, train=False, config=PrefixTuningConfig, task=None, **switches):
        model = base() if kind == "llama" else tiny(kind, num_key_value_heads=4)
        task = task or {"bert": "SEQ_CLS", "roberta": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}.get(
            kind, "CAUSAL_LM"
        )
        model = get_peft_model(model, config(task_type=task, num_virtual_tokens=4)).train(train)
        if switches.get("checkpointing"):
            model.get_base_model().gradient_checkpointing_enable()
        if "generate" in switches:
            model.generation_config.use_cache = switches["generate"]
        if "model" in switches:
            model.config.use_cache = switches["model"]
        return model

    for kind in ("llama", "gpt2", "t5", "bert", "roberta"):
        yield f"{kind} trains", True, (prefixed(kind, train=True),)
        yield f"{kind} evaluates", True, (prefixed(kind),)
        yield (
            f"{kind} checkpointing set, but evaluates",
            True,
            (prefixed(kind, checkpointing=True),),
        )
        yield f"{kind} checkpointing", False, (prefixed(kind, train=True, checkpointing=True),)
        yield (
            f"{kind} checkpointing asked for",
            False,
            (prefixed(kind), {"gradient_checkpointing": True}),
        )
    for kind in ("gpt2", "t5", "bert"):
        yield f"{kind} without cache", True, (prefixed(kind), {"use_cache": False})
    yield "llama trains, config says no cache", True, (prefixed("llama", train=True, model=False),)
    yield (
        "llama trains, generation says no cache",
        True,
        (prefixed("llama", train=True, generate=False),),
    )
    yield "prompt", True, (wrap("prompt"), {"gradient_checkpointing": True, "use_cache": False})
    yield "llama without cache", False, (prefixed("llama"), {"use_cache": False})
    yield "llama, generation says no cache", False, (prefixed("llama", generate=False),)
    cartridge = prefixed("llama", config=CartridgeConfig)
    yield "cartridge without cache", False, (cartridge, {"use_cache": False})


def reuse_cases(tmp):
    plain = folder(tmp, trained())
    yield "free name", True, (plain, trained(lora_alpha=32), "second")
    yield "plain model", True, (plain, base())
    yield "trained on", True, (plain, trained())
    yield "same, other seed", True, (plain, trained(model=base(5)))
    yield "same, named", True, (plain, trained(adapter_name="nonna"), "nonna")
    yield "targets in another order", True, (plain, trained(target_modules=QV[::-1]))
    for options in (
        {"r": 8}, {"lora_alpha": 32}, {"target_modules": ["q_proj"]}, {"use_rslora": True},
        {"use_dora": True}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}},
        {"modules_to_save": ["embed_tokens"]}, {"bias": "lora_only"}, {"layers_to_transform": [0]},
    ):  # fmt: skip
        yield f"other {options}", False, (plain, wrap(**options))
    yield "another method", False, (plain, wrap("loha"))


GUARDS = {
    guards.check_training: training_cases,
    guards.check_targets: target_cases,
    guards.check_base: base_cases,
    guards.check_adapter: adapter_cases,
    guards.check_reuse: reuse_cases,
    guards.check_merge: merge_cases,
    guards.check_prefix: prefix_cases,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_guard_matrix(guard, tmp_path):
    """Print guard, right and wrong models, false alarms and misses; both must be none."""
    counts, faults = {True: 0, False: 0}, []
    for name, right, arguments in GUARDS[guard](tmp_path):
        options = arguments[-1] if isinstance(arguments[-1], dict) else {}
        said = guards.explain(guard, *arguments[: len(arguments) - bool(options)], **options)
        counts[right] += 1
        if (said == "ok") != right:
            faults.append(f"{'false alarm' if right else 'miss'}: {name}: {said}")
    false_alarms = sum(fault.startswith("false") for fault in faults)
    print(f"\n{guard.__name__:16} right {counts[True]:3}, wrong {counts[False]:3}, ", end="")
    print(f"false alarms {false_alarms}, misses {len(faults) - false_alarms}")
    assert not faults, "\n".join(faults)
    assert counts[True] >= 5 and counts[False] >= 10
