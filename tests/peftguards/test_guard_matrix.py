"""Each guard on models that it should catch and on models that it should pass: none missed, no alarm.

Every case stands in a column: a method of PEFT's, a type of task, a dtype, a base in 4 (or 8) bits, an
offloaded one, or another state. ``pytest -s`` prints the table.
"""

import copy
import warnings
from collections import Counter

import pytest
import torch
from peft import LoraConfig, OFTConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from torch import nn

import peftguards
from support import guard_models as make
from support.bottleneck_models import batch, tiny
from support.guard_models import (
    QV,
    after,
    base,
    classifier,
    folder,
    four_bit,
    merged,
    renamed,
    rewritten,
    sized,
    spoil,
    step,
    times,
    trained,
    wrap,
)

COLUMNS = ("methods", "task types", "dtypes", "4 bits", "offloaded", "states")
HALF = (torch.bfloat16, torch.float16)
NAN = float("nan")
LABEL = torch.zeros(4, dtype=torch.long)
HEADS = (
    ("ForSequenceClassification", "SEQ_CLS", {"labels": LABEL}),
    ("ForTokenClassification", "TOKEN_CLS", {"labels": LABEL[:, None].repeat(1, 10)}),
    ("ForQuestionAnswering", "QUESTION_ANS", {"start_positions": LABEL, "end_positions": LABEL}),
)


def part(model, mark):
    """Return the trainable parameters whose name holds a mark."""
    return [p for n, p in model.named_parameters() if mark in n and p.requires_grad]


def training_cases(tmp):
    for method in (*make.METHODS, *make.VARIANTS):
        for steps in (1, 2):
            right = method != "SHADOW"  # nothing reads what its last layer's transform makes
            yield "methods", f"{method}, {steps} steps", right, after(wrap(method), steps=steps)
    for kind in make.QUERIES:
        yield "task types", kind, True, after(classifier(kind), inputs=batch(kind))
    for kind in ("roberta", "t5"):
        model = wrap("BOTTLENECK", tiny(kind), task_type=make.TASKS[kind])
        yield "task types", f"bottleneck on {kind}", True, after(model, inputs=batch(kind))
    for kind, task, labels in HEADS:
        model = wrap("LORA", make.of(kind, "bert"), task_type=task, target_modules=["query"])
        inputs = {"input_ids": make.IDS, **labels}
        yield "task types", task, True, after(model, inputs=inputs)
    for dtype in HALF:
        yield "dtypes", dtype, True, after(wrap(model=base().to(dtype)), lr=1e-3)
    yield "4 bits", "NF4", True, after(wrap(model=four_bit(base())))
    norm = wrap()
    norm.base_model.model.model.norm = make.offloaded(norm.base_model.model.model.norm)
    yield "offloaded", "a frozen norm", True, after(norm)
    yield "states", "two adapters, one trained", True, after(make.second(wrap(), active="second"))
    yield "states", "full fine-tuning", True, after(base().train())
    named = wrap(modules_to_save=["embed_tokens"], model=base(tie_word_embeddings=False))
    yield "states", "embeddings trained and saved", True, after(named)
    yield "states", "no trace of writing", True, after(wrap(), silently)
    for method in ("LORA", "VERA", "LOHA", "PREFIX_TUNING"):
        yield "methods", f"{method}, rate zero", False, after(wrap(method), lr=0.0)
        yield "methods", f"{method}, no step", False, after(wrap(method), lambda model: None)
    for kind in ("bert", "roberta", "distilbert"):
        model = classifier(kind, task_type=None)
        yield "task types", f"{kind}, head left out", False, after(model, inputs=batch(kind))
    for value in (NAN, float("inf")):
        spoiled = after(wrap(), lambda m, v=value: spoil(step(m), "lora_B", lambda p: p + v))
        yield "dtypes", f"{value}", False, spoiled
    yield "4 bits", "NF4, rate zero", False, after(wrap(model=four_bit(base())), lr=0.0)
    yield "states", "nothing to train", False, after(base().requires_grad_(False), lambda m: None)
    early = base()
    old = list(early.parameters())
    yield "states", "optimizer too early", False, after(wrap(model=early), parameters=old)
    for mark, steps in (("lora_A", 3), ("lora_B", 3), ("lora_B", 1), ("layers.0", 3)):
        model = wrap()
        only = after(model, parameters=part(model, mark), steps=steps)
        yield "states", f"optimizer of {mark} alone", False, only
    yield "states", "base unfrozen", False, after(wrap(), lambda m: step(m.requires_grad_(True)))
    for mark in ("norm", "layers.1.mlp.up_proj"):
        yield "states", f"{mark} moved", False, after(wrap(), spoil, mark=mark, change=times(1.01))
        yield "states", f"{mark} trained, not saved", False, after(make.unfrozen(mark))
    yield "states", "half of the targets", False, after(wrap(target_modules=["q_proj", "query"]))
    cut = wrap()
    detach = lambda module, inputs: (inputs[0].detach(), *inputs[1:])
    cut.base_model.model.model.layers[1].register_forward_pre_hook(detach)
    yield "states", "gradient cut below the last layer", False, after(cut, steps=3)


def silently(model):
    """Take a step as bitsandbytes' optimizers do: torch does not count what they write."""
    counts = {n: p._version for n, p in model.named_parameters()}
    step(model)
    for name, parameter in model.named_parameters():
        torch._C._autograd._unsafe_set_version_counter((parameter,), (counts[name],))


def target_cases(tmp):
    lora = lambda model, **options: (get_peft_model(model, LoraConfig(r=4, **options)),)
    for method in (*make.METHODS, *make.VARIANTS):
        yield "methods", method, True, (wrap(method),)
    for kind in make.QUERIES:
        yield (
            "task types",
            f"{kind}, all-linear",
            True,
            lora(tiny(kind), target_modules="all-linear"),
        )
        yield "task types", kind, True, (classifier(kind),)
    yield "dtypes", "bfloat16", True, lora(base().bfloat16(), target_modules=QV)
    yield "4 bits", "NF4", True, lora(four_bit(base()), target_modules=QV)
    yield "offloaded", "CPU", True, (make.offloaded(wrap()),)
    pattern = r".*layers\.[01]\..*(q|v)_proj"
    yield "states", "regular expression", True, lora(base(), target_modules=pattern)
    for name, options in {
        "excluded": {"exclude_modules": r".*v_proj"},
        "one layer": {"layers_to_transform": [0]},
        "rank pattern": {"rank_pattern": {"v_proj": 8}},
    }.items():
        yield "states", name, True, lora(base(), target_modules=QV, **options)
    experts = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj"]}
    yield "states", "experts named", True, lora(make.mixtral(), **experts)
    for kind, names in {
        "gpt2": ["c_attn", "fc1"],
        "bert": ["query", "k"],
        "roberta": ["query", "out_proj_"],
        "t5": ["q", "fc1"],
    }.items():
        yield "task types", f"{kind}, {names}", False, lora(tiny(kind), target_modules=names)
    for names in (["q_proj", "c_attn"], ["v_proj", "w1", "w2"], ["up_proj", "gate_up_proj"]):
        yield "states", f"{names}", False, lora(base(), target_modules=names)
    nf4 = lora(four_bit(base()), target_modules=["q_proj", "query"])
    yield "4 bits", "NF4, one of two", False, nf4
    expression = r".*\.(q_proj|qkv_proj)"
    yield "states", "expression", False, lora(base(), target_modules=expression)
    layers = [f"layers.{i}.self_attn.q_proj" for i in (0, 7)]
    yield "states", "layer of another", False, lora(base(), target_modules=layers)
    fused = ["q_proj", "gate_proj", "up_proj"]
    yield "states", "fused experts", False, lora(make.mixtral(), target_modules=fused)
    for field in ("rank_pattern", "alpha_pattern"):
        options = {"target_modules": QV, field: {"o_proj": 8}}
        yield "states", f"{field} of none", False, lora(base(), **options)
    saved = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "poolr"]}
    yield "task types", "a head's name and a slip", False, (classifier("bert", **saved),)
    second = wrap()
    second.add_adapter("second", LoraConfig(target_modules=["o_proj", "out_proj"]))
    yield "states", "second adapter", False, (second,)
    for kind in ("LOHA", "OFT"):
        yield "methods", f"{kind}, one of two", False, (wrap(kind, target_modules=["q_proj", "q"]),)


def small_merge(share):
    """Return the base with a correction of this share of each weight's norm merged in."""
    return sized(share, torch.float32).merge_and_unload()


def base_cases(tmp):
    place = folder(tmp, trained())
    for method in make.METHODS:
        yield "methods", method, True, (folder(tmp, trained(method)), base())
    for name, extra in {
        "trained embeddings": {"modules_to_save": ["embed_tokens"]},
        "trained tokens": {"trainable_token_indices": [5, 6]},
        "trained biases": {"bias": "lora_only"},
    }.items():
        yield "methods", name, True, (folder(tmp, trained(**extra)), base())
    for kind in ("roberta", "gpt2", "t5"):
        model = step(classifier(kind), inputs=batch(kind))
        yield "task types", f"{kind}, any new head", True, (folder(tmp, model), tiny(kind))
    for dtype in (torch.float32, *HALF):
        yield "dtypes", dtype, True, (place, base().to(dtype))
        yield "4 bits", f"NF4 of {dtype}", True, (place, four_bit(base().to(dtype)))
    yield "dtypes", "16 bits and back", True, (place, base().bfloat16().float())
    half = folder(tmp, trained(model=base().half()))
    yield "dtypes", "signed in float16, in bfloat16", True, (half, base().bfloat16())
    yield "4 bits", "NF4 twice", True, (place, four_bit(base(), compress_statistics=True))
    yield "4 bits", "8 bits", True, (place, make.eight_bit(base()))
    in_nf4 = folder(tmp, step(wrap(model=four_bit(base()))))
    yield "4 bits", "signed in NF4", True, (in_nf4, base())
    yield "4 bits", "signed and used in NF4", True, (in_nf4, four_bit(base()))
    yield "4 bits", "NF4 dequantised", True, (in_nf4, make.dequantised(four_bit(base())))
    yield "offloaded", "CPU", True, (place, make.offloaded(base()))
    yield "offloaded", "disk", True, (place, make.offloaded(base(), tmp / "off"))
    yield "states", "wearing another adapter", True, (place, wrap("DoRA"))
    yield "states", "compiled", True, (place, torch.compile(base()))
    for method in ("DoRA", "LOHA", "IA3", "LN_TUNING", "OFT"):
        yield "methods", f"{method} merged", False, (place, merged(method))
    other = folder(tmp, step(classifier("roberta"), inputs=batch("roberta")))
    smaller = tiny("roberta", num_hidden_layers=1)
    yield "task types", "roberta of one layer", False, (other, smaller)
    for dtype in (torch.float32, *HALF):
        yield "dtypes", f"merged, {dtype}", False, (place, merged().to(dtype))
        yield "dtypes", f"another seed, {dtype}", False, (place, base(5).to(dtype))
    yield "dtypes", "a merge of 1 %, bfloat16", False, (place, small_merge(0.01).bfloat16())
    yield "dtypes", "a merge of 0.01 %", False, (place, small_merge(1e-4))
    yield "4 bits", "merged", False, (place, four_bit(merged()))
    yield "4 bits", "a merge of 1.2 %", False, (place, four_bit(small_merge(0.012)))
    yield "4 bits", "another seed", False, (place, four_bit(base(5)))
    yield "4 bits", "8 bits, another seed", False, (place, make.eight_bit(base(5)))
    yield "4 bits", "8 bits, merged", False, (place, make.eight_bit(merged()))
    yield "4 bits", "signed in NF4, a merge of 1.2 %", False, (in_nf4, small_merge(0.012))
    yield "4 bits", "signed and used in NF4, merged", False, (in_nf4, four_bit(merged()))
    yield "4 bits", "FP4", False, (place, four_bit(base(), quant_type="fp4"))
    yield "offloaded", "nowhere", False, (place, base().to("meta"))
    yield "offloaded", "another seed", False, (place, make.offloaded(base(5)))
    for mark in ("layers.1.mlp.down_proj", "norm"):
        zeroed = spoil(base(), mark, torch.zeros_like)
        yield "states", f"{mark} zeroed", False, (place, zeroed)
        yield "4 bits", f"{mark} zeroed", False, (place, four_bit(zeroed))
    row = lambda p: torch.cat([p[:5], p[5:6] * 2, p[6:]])
    yield "states", "one row of one weight", False, (place, spoil(base(), "layers.1.mlp.up", row))
    one = lambda p: p.clone().index_fill_(0, torch.tensor([7]), 1.01)
    yield "states", "one value of a norm", False, (place, spoil(base(), "layers.1.post", one))
    yield "4 bits", "NaN", False, (place, four_bit(spoil(base(), "up_proj", times(NAN))))
    yield "states", "tokens added", False, (place, base(vocab_size=66))
    for layers in (1, 3):
        yield "states", f"{layers} layers", False, (place, base(num_hidden_layers=layers))
    yield "states", "not signed", False, (tmp, base())
    for name, text in {"an older kind": '{"weights": {"x": {"4 bits": []}}}', "cut": "{"}.items():
        damaged = folder(tmp, trained())
        (damaged / peftguards.FINGERPRINT).write_text(text)
        yield "states", f"signature: {name}", False, (damaged, base())
    for name, change in make.RENAMED.items():
        yield "states", f"keys {name}", False, (renamed(folder(tmp, trained()), change), base())


def adapter_cases(tmp):
    loaded = lambda place, on=None: PeftModel.from_pretrained(on or base(), place)
    for method in make.METHODS:
        model = trained(method)
        place = folder(tmp, model)
        yield "methods", f"{method} saved", True, (place, model)
        yield "methods", f"{method} loaded", True, (place, loaded(place))
    model, plain = trained(), folder(tmp, trained())
    for kind in ("roberta", "t5", "gpt2"):
        other = step(classifier(kind), steps=2, inputs=batch(kind))
        place = folder(tmp, other)
        yield "task types", f"{kind} loaded", True, (place, loaded(place, tiny(kind)))
    for dtype in HALF:
        yield "dtypes", dtype, True, (plain, loaded(plain, base().to(dtype)))
    yield "4 bits", "NF4", True, (plain, loaded(plain, four_bit(base())))
    untied = {
        "model": base(tie_word_embeddings=False),
        "target_modules": ["q_proj", "embed_tokens"],
    }
    rows = trained(**untied)
    yield "states", "embeddings adapted", True, (folder(tmp, rows), rows)
    named = PeftModel.from_pretrained(base(), plain, "nonna")
    yield "states", "loaded under a name", True, (plain, named)
    two = loaded(plain)
    two.load_adapter(plain, "second")
    two.base_model.set_adapter(["default", "second"])
    yield "states", "two active", True, (plain, two)
    for name, options in {"alpha": {"lora_alpha": 32}, "rank": {"r": 8}}.items():
        swapped = loaded(folder(tmp, trained(**options)))
        hotswap_adapter(swapped, str(plain), adapter_name="default")
        yield "states", f"hot swapped, another {name}", True, (plain, swapped)
    narrow, wide = folder(tmp, trained(target_modules=["q_proj"])), loaded(plain)
    hotswap_adapter(wide, str(narrow), adapter_name="default")
    yield "states", "hot swapped, fewer targets", True, (narrow, wide)
    yield "states", "hot swapped, the old file", False, (plain, wide)
    for method in ("LORA", "VERA", "LOHA"):
        fresh = wrap(method)
        yield "methods", f"{method} untrained", False, (folder(tmp, fresh), fresh)
    yield "offloaded", "CPU", False, (plain, make.offloaded(trained()))
    yield "4 bits", "B zero", False, (folder(tmp, wrap()), wrap(model=four_bit(base())))
    yield "states", "plain model", False, (plain, base())
    yield "states", "no file", False, (tmp, model)
    for name, change in make.RENAMED.items():
        broken = renamed(folder(tmp, model), change)
        yield "states", f"keys {name}", False, (broken, loaded(broken))
    fewer = lambda state: {k: v for k, v in state.items() if "layers.0" in k}
    yield "states", "half of the keys", False, (rewritten(folder(tmp, model), fewer), model)
    nan = lambda state: {k: v * NAN for k, v in state.items()}
    yield "dtypes", "NaN", False, (rewritten(folder(tmp, model), nan), model)
    cut = folder(tmp, model)
    (cut / "adapter_model.safetensors").write_bytes(b"cut short")
    yield "states", "cut file", False, (cut, model)
    yield "states", "trained on", False, (folder(tmp, model), step(copy.deepcopy(model)))
    reused = loaded(folder(tmp, trained(lora_alpha=32)))
    reused.load_adapter(plain, "default")
    yield "states", "name used again, other alpha", False, (plain, reused)
    lost = step(make.unfrozen("layernorm"))
    yield "states", "norms not saved", False, (folder(tmp, lost), lost)
    head = step(classifier("roberta", task_type=None), steps=2, inputs=batch("roberta"))
    yield "task types", "head left out", False, (folder(tmp, head), head)


def reuse_cases(tmp):
    plain = folder(tmp, trained())
    yield "states", "free name", True, (plain, trained(lora_alpha=32), "second")
    yield "states", "plain model", True, (plain, base())
    yield "states", "trained on", True, (plain, trained())
    yield "states", "another base", True, (plain, trained(model=base(5)))
    yield "states", "same, named", True, (plain, trained(name="nonna"), "nonna")
    yield "states", "targets in another order", True, (plain, trained(target_modules=QV[::-1]))
    yield "4 bits", "NF4", True, (plain, wrap(model=four_bit(base())))
    for options in (
        {"r": 8}, {"lora_alpha": 32}, {"target_modules": ["q_proj"]}, {"use_rslora": True},
        {"use_dora": True}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}},
        {"modules_to_save": ["embed_tokens"]}, {"bias": "lora_only"}, {"layers_to_transform": [0]},
    ):  # fmt: skip
        yield "states", f"other {options}", False, (plain, wrap(**options))
    for method in ("LOHA", "IA3", "OFT"):
        yield "methods", f"a {method} of this name", False, (plain, wrap(method))


def merge_cases(tmp):
    for method in (*make.METHODS, *make.VARIANTS):
        model = trained(method)
        yield "methods", method, make.merges(model), (model,)
    for kind in make.QUERIES:
        model = step(classifier(kind), steps=2, inputs=batch(kind))
        yield "task types", kind, True, (model,)
    for ratio in (0.1, 0.03, 0.01):  # noise of 1, 5 and 15 %
        yield "dtypes", f"bfloat16, ΔW {ratio} of W", True, (sized(ratio),)
    yield "dtypes", "float16, ΔW 0.001 of W", True, (sized(1e-3, torch.float16),)
    yield "dtypes", "named, bfloat16", True, (sized(0.1, name="nonna"),)
    for name, model in {
        "untrained": wrap(),
        "untrained DoRA": wrap("DoRA"),
        "named": trained(name="nonna"),
        "two active": make.second(trained()),
        "second active": make.second(trained(), active="second"),
        "two active DoRAs": make.second(trained("DoRA"), use_dora=True),
        "tokens of tied embeddings": trained(trainable_token_indices=[5, 6]),
    }.items():
        yield "states", name, True, (model,)
    untied = {"model": base(tie_word_embeddings=False), "target_modules": ["v_proj", "lm_head"]}
    yield "states", "untied head", True, (trained(**untied),)
    in_bfloat16 = lambda method="LORA": step(wrap(method, base().bfloat16()), steps=2)
    for method, mark, change in (
        ("DoRA", "magnitude", times(1.001)), ("IA3", "ia3_l", lambda p: p / p * 1.001),
        ("LOHA", "hada_w2_a", times(1e-2)), ("LOKR", "lokr_", times(1e-2)),
        ("VERA", "lambda_b", times(1e-2)), ("OFT", "oft_", times(1e-2)),
    ):  # fmt: skip
        model = wrap(method, base().bfloat16()) if method == "DoRA" else in_bfloat16(method)
        yield "methods", f"{method}, bfloat16, small", False, (spoil(model, mark, change),)
    for method in ("LOHA", "IA3"):
        options = {"task_type": "SEQ_CLS", "target_modules": ["query"]}
        options |= {"feedforward_modules": []} if method == "IA3" else {}
        yield (
            "task types",
            f"{method} beside a head",
            False,
            (wrap(method, tiny("roberta"), **options),),
        )
    for ratio in (2e-3, 1e-3, 1e-4):  # 0.85, 0.6 and 0.1 of the correction kept
        yield "dtypes", f"bfloat16, ΔW {ratio} of W", False, (sized(ratio),)
    yield "dtypes", "float16, ΔW 1e-5 of W", False, (sized(1e-5, torch.float16),)
    big = spoil(step(wrap(model=base().half()), lr=1e-3, steps=2), "lora_", times(1e4))
    yield "dtypes", "too large for float16", False, (big,)
    for value in (NAN, float("inf")):
        spoiled = spoil(trained(), "lora_B", lambda p, v=value: p + v)
        yield "dtypes", f"{value} in B", False, (spoiled,)
    for storage in (torch.uint8, torch.bfloat16):
        nf4 = four_bit(base(), quant_storage=storage)
        yield "4 bits", f"NF4 in {storage}", False, (wrap(model=nf4),)
    yield "4 bits", "8 bits", False, (wrap(model=make.eight_bit(base())),)
    yield "offloaded", "CPU", False, (make.offloaded(trained()),)
    for target in ("lm_head", "embed_tokens"):
        yield "states", f"tied {target}", False, (trained(target_modules=["v_proj", target]),)
    yield "states", "tied, named", False, (trained(name="nonna", target_modules=["lm_head"]),)
    first = spoil(in_bfloat16(), "lora_B", lambda p: p + 1)
    small = spoil(make.second(first, active="second"), "lora_B.second", times(1e-6))
    yield "states", "second too small", False, (small,)
    nan = spoil(make.second(trained()), "lora_B.second", times(NAN))
    yield "states", "NaN in the second", False, (nan,)
    ofts = trained("OFT")
    ofts.add_adapter("second", OFTConfig(r=0, oft_block_size=8, target_modules=QV))
    ofts.base_model.set_adapter(["default", "second"])
    ofts = spoil(spoil(ofts, "oft_R.default", lambda p: p + 0.2), "oft_R.second", lambda p: p + 0.2)
    yield "states", "two active OFTs", make.merges(ofts), (ofts,)
    experts = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj"]}
    fused = trained(model=make.mixtral(), **experts)
    yield "states", "fused experts", make.merges(fused), (fused,)
    done = trained()
    done.merge_adapter()
    yield "states", "merged already", False, (done,)
    yield "states", "plain model", False, (base(),)


def prefix_cases(tmp):
    def prefixed(kind, *, train=False, checkpointing=False, off=None, method="PREFIX_TUNING"):
        model = base() if kind == "llama" else tiny(kind, num_key_value_heads=4)
        model = wrap(method, model, task_type=make.TASKS.get(kind, "CAUSAL_LM")).train(train)
        if checkpointing:
            model.get_base_model().gradient_checkpointing_enable()
        if off:
            getattr(model, off).use_cache = False
        return model

    no_cache, ask = {"use_cache": False}, {"gradient_checkpointing": True}
    checkpointed = {"train": True, "checkpointing": True}
    for kind in ("llama", "gpt2", "qwen2", "t5", "bert", "roberta"):
        yield "task types", f"{kind} trains", True, (prefixed(kind, train=True),)
        yield "task types", f"{kind} evaluates", True, (prefixed(kind, checkpointing=True),)
        yield "task types", f"{kind} checkpoints", False, (prefixed(kind, **checkpointed),)
        yield "task types", f"{kind}, asked for", False, ((prefixed(kind),), ask)
    for kind in ("gpt2", "qwen2", "mistral", "qwen3", "smollm3", "bert"):
        yield "task types", f"{kind} without cache", True, ((prefixed(kind),), no_cache)
    yield "states", "llama, its configuration", True, (prefixed("llama", off="config"),)
    for off in ("config", "generation_config"):
        yield "states", f"llama trains, {off}", True, (prefixed("llama", train=True, off=off),)
    for method in ("PROMPT_TUNING", "LORA", "BOTTLENECK"):
        yield "methods", method, True, ((wrap(method),), no_cache | ask)
    yield "methods", "plain model", True, ((base(),), no_cache | ask)
    for kind in ("llama", "t5"):  # the first breaks, the second goes on without its prefix
        yield "states", f"{kind} without cache", False, ((prefixed(kind),), no_cache)
        yield (
            "states",
            f"{kind} generates without",
            False,
            (prefixed(kind, off="generation_config"),),
        )
    yield "methods", "cartridge", False, ((prefixed("llama", method="CARTRIDGE"),), no_cache)
    yield "methods", "cartridge, asked for", False, ((prefixed("llama", method="CARTRIDGE"),), ask)


def cut(model, *layers):
    """Hand no gradient on in these of a model's 4-bit layers, as packing does."""
    found = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    for number in layers:
        found[number].register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
    return model


def gradient_cases(tmp):
    yield "4 bits", "NF4", True, (four_bit(base()),)
    yield "4 bits", "constants quantised", True, (four_bit(base(), compress_statistics=True),)
    yield "4 bits", "FP4", True, (four_bit(base(), quant_type="fp4"),)
    yield "dtypes", "NF4 of bfloat16", True, (four_bit(base().bfloat16()),)
    for method in ("LORA", "DoRA", "PREFIX_TUNING"):
        yield "methods", f"{method} on NF4", True, (wrap(method, four_bit(base())),)
    yield "states", "in training", True, (four_bit(base()).train(),)
    for layers in ((0,), (13,), (3, 4), (5, 6, 7), range(7), range(14)):
        yield "4 bits", f"{len(layers)} cut", False, (cut(four_bit(base()), *layers),)
    for method in ("LORA", "PREFIX_TUNING"):
        yield "methods", f"{method}, cut", False, (wrap(method, cut(four_bit(base()), 2)),)
    for name, model in {"plain": base(), "LoRA": wrap(), "bfloat16": base().bfloat16()}.items():
        yield "dtypes", f"{name}, no 4-bit layer", False, (model,)


def evaluated(packs, shape=(64, 64)):
    """Return a 4-bit layer whose weight is packed, or not, as after an evaluation."""
    layer = make.nf4(torch.randn(shape), packs=packs)
    if packs:  # the mark that packing leaves, on any machine
        layer.weight.quant_state.packing_format_for_cpu = True
    return layer


def packing_cases(tmp):
    for shape in ((64, 64), (32, 128), (48, 192)):
        yield "4 bits", f"{shape} not evaluated", True, (make.nf4(torch.randn(shape), packs=True),)
        yield "4 bits", f"{shape} not packed", True, (evaluated(False, shape),)
        for place in range(3):
            layers = [evaluated(number == place, shape) for number in range(3)]
            yield "4 bits", f"{shape} packed at {place}", False, (nn.Sequential(*layers),)
    yield "dtypes", "plain model", True, (base(),)
    packed = four_bit(base())
    packed.model.layers[1].mlp.up_proj = evaluated(True, (128, 64))
    yield "4 bits", "one layer of a model", False, (packed,)
    yield "methods", "LoRA on it", False, (wrap(model=copy.deepcopy(packed)),)


def width_cases(tmp):
    for inputs in (64, 128, 192, 576):
        for outputs in (8, 48, 100):
            yield (
                "4 bits",
                f"{inputs} to {outputs}",
                True,
                (make.nf4(torch.randn(outputs, inputs)),),
            )
    yield "dtypes", "not in 4 bits", True, (nn.Linear(96, 64),)
    for inputs in (32, 48, 80, 96, 100, 160, 200, 300):
        yield "4 bits", f"{inputs} to 64", False, (make.nf4(torch.randn(64, inputs)),)
    wide = four_bit(base(intermediate_size=96))
    yield "4 bits", "a model's down_proj", False, (wide,)
    yield "methods", "LoRA on it", False, (wrap(model=wide),)


GUARDS = {
    peftguards.check_training: training_cases,
    peftguards.check_targets: target_cases,
    peftguards.check_base: base_cases,
    peftguards.check_adapter: adapter_cases,
    peftguards.check_reuse: reuse_cases,
    peftguards.check_merge: merge_cases,
    peftguards.check_prefix: prefix_cases,
    peftguards.check_input_gradients: gradient_cases,
    peftguards.keep_input_gradients: packing_cases,
    peftguards.refuse_widths: width_cases,
}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_guard_matrix(guard, tmp_path):
    """Print right + wrong models by column, false alarms and misses of a guard; there may be neither."""
    counts, faults = Counter(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for column, name, right, arguments in GUARDS[guard](tmp_path):
            arguments, options = arguments if isinstance(arguments[0], tuple) else (arguments, {})
            said = peftguards.explain(guard, *arguments, **options)
            counts[column, right] += 1
            if (said == "ok") != right:
                kind = "false alarm" if right else "miss"
                faults.append(f"{kind}: {column}: {name}: {said}")
    cells = [f"{column} {counts[column, True]}+{counts[column, False]}" for column in COLUMNS]
    alarms = sum(fault.startswith("false") for fault in faults)
    print(f"\n{guard.__name__:22}", *(f"{cell:17}" for cell in cells), end="")
    print(f"false alarms {alarms}, misses {len(faults) - alarms}")
    assert not faults, "\n".join(faults)
    assert sum(n for (_, right), n in counts.items() if right) >= 5
    assert sum(n for (_, right), n in counts.items() if not right) >= 10
