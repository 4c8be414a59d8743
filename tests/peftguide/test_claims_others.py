"""Claims about prefixes, adapters, 4 bits and practice: put to the libraries again.

``claim_N`` returns the verdict that the answer means, and the numbers that the ledger must render.
"""

import copy
import importlib.util
import inspect
import tempfile
import warnings
from functools import cache

import bitsandbytes as bnb
import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

import peftmemory
from peftbottleneck import BottleneckConfig
from pefthelpers import models, results
from support.cells import Cells
from support.claims_again import agree, table_of
from support.claims_models import (
    IDS,
    LINEAR,
    four_bits,
    gap,
    kitchen_decoder,
    llama,
    logits,
    roberta,
    tuned,
)

SEQ2SEQ, SEQ_CLS = {"task_type": "SEQ_2_SEQ_LM"}, {"task_type": "SEQ_CLS"}


def claim_33():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2}
    config = T5Config(**sizes, num_heads=2, decoder_start_token_id=0)
    t5 = T5ForConditionalGeneration(config).eval()
    prefix = peft.PrefixTuningConfig(**SEQ2SEQ, num_virtual_tokens=4)
    with torch.no_grad():
        plain = t5(input_ids=IDS, labels=IDS)
        out = get_peft_model(t5, prefix).eval()(input_ids=IDS, labels=IDS)
    same = torch.equal(plain.encoder_last_hidden_state, out.encoder_last_hidden_state)
    return "false" if same and gap(plain.logits, out.logits) > 0 else "true"


def claim_34():
    from transformers import AutoModelForSeq2SeqLM, T5Config

    options = {"num_virtual_tokens": 30, "encoder_hidden_size": 768, "prefix_projection": True}
    with torch.device("meta"):
        t5 = AutoModelForSeq2SeqLM.from_config(T5Config(**peftmemory.load_config("t5-base").raw))
        t5 = get_peft_model(t5, peft.PrefixTuningConfig(**SEQ2SEQ, **options))
    trained = sum(p.numel() for p in t5.parameters() if p.requires_grad)
    saved, tokens = 30 * 2 * 12 * 768, 30 * 768
    texts = f"{trained - tokens:,}", f"{saved:,}", f"{trained:,}"
    return "false" if trained - tokens > 20_000 else "true", *texts


def claim_35():
    base, tokenizer, batch = kitchen_decoder()
    book = Cells("04b_prefix_in_depth")
    book.namespace |= {
        "torch": torch,
        "copy": copy,
        "base": base,
        "tokenizer": tokenizer,
        "SEED": 0,
        "N": 8,
    }
    names = ("get_peft_model", "PrefixTuningConfig", "initialize_kv_prefix_from_text")
    book.namespace |= {name: getattr(peft, name) for name in names}
    book.run("define-started", "define-gradient_norms")
    started, norms = book.namespace["started"], book.namespace["gradient_norms"]
    kinds = ("random", "zero", "real K/V", "projection")  # the cue leaves nothing to learn
    layers = base.config.num_hidden_layers
    largest = {int(norms(started(kind), batch, layers).argmax()) for kind in kinds}
    rows = results.rows("prefix_stability").query("task == 'learn' and tokens == 64 and clip")
    left = rows.groupby(["kind", "learning_rate"])["facts"].mean()
    falls = [left[kind].iloc[-1] < left[kind].iloc[0] - 0.1 for kind in ("random", "projection")]
    return "only if" if largest == {0} and all(falls) else "false"


def claim_41():
    base, moved = roberta(), {}
    for how in ("identity", "houlsby", "bert"):
        config = BottleneckConfig(**SEQ_CLS, init_weights=how)
        moved[how] = gap(logits(get_peft_model(copy.deepcopy(base), config).eval()), logits(base))
    exact = moved.pop("identity") == 0
    return "only if" if exact and min(moved.values()) > 0 else "true", "move by 0"


def claim_42():
    from transformers import RobertaConfig, RobertaForSequenceClassification

    with torch.device("meta"):
        model = RobertaForSequenceClassification(RobertaConfig(num_hidden_layers=1))
        model = get_peft_model(model, BottleneckConfig(**SEQ_CLS, reduction_factor=16))
    widths = {p.shape[0] for n, p in model.named_parameters() if "down.default.weight" in n}
    return "true" if widths == {48} else "false", f"{widths.pop()}"


def claim_43():
    import transformers

    gone = importlib.util.find_spec("transformers.adapters") is None
    assert not hasattr(transformers, "RobertaAdapterModel")
    config = peft.AdaptionPromptConfig(**SEQ_CLS, adapter_len=4, adapter_layers=1)
    with pytest.raises(ValueError, match="Unsupported model type"):
        get_peft_model(roberta(), config)
    return "outdated" if gone else "true"


def claim_45():
    from transformers import TrainingArguments

    with pytest.raises(ValueError, match="save and eval strategy to match"):
        TrainingArguments("out", load_best_model_at_end=True, use_cpu=True)
    return "false"


def claim_47():
    model = tuned(llama(), name="one", seed=1)
    model.add_adapter("two", LoraConfig(r=8, lora_alpha=16, init_lora_weights=False, **LINEAR))
    mixed, base = logits(model, adapter_names=["one", "two"]), logits(llama())
    for row, name in enumerate(("one", "two")):
        model.set_adapter(name)
        assert gap(logits(model)[row], mixed[row]) < 1e-5
    assert gap(mixed[0], base[0]) > 0.01 and gap(mixed[1], base[1]) > 0.01
    with model.disable_adapter():
        return "false", f"to the base is {gap(logits(model), base):.0f}"


def claim_48():
    W, each = torch.randn(256, 512), []
    for double in (False, True):
        options = {"quant_type": "nf4", "compress_statistics": double}
        packed, state = bnb.functional.quantize_4bit(W, **options)
        kept = [packed, state.absmax] + ([state.state2.absmax] if double else [])
        each.append(8 * sum(t.nbytes for t in kept) / W.numel())
    return "true" if each[1] < each[0] < 5 else "false", f"{each[0]:.1f} to {each[1]:.3f} bits"


def improved(blocks, levels):
    """Return levels moved towards the mean of what chose them, as notebook 06 does, five times."""
    largest = blocks.abs().amax(1, keepdim=True)
    scaled, cost = (blocks / largest).flatten(), largest.pow(2).expand_as(blocks).flatten()
    for _ in range(5):
        codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
        levels = (torch.bincount(codes, scaled * cost) / torch.bincount(codes, cost)).float()
    return levels


def claim_49():
    rounding, levels = four_bits()["rounding"], four_bits()["nf4_levels"]()
    weights, fresh = (
        torch.randn(2**20, generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    books = {"nf4": levels, "int4": torch.arange(-7, 8) / 7}
    books["fp4"] = bnb.functional.get_4bit_type("fp4", device="cpu").unique()
    errors = {name: rounding(weights, book, 64) for name, book in books.items()}
    better = improved(weights.reshape(-1, 64), levels)
    squared, entropy = (
        {name: found[kind] for name, found in errors.items()}
        for kind in ("squared error", "entropy")
    )
    gain = (
        rounding(fresh, better, 64)["squared error"] / rounding(fresh, levels, 64)["squared error"]
    )
    ordered = squared["nf4"] < squared["int4"] < squared["fp4"]
    verdict = "false" if gain < 0.95 and ordered and entropy["nf4"] < 3.99 else "true"
    return verdict, f"{entropy['nf4']:.2f}", *(f"{error:.4f}" for error in squared.values())


@cache
def loaded():
    """Return the kitchen decoder's parameters in bfloat16 and 4 bits, and the prepared model."""
    four_bit, _ = models.load("decoder", dtype="bfloat16", four_bit=True)
    before = {name: (p.dtype, p.nbytes) for name, p in four_bit.named_parameters()}
    return before, peft.prepare_model_for_kbit_training(four_bit)


def claim_51():
    before, _ = loaded()
    quantised = {name for name, (dtype, _) in before.items() if dtype is torch.uint8}
    assert quantised and all("_proj" in name for name in quantised)
    norms = {dtype for name, (dtype, _) in before.items() if "norm" in name}
    return "false" if norms == {torch.bfloat16} else "true"


def claim_52():
    before, prepared = loaded()
    grown = {n: p.nbytes - before[n][1] for n, p in prepared.named_parameters()}
    embeddings, norms = (
        sum(size for name, size in grown.items() if part in name) for part in ("embed", "norm")
    )
    assert sum(grown.values()) == embeddings + norms
    on = any(getattr(m, "gradient_checkpointing", False) for m in prepared.modules())
    return "true" if on else "false", f"{embeddings:,}", f"norms {norms:,}"


def another(**options):
    """Return a second adapter on the same base, in its own configuration."""
    config = {"r": 8, "lora_alpha": 16, "init_lora_weights": False, **LINEAR, **options}
    base = llama()
    torch.manual_seed(2)
    return get_peft_model(base, LoraConfig(**config)).eval()


def claim_56():
    def loaded_over(second):
        """Return the first adapter's model after the second is loaded under its name."""
        one = tuned(llama(), seed=1)
        assert gap(logits(one), logits(second)) > 0.01
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("error", message="(?i).*adapter.*")  # not a word
            second.save_pretrained(folder)
            one.load_adapter(folder, "default")
        return one.eval()

    with pytest.raises(ValueError, match="already exists"):
        tuned(llama()).add_adapter("default", LoraConfig(**LINEAR))
    with pytest.raises(RuntimeError, match="size mismatch"):
        loaded_over(another(r=4))
    alike = another()
    replaced = gap(logits(loaded_over(alike)), logits(alike))
    first, apart = logits(tuned(llama(), seed=1)), []
    for options in ({"lora_alpha": 64}, {"target_modules": ["q_proj", "v_proj"]}):
        second = another(**options)
        found = logits(loaded_over(second))
        apart += [gap(found, logits(second)), gap(found, first)]
    verdict = "only if" if replaced == 0 and min(apart) > 0.01 else "false"
    return verdict, f"difference {replaced:.0f}"


def claim_58():
    row = {"instruction": "Translate.", "input": "impasto", "output": "dough"}
    text = f"{row['instruction']}\n{row['output']}"
    return "only if" if row["input"] not in text else "true"


def claim_59():
    from transformers import Trainer, TrainingArguments

    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    arguments = TrainingArguments("out", use_cpu=True, **options)
    one = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    assert "if self.is_model_parallel:\n            self.args._n_gpu = 1" in inspect.getsource(
        Trainer
    )
    return "true" if one == 16 else "false", f"{8 * one}"


def claim_62():
    """Four virtual tokens on a small Llama: a prompt's pass through the layers, a prefix's do not."""
    counted = {}
    for kind in ("Prompt", "Prefix"):
        config = getattr(peft, f"{kind}TuningConfig")(task_type="CAUSAL_LM", num_virtual_tokens=4)
        model = get_peft_model(llama(), config).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(input_ids=IDS)
        counted[kind] = counter.get_total_flops()
    return "only if" if counted["Prompt"] > 1.2 * counted["Prefix"] else "true"


def claim_67():
    from accelerate import Accelerator, infer_auto_device_map

    model = llama()
    size = sum(p.nbytes for p in model.parameters())
    room, whole = {0: 0.7 * size, "cpu": 2 * size}, ["LlamaDecoderLayer"]
    placed = infer_auto_device_map(model, max_memory=room, no_split_module_classes=whole)
    assert len(set(placed.values())) > 1 and all("layers.0." not in name for name in placed)
    refused = "can't train a model that has been loaded with `device_map='auto'` in any distributed"
    return "true" if refused in inspect.getsource(Accelerator.prepare_model) else "only if"


def claim_68():
    """A width that matches nothing: what the prefix hands over has the model's size all the same."""
    shapes = set()
    for width in (16, 100):
        options = {"num_virtual_tokens": 4, "prefix_projection": True, "encoder_hidden_size": width}
        config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", **options)
        model = get_peft_model(llama(), config)
        assert model.prompt_encoder.default.transform[0].out_features == width
        shapes.add(tuple(logits(model).shape))
    return "false" if len(shapes) == 1 else "true"


def claim_70():
    from transformers import T5ForConditionalGeneration

    assert T5ForConditionalGeneration._keep_in_fp32_modules == ["wo"]
    largest = torch.finfo(torch.float16).max
    overflown = torch.tensor(66_246.3906).half().isinf().item()
    return "only if" if overflown else "true", f"{largest:,.0f}"


def claim_71():
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = "llama" in CONFIG_MAPPING
    loaded = AutoModelForCausalLM.from_config(llama().config)  # trust_remote_code is off by default
    inside = type(loaded).__module__.startswith("transformers.models.llama")
    return "false" if known and inside else "true"


def claim_76():
    from transformers import DataCollatorForLanguageModeling
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling as ByPlace

    tokenizer = copy.deepcopy(kitchen_decoder()[1])
    tokenizer.pad_token, end = tokenizer.eos_token, tokenizer.eos_token_id
    rows = [{"input_ids": [5, 6, end]}, {"input_ids": [5, end]}]
    by_id = DataCollatorForLanguageModeling(tokenizer, mlm=False)(copy.deepcopy(rows))["labels"]
    by_place = ByPlace(pad_token_id=end)(copy.deepcopy(rows))["labels"]
    ends = [(labels == end).sum().item() for labels in (by_id, by_place)]
    return "only if" if ends == [0, 2] else "true"


RECOMPUTED = table_of(globals())


@pytest.mark.parametrize("number", RECOMPUTED)
def test_asked_again_it_is_what_the_ledger_says(number):
    found = RECOMPUTED[number]()
    agree(number, *((found,) if isinstance(found, str) else found))
