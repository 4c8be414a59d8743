"""The silent failures: each is caught, and the right way passes."""

import copy
import re

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, MissConfig, get_peft_model

import peftguards
from support.bottleneck_models import batch, logits, tiny

CONFIG = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def train(model, parameters, *, steps=2):
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    ids = torch.arange(3, 43).reshape(4, 10)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def wrapped(llama, seed=0):
    torch.manual_seed(1)
    return get_peft_model(llama(seed), LoraConfig(**CONFIG))


def trained(llama, seed=0):
    model = wrapped(llama, seed)
    train(model, [p for p in model.parameters() if p.requires_grad], steps=3)
    return model


def test_honest_training_passes(llama):
    model = wrapped(llama)
    before = peftguards.snapshot(model)
    train(model, [p for p in model.parameters() if p.requires_grad])
    peftguards.check_training(model, before)
    assert peftguards.explain(peftguards.check_training, model, before) == "ok"


def test_a_lora_b_that_never_moved_is_caught(llama):
    model = wrapped(llama)
    before = peftguards.snapshot(model)
    train(model, [p for name, p in model.named_parameters() if "lora_A" in name])
    with pytest.raises(
        peftguards.GuardError, match=r"trainable weights never moved, the first is .*lora_"
    ):
        peftguards.check_training(model, before)


def test_a_frozen_weight_that_moved_is_caught(llama):
    model = wrapped(llama)
    before = peftguards.snapshot(model)
    model.requires_grad_(True)
    train(model, model.parameters())
    with pytest.raises(
        peftguards.GuardError, match="frozen weights moved, the first is .*embed_tokens"
    ):
        peftguards.check_training(model, before)


def test_training_nothing_is_caught(llama):
    model = llama().requires_grad_(False)
    with pytest.raises(peftguards.GuardError, match="Nothing requires a gradient"):
        peftguards.check_training(model, peftguards.snapshot(model))


def test_an_adapter_on_another_base_is_refused(llama, tmp_path):
    model = trained(llama)
    model.save_pretrained(tmp_path)
    peftguards.sign(tmp_path, model)
    peftguards.check_base(tmp_path, llama(seed=0))
    with pytest.raises(peftguards.GuardError, match="trained on another base model"):
        peftguards.check_base(tmp_path, llama(seed=5))


def test_the_same_base_in_16_bits_is_accepted(llama, tmp_path):
    peftguards.sign(tmp_path, llama())
    peftguards.check_base(tmp_path, llama().to(torch.bfloat16))


@pytest.mark.parametrize("load", [copy.copy, torch.nn.Module.bfloat16, torch.nn.Module.half])
def test_a_base_with_an_adapter_merged_into_it_is_another_base(llama, tmp_path, load):
    peftguards.sign(tmp_path, trained(llama))
    peftguards.check_base(tmp_path, load(llama()))
    merged = load(trained(llama).merge_and_unload())
    with pytest.raises(
        peftguards.GuardError,
        match=r"another base model: 4 of 21 weights differ, the first is .*q_proj",
    ):
        peftguards.check_base(tmp_path, merged)
    zeroed = llama()
    zeroed.model.layers[1].mlp.up_proj.weight.data.zero_()
    with pytest.raises(
        peftguards.GuardError, match=r"1 of 21 weights differ, the first is .*1.mlp.up_proj"
    ):
        peftguards.check_base(tmp_path, load(zeroed))


def test_a_norm_in_float16_is_the_same_norm(llama, tmp_path):
    def base():  # whose norms in 4 bits would be 5 % apart, as one of our T5's: they stay as they are
        model = llama()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data = torch.rand(64, generator=torch.Generator().manual_seed(5))
        return model

    peftguards.sign(tmp_path, base())
    peftguards.check_base(tmp_path, base().half())


def test_a_base_is_not_signed_while_an_adapter_is_merged_into_it(llama, tmp_path):
    model = trained(llama)
    model.merge_adapter()
    with pytest.raises(peftguards.GuardError, match=r"call unmerge_adapter\(\) before signing"):
        peftguards.sign(tmp_path, model)


@pytest.mark.parametrize("start", ["pissa", "olora", "pissa_niter_2"])
def test_a_start_that_changes_the_base_is_signed_with_a_fresh_one(llama, tmp_path, start):
    model = get_peft_model(llama(), LoraConfig(**CONFIG, init_lora_weights=start))
    model.save_pretrained(tmp_path)
    with pytest.raises(
        peftguards.GuardError, match=rf"The start '{start}' took .* sign\(folder, base\)"
    ):
        peftguards.sign(tmp_path, model)
    peftguards.sign(tmp_path, llama())
    peftguards.check_base(tmp_path, llama())


def test_training_an_offloaded_layer_is_refused(llama):
    model = wrapped(llama)
    before = peftguards.snapshot(model)
    model.base_model.model.model.layers[1].to("meta")  # as a device_map with "disk" makes it
    with pytest.raises(peftguards.GuardError, match="4 trainable weights have no values here"):
        peftguards.check_training(model, before)


def test_an_unsigned_adapter_is_told_from_a_wrong_one(llama, tmp_path):
    with pytest.raises(peftguards.GuardError, match="call peftguards.sign when saving"):
        peftguards.check_base(tmp_path, llama())


@torch.no_grad()
def shrunk(model, ratio):
    """Make each correction this share of its weight's norm."""
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            now = layer.get_delta_weight("default").norm() / layer.get_base_layer().weight.norm()
            layer.scaling["default"] *= (ratio / now).item()
    return model


def test_a_merge_in_a_dtype_that_swallows_the_correction_is_refused(llama):
    model = trained(llama)
    peftguards.check_merge(model)
    half = shrunk(trained(llama), 1e-3)  # smaller than on any real model measured here
    half.base_model.model.to(torch.bfloat16)
    said = r"Merging into torch.bfloat16 keeps \d\d% of the correction of .* under noise of \d\d%"
    with pytest.raises(peftguards.GuardError, match=said):
        peftguards.check_merge(half)


def test_a_merge_that_only_adds_noise_passes(llama):
    half = shrunk(trained(llama), 0.0117)  # as SmolLM2's in notebook 03
    half.get_base_model().to(torch.bfloat16)
    layer = half.base_model.model.model.layers[0].self_attn.q_proj
    kept, noise = peftguards.merge_effect(layer)
    assert kept == pytest.approx(1, abs=0.01) and 0.05 < noise < 0.3
    peftguards.check_merge(half)


def test_the_part_kept_and_the_noise_are_those_of_the_merge_itself(llama):
    model = shrunk(trained(llama), 2e-3)
    model.get_base_model().to(torch.bfloat16)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    wanted = layer.get_delta_weight("default").double()
    before = layer.get_base_layer().weight.double()
    said = peftguards.merge_effect(layer)
    assert torch.equal(layer.get_base_layer().weight.double(), before)  # nothing has changed
    model.merge_adapter()
    stored = layer.get_base_layer().weight.double() - before
    expected = (
        (stored * wanted).sum() / wanted.norm() ** 2,
        (stored - wanted).norm() / wanted.norm(),
    )
    assert said == pytest.approx([value.item() for value in expected], rel=1e-3)
    assert 0.5 < said[0] < 0.97


def wrapped_classifier(kind, config):
    return get_peft_model(tiny(kind), config(task_type="SEQ_CLS", target_modules=["query"]))


@pytest.mark.parametrize("config", [IA3Config, LoHaConfig, MissConfig])
def test_a_merge_that_a_head_would_stop_is_refused_before_it_breaks_the_model(config):
    options = {IA3Config: {"feedforward_modules": []}, MissConfig: {"r": 4}}.get(config, {})
    model = wrapped_classifier("roberta", lambda **values: config(**values, **options))
    with pytest.raises(
        peftguards.GuardError,
        match=r"Call merge_adapter\(\) .* beside the trained head 'classifier'",
    ):
        peftguards.check_merge(model)
    before = logits(model, "roberta")
    model.merge_adapter()  # the way the sentence names
    assert torch.allclose(logits(model, "roberta"), before, atol=1e-6)
    with pytest.raises(AttributeError, match="has no attribute 'weight'"):  # huggingface/peft#3114
        model.merge_and_unload()


def test_heads_that_are_in_no_way():
    for kind, config in (("roberta", LoraConfig), ("bert", LoHaConfig)):
        model = wrapped_classifier(kind, config)
        peftguards.check_merge(model)
        model.merge_and_unload()


def test_the_noise_of_a_merge_is_what_rounding_adds(llama):
    layer = trained(llama).base_model.model.model.layers[0].self_attn.q_proj
    assert peftguards.merge_effect(layer)[1] < 1e-5
    layer.get_base_layer().to(torch.bfloat16)
    weight, delta = layer.get_base_layer().weight.float(), layer.get_delta_weight("default").float()
    kept = (weight + delta).to(torch.bfloat16).float() - weight
    assert peftguards.merge_effect(layer)[1] == pytest.approx(
        ((kept - delta).norm() / delta.norm()).item()
    )


def prefixed(model, task_type="CAUSAL_LM"):
    from peft import PrefixTuningConfig

    return get_peft_model(model, PrefixTuningConfig(task_type=task_type, num_virtual_tokens=4))


IDS = torch.arange(3, 11).reshape(1, 8)


def test_a_prefix_with_checkpointing_is_refused_before_it_crashes(llama):
    model = prefixed(llama()).train()
    peftguards.check_prefix(model)
    with pytest.raises(peftguards.GuardError, match="set gradient_checkpointing=False"):
        peftguards.check_prefix(model, gradient_checkpointing=True)
    model.gradient_checkpointing_enable()
    with pytest.raises(
        peftguards.GuardError, match="lives in the key-value cache, and gradient checkpoint"
    ):
        peftguards.check_prefix(model)
    with pytest.raises(RuntimeError, match="size of tensor"):
        model(input_ids=IDS, labels=IDS).loss.backward()
    with pytest.raises(ValueError, match="does not work with gradient checkpointing"):
        prefixed(model.get_base_model())


def test_a_prefix_without_a_cache_is_refused_before_it_crashes(llama):
    model = prefixed(llama()).eval()
    assert model.generate(input_ids=IDS, max_new_tokens=2, do_sample=False).shape[1] > 8
    with pytest.raises(peftguards.GuardError, match="set use_cache=True"):
        peftguards.check_prefix(model, use_cache=False)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model.generate(input_ids=IDS, max_new_tokens=2, use_cache=False)
    model.generation_config.use_cache = False
    with pytest.raises(peftguards.GuardError, match="set use_cache=True"):
        peftguards.check_prefix(model)


@torch.no_grad()
def without(model, **options):
    """Return the largest change of a logit, by position, when generating without a cache."""
    for name, parameter in model.named_parameters():
        if "prompt" in name:
            parameter.mul_(5)  # as large as after training
    options |= {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    options |= {"output_logits": True, "return_dict_in_generate": True, "input_ids": IDS}
    made = [torch.stack(model.generate(use_cache=c, **options).logits) for c in (True, False)]
    return (made[0] - made[1]).abs().amax(dim=(1, 2)).tolist()


def test_a_t5_without_a_cache_loses_its_prefix_after_the_first_token():
    model = prefixed(tiny("t5", num_key_value_heads=4), "SEQ_2_SEQ_LM").eval()
    first, second, third = without(model)
    assert first < 1e-5 and second > 0.1 and third > 0.1
    peftguards.check_prefix(model)
    with pytest.raises(peftguards.GuardError, match="set use_cache=True"):
        peftguards.check_prefix(model, use_cache=False)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "mistral"])
def test_decoders_that_keep_their_prefix_without_a_cache_are_let_through(kind):
    model = prefixed(tiny(kind, num_key_value_heads=4)).eval()
    assert max(without(model)) < 1e-4
    peftguards.check_prefix(model, use_cache=False)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_s_prefix_with_checkpointing_is_refused_as_it_would_not_learn(kind):
    model = prefixed(tiny(kind), "SEQ_CLS").train()
    peftguards.check_prefix(model)
    model.get_base_model().gradient_checkpointing_enable()
    with pytest.raises(peftguards.GuardError, match="set gradient_checkpointing=False"):
        peftguards.check_prefix(model)
    model(**batch(kind)).loss.backward()  # no error, and the head learns
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n in gradients if gradients[n] is None] == [
        "prompt_encoder.default.embedding.weight"
    ]


def test_other_methods_may_checkpoint(llama):
    model = wrapped(llama)
    model.gradient_checkpointing_enable()
    peftguards.check_prefix(model, use_cache=False)
    peftguards.check_prefix(llama(), gradient_checkpointing=True)


BEST = {"load_best_model_at_end": True, "save_strategy": "epoch"}


@pytest.mark.parametrize("options", [BEST, BEST | {"eval_strategy": "steps"}])
def test_the_library_refuses_the_best_of_nothing(options, tmp_path):
    from transformers import TrainingArguments

    with pytest.raises(ValueError, match="save and eval strategy to match"):
        TrainingArguments(output_dir=tmp_path, **options)


def test_the_library_refuses_the_best_without_a_data_set_to_evaluate(llama, tmp_path):
    from transformers import Trainer, TrainingArguments

    options = BEST | {"eval_strategy": "epoch", "report_to": "none", "use_cpu": True}
    with pytest.raises(ValueError, match="didn't pass an `eval_dataset`"):
        Trainer(model=llama(), args=TrainingArguments(output_dir=tmp_path, **options))


@pytest.fixture
def four_bit(monkeypatch):
    """Return a function that loads the kitchen decoder in 4 bits, as on either kind of CPU."""
    import bitsandbytes as bnb

    from pefthelpers import models

    def load(packs):
        monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: packs)
        return models.load("decoder", four_bit=True)[0]

    return load


@torch.no_grad()
def evaluate(model):
    return model.eval()(input_ids=torch.arange(3, 43).reshape(4, 10)).logits


@pytest.mark.parametrize("packs", [False, True])
def test_evaluating_before_training_is_harmless_through_models_load(four_bit, packs):
    model = four_bit(packs)
    evaluate(model)
    peftguards.check_input_gradients(model)


def test_layers_that_hand_no_gradient_on_are_caught(four_bit):
    model = four_bit(False)
    layers = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    for layer in layers[:3]:  # what packing does, on any machine
        layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
    with pytest.raises(
        peftguards.GuardError, match=r"3 of 28 4-bit layers hand no gradient .* first is model"
    ):
        peftguards.check_input_gradients(model)


def packing_cpu():
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


@pytest.mark.skipif(not packing_cpu(), reason="only CPUs with AVX512-BF16 pack")
def test_the_real_trap_is_caught_and_cannot_be_undone(four_bit):

    model = four_bit(True)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = True  # as the library leaves it
    peftguards.check_input_gradients(model)
    evaluate(model)
    with pytest.raises(peftguards.GuardError, match="28 of 28 4-bit layers hand no gradient"):
        peftguards.check_input_gradients(model)
    with pytest.raises(
        peftguards.GuardError, match="already packed the 4-bit weights of .*load the model again"
    ):
        peftguards.keep_input_gradients(model)


def test_a_model_without_4_bit_layers_is_named(llama):
    with pytest.raises(peftguards.GuardError, match="No layer is in 4 bits"):
        peftguards.check_input_gradients(llama())


def test_one_healthy_step_is_training(llama):
    model = wrapped(llama)
    before = peftguards.snapshot(model)
    train(model, [p for p in model.parameters() if p.requires_grad], steps=1)
    peftguards.check_training(model, before)


def test_a_weight_that_could_have_moved_is_caught_after_one_step_too(llama):
    model = wrapped(llama)
    before = peftguards.snapshot(model)
    train(model, [p for name, p in model.named_parameters() if "lora_B" in name], steps=1)
    with pytest.raises(
        peftguards.GuardError, match=r"4 of 8 trainable weights never moved, .*lora_A"
    ):
        peftguards.check_training(model, before)


@pytest.mark.parametrize("held", [False, True])
def test_only_a_head_that_no_checkpoint_holds_is_refused(tmp_path, held):
    from transformers import AutoModel, AutoModelForSequenceClassification

    source = AutoModelForSequenceClassification if held else AutoModel
    source.from_config(tiny("roberta").config).save_pretrained(tmp_path)
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["query"]))
    said = peftguards.explain(peftguards.check_head, model)
    sentence = "The head 'classifier' is new, and it is neither trained nor saved"
    assert said == "ok" if held else sentence in said


def test_targets_that_fit_in_part_are_named_with_what_is_there():
    from transformers import Phi3Config, Phi3ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    phi = Phi3ForCausalLM(
        Phi3Config(**sizes, num_attention_heads=2, pad_token_id=0, eos_token_id=1)
    )
    for base, target, there in (
        (phi, ["o_proj", "gate_proj"], r"Phi3ForCausalLM .* are down_proj, gate_up_proj,"),
        (tiny("gpt2"), ["c_proj", "q_proj"], r"GPT2LMHeadModel .* are c_attn \(Conv1D\), c_fc"),
    ):
        model = get_peft_model(base, LoraConfig(r=4, target_modules=target))
        with pytest.raises(
            peftguards.GuardError, match=rf"only in part: .* under '{target[1]}'; .*{there}"
        ):
            peftguards.check_targets(model)


def test_what_cannot_be_read_is_said(llama, tmp_path):
    peftguards.sign(tmp_path, llama())
    with pytest.raises(
        peftguards.GuardError, match=r"21 of 21 weights of the base could not be checked, .*meta"
    ):
        peftguards.check_base(tmp_path, llama().to("meta"))
    (tmp_path / peftguards.FINGERPRINT).write_text('{"base_fingerprint": "00"}')
    with pytest.raises(
        peftguards.GuardError, match=r"of an older version: load the base .* sign again"
    ):
        peftguards.check_base(tmp_path, llama())


def test_checks_leave_random_numbers_and_models_alone(llama, tmp_path):
    model = trained(llama).eval()
    state, values = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    model.save_pretrained(tmp_path)
    peftguards.sign(tmp_path, model)
    peftguards.check_base(tmp_path, llama())
    torch.set_rng_state(state)
    peftguards.check_base(tmp_path, model)
    peftguards.check_adapter(tmp_path, model)
    peftguards.check_merge(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({}, r"8 tensors: 7,168 of the adapter, and no whole layer beside it"),
        (
            {"modules_to_save": ["embed_tokens"]},
            r"16,384 \(70%\) of whole layers, the largest .*emb",
        ),
        ({"modules_to_save": ["lm_head"]}, r"whole layers, the largest .*lm_head.weight: they are"),
    ],
)
def test_a_large_file_is_explained(llama, tmp_path, extra, sentence):
    get_peft_model(llama(), LoraConfig(**CONFIG | extra)).save_pretrained(tmp_path)
    assert re.search(sentence, peftguards.why_large(tmp_path))


def test_a_shared_weight_is_named(llama):
    model = get_peft_model(llama(), LoraConfig(**CONFIG | {"target_modules": ["lm_head"]}))
    with pytest.raises(
        peftguards.GuardError, match=r"lm_head is shared with .*embed_tokens.weight, and a merge"
    ):
        peftguards.check_merge(model)


def test_a_name_in_use_is_said(llama, tmp_path):
    trained(llama).save_pretrained(tmp_path)
    model = get_peft_model(llama(), LoraConfig(**CONFIG | {"lora_alpha": 32}))
    with pytest.raises(
        peftguards.GuardError, match=r"'default' is in use \(lora_alpha 32 there, 8 here\)"
    ):
        peftguards.check_reuse(tmp_path, model)
    model.load_adapter(tmp_path, "default")
    with pytest.raises(
        peftguards.GuardError, match=r"multiplies by 8 where the saved adapter has 2 "
    ):
        peftguards.check_adapter(tmp_path, model)
