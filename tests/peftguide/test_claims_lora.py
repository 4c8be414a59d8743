"""Claims about training and merging a LoRA: put to the libraries again, on small models.

``claim_N`` returns the verdict that the answer means, and the numbers that the ledger must render.
"""

import copy
import inspect
import warnings
from functools import cache

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pefthelpers import kitchen, results, training
from pefthelpers.paths import data_dir
from support.cells import Cells
from support.claims_again import agree, table_of
from support.claims_models import IDS, LINEAR, four_bits, gap, kitchen_decoder, llama, logits, tuned


@cache
def first_step():
    """Return notebook 02b's ``moved``: how far one AdamW step moves the logits."""
    base, tokenizer, _ = kitchen_decoder()
    book = Cells("02b_lora_in_depth")
    book.namespace |= {"torch": torch, "copy": copy, "training": training, "base": base, "SEED": 0}
    book.namespace |= {"kitchen_tokenizer": tokenizer, "elicit": kitchen.elicit(0)}
    book.namespace |= {"LoraConfig": LoraConfig, "get_peft_model": get_peft_model}
    book.run("first-step")
    return book.namespace["moved"]


def operations(model, **batch):
    """Count the operations of a forward pass, and of the backward pass if there are labels."""
    with FlopCounterMode(display=False) as counter:
        out = model(**(batch or {"input_ids": IDS}))
        if batch:
            out.loss.backward()
    model.zero_grad()
    return counter.get_total_flops()


def claim_1():
    base, _, batch = kitchen_decoder()
    ids, labels = batch["input_ids"], batch["labels"]
    size = sum(p.numel() for p in base.parameters())
    each = operations(base, input_ids=ids, labels=labels) / ids.numel() / size
    return "only if" if 5.9 < each < 6.6 else "false", f"{each:.0f} operations"


def claim_8():
    base = llama()
    before, lora = logits(base), tuned(copy.deepcopy(base))
    assert gap(logits(lora), before) > 0.01
    with lora.disable_adapter():
        return "only if", f"difference {gap(logits(lora), before):.0f}"


def claim_18():
    config, plain = LoraConfig(r=8, lora_alpha=16, **LINEAR), LoraConfig()
    scale = lambda c: get_peft_model(llama(), c).base_model.model.model.layers[0].self_attn.q_proj
    assert scale(config).scaling["default"] == 16 / 8
    stable = LoraConfig(r=16, lora_alpha=16, use_rslora=True, **LINEAR)
    assert scale(stable).scaling["default"] == 16 / 16**0.5
    return "true", f"r = {plain.r}, alpha = {plain.lora_alpha}", "16 / 8 = 2"


def claim_19():
    moved = first_step()
    double, constant = (moved(128, a) / moved(1, b) for a, b in ((256, 2), (16, 16)))
    assert double == pytest.approx(results.look_up("02b_lora_in_depth/growth_alpha_2r"), rel=0.02)
    assert constant == pytest.approx(
        results.look_up("02b_lora_in_depth/growth_alpha_constant"), rel=0.02
    )
    study = "lora_study/rows/task=elicit/targets=all linear/r={}/chosen/learning_rate"
    assert results.look_up(study.format(1)) > 2 * results.look_up(study.format(16))  # alpha = 2 r
    return "false" if double > 10 and 0.5 < constant < 2 else "true"


def claim_20():
    moved = first_step()
    same = moved(8, 128) == pytest.approx(moved(8, 16, learning_rate=8e-3), rel=1e-3)
    base, _, batch = kitchen_decoder()
    walked = {}
    for alpha, rate in (
        (128, 1e-3),
        (16, 8e-3),
    ):  # of A, in two steps: the first leaves it, as B is 0
        config = LoraConfig(r=8, lora_alpha=alpha, target_modules=["q_proj"])
        lora = get_peft_model(copy.deepcopy(base), config)
        A = [p for n, p in lora.named_parameters() if "lora_A" in n]
        before, optimizer = copy.deepcopy(A), torch.optim.AdamW(lora.parameters(), lr=rate)
        for _ in range(2):
            lora(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        walked[alpha] = sum((p - q).norm().item() for p, q in zip(A, before, strict=True))
    assert walked[16] > 4 * walked[128]  # the rate moves A, alpha does not
    return "only if" if same else "false", "alpha = 128 = 16 r"


def claim_21():
    from transformers import RobertaConfig, RobertaModel

    assert not any("bias" in name for name, _ in llama().named_parameters())
    sizes = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    with torch.device("meta"):
        named = list(RobertaModel(sizes).named_parameters())
    biases, whole = (sum(p.numel() for n, p in named if part in n) / 1e6 for part in ("bias", ""))
    return "only if" if biases else "false", f"{biases:.1f}M", f"{whole:.0f}M"


def claim_22():
    def dtypes(**options):
        lora = get_peft_model(llama(torch.float16), LoraConfig(**LINEAR), **options)
        return {p.dtype for p in lora.parameters() if p.requires_grad}

    assert dtypes() == {torch.float32}
    assert dtypes(autocast_adapter_dtype=False) == {torch.float16}
    half = nn.Parameter(torch.zeros(2, dtype=torch.float16))
    half.grad, scaler = torch.ones_like(half), torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    with pytest.raises(ValueError, match="unscale FP16"):
        scaler.unscale_(torch.optim.SGD([half], lr=1.0))
    return "only if"


def claim_23():
    from trl import SFTConfig, SFTTrainer

    trainer, config = (inspect.signature(c).parameters for c in (SFTTrainer, SFTConfig))
    gone = {"tokenizer", "dataset_text_field", "max_seq_length"}.isdisjoint(trainer)
    assert "processing_class" in trainer and {"dataset_text_field", "max_length"} <= set(config)
    return "outdated" if gone else "true"


def claim_24():
    from transformers import AutoModelForCausalLM, TrainingArguments

    gone = "warmup_ratio" not in inspect.signature(TrainingArguments).parameters
    half = AutoModelForCausalLM.from_config(llama().config, torch_dtype=torch.float16)
    assert half.dtype is torch.float16  # the old name still works
    with_share = TrainingArguments("out", warmup_steps=0.1, use_cpu=True)
    assert with_share.get_warmup_steps(100) == 10
    return "outdated" if gone else "true"


def claim_26():
    state = four_bits()["state_bytes"]
    each = {n: state(n, bnb.optim.AdamW8bit) / n for n in (4_095, 4_096)}
    assert each[4_095] == state(4_096, torch.optim.AdamW) / 4_096 == 8
    smallest = 16 * min(
        3072, 1024, 8 * 128
    )  # of the 3B recipe's adapter: k and v have 1,024 outputs
    assert smallest >= 4_096
    step = 2 + 2 + each[4_096]
    verdict = "only if" if 0.49 < 1 - step / 12 < 0.51 else "false"
    return verdict, f"8 against {each[4_096]:.2f} bytes", f"12 to {step:.2f} bytes"


def claim_28():
    codes = bnb.functional.create_dynamic_map().sort().values
    gaps = codes.diff()
    uneven = gaps.max() > 1000 * gaps[gaps > 0].min()
    weight = nn.Parameter(torch.zeros(4_096))
    weight.grad, optimizer = torch.ones_like(weight), bnb.optim.AdamW8bit([weight])
    optimizer.step()
    stored = {optimizer.state[weight][name].dtype for name in ("state1", "state2")}
    verdict = "only if" if uneven and stored == {torch.uint8} else "false"
    return verdict, "torch.uint8", f"{codes.numel()} values", f"block of {4_096 // 16}"


def claim_29():
    merged = tuned(llama()).merge_and_unload()
    before, after = (m.model.layers[0].self_attn.q_proj.weight.detach() for m in (llama(), merged))
    rank = torch.linalg.matrix_rank(after - before, rtol=1e-4).item()
    same_cost = operations(merged) == operations(llama())
    return "only if" if same_cost and rank < min(before.shape) else "true", f"rank {rank} of"


def claim_30():
    lora = tuned(llama())
    merged = copy.deepcopy(lora).merge_and_unload()
    assert 0 < gap(logits(merged), logits(lora)) < 1e-5
    W, noise = torch.randn(512, 512).bfloat16(), []
    change = torch.randn(512, 8) @ torch.randn(8, 512)
    for exponent in (2, 3):
        small = (change * (10**-exponent * W.float().norm() / change.norm())).double()
        error = (W.double() + small).bfloat16().double() - W.double() - small
        noise.append((error.norm() / small.norm()).item())
        recorded = results.look_up(f"03_merge/bfloat16_noise_at_1e-{exponent}")
        assert noise[-1] == pytest.approx(recorded, rel=0.2)  # a Gaussian W for a trained one
        kept = (1 + (error * small).sum() / small.norm() ** 2).item()
        recorded = results.look_up(f"03_merge/bfloat16_kept_at_1e-{exponent}")
        assert kept == pytest.approx(recorded, rel=0.2)
    return "only if" if min(noise) > 0.01 else "true"


def claim_31():
    base, lora = llama(), tuned(llama())
    merged = copy.deepcopy(lora).merge_and_unload()
    free = operations(merged) == operations(base)
    return "only if" if free and operations(lora) > operations(base) else "false"


def claim_32():
    model, call = llama(), {"max_new_tokens": 8, "pad_token_id": 0, "temperature": 0.7}

    def answers(**options):
        said = set()
        for seed in range(5):
            torch.manual_seed(seed)
            said.add(tuple(model.generate(IDS[:1], **call, **options)[0].tolist()))
        return len(said)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ignored, sampled = answers(), answers(do_sample=True)
        model.generation_config.do_sample = True  # as Llama-3.2's own configuration has it
        assert answers() == sampled
    verdict = "only if" if ignored == 1 < sampled else "true"
    return verdict, f"{ignored} answer", f"{sampled} with `do_sample=True`"


def claim_64():
    assert "lora_dropout" not in (data_dir() / "recipes.yaml").read_text(encoding="utf-8")
    return "only if", f"starts from {LoraConfig().lora_dropout}"


RECOMPUTED = table_of(globals())


@pytest.mark.parametrize("number", RECOMPUTED)
def test_asked_again_it_is_what_the_ledger_says(number):
    found = RECOMPUTED[number]()
    agree(number, *((found,) if isinstance(found, str) else found))
