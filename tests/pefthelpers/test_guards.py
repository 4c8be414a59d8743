"""The silent failures: each is caught, and the right way passes."""

import copy

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, MissConfig, get_peft_model

from pefthelpers import guards
from pefthelpers.errors import UserError
from support.bottleneck_models import logits, tiny

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
    before = guards.snapshot(model)
    train(model, [p for p in model.parameters() if p.requires_grad])
    guards.check_training(model, before)
    assert guards.explain(guards.check_training, model, before) == "ok"


def test_a_lora_b_that_never_moved_is_caught(llama):
    model = wrapped(llama)
    before = guards.snapshot(model)
    train(model, [p for name, p in model.named_parameters() if "lora_A" in name])
    with pytest.raises(UserError, match=r"trainable weights never moved, the first is .*lora_"):
        guards.check_training(model, before)


def test_a_frozen_weight_that_moved_is_caught(llama):
    model = wrapped(llama)
    before = guards.snapshot(model)
    model.requires_grad_(True)
    train(model, model.parameters())
    with pytest.raises(UserError, match="frozen weights moved, the first is .*embed_tokens"):
        guards.check_training(model, before)


def test_training_nothing_is_caught(llama):
    model = llama().requires_grad_(False)
    with pytest.raises(UserError, match="Nothing requires a gradient"):
        guards.check_training(model, guards.snapshot(model))


def test_an_adapter_on_another_base_is_refused(llama, tmp_path):
    model = trained(llama)
    model.save_pretrained(tmp_path)
    guards.sign(tmp_path, model)
    guards.check_base(tmp_path, llama(seed=0))
    with pytest.raises(UserError, match="trained on another base model"):
        guards.check_base(tmp_path, llama(seed=5))


def test_the_same_base_in_16_bits_is_accepted(llama, tmp_path):
    guards.sign(tmp_path, llama())
    guards.check_base(tmp_path, llama().to(torch.bfloat16))


def test_an_unsigned_adapter_is_told_from_a_wrong_one(llama, tmp_path):
    with pytest.raises(UserError, match="call guards.sign when saving"):
        guards.check_base(tmp_path, llama())


def test_a_merge_in_the_wrong_dtype_is_refused(llama):
    model = trained(llama)
    guards.check_merge(model)
    half = copy.deepcopy(model)
    half.base_model.model.to(torch.bfloat16)
    with torch.no_grad():  # a correction much smaller than the weights, as on real models
        for name, parameter in half.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-2)
    with pytest.raises(UserError, match=r"Merging into bfloat16 loses \d+\.\d% of the correction"):
        guards.check_merge(half)


def wrapped_classifier(kind, config):
    return get_peft_model(tiny(kind), config(task_type="SEQ_CLS", target_modules=["query"]))


@pytest.mark.parametrize("config", [IA3Config, LoHaConfig, MissConfig])
def test_a_merge_that_a_head_would_stop_is_refused_before_it_breaks_the_model(config):
    options = {IA3Config: {"feedforward_modules": []}, MissConfig: {"r": 4}}.get(config, {})
    model = wrapped_classifier("roberta", lambda **values: config(**values, **options))
    with pytest.raises(UserError, match=r"Call merge_adapter\(\) .* trained head 'classifier'"):
        guards.check_merge(model)
    before = logits(model, "roberta")
    model.merge_adapter()  # the way the sentence names
    assert torch.allclose(logits(model, "roberta"), before, atol=1e-6)
    with pytest.raises(AttributeError, match="has no attribute 'weight'"):  # huggingface/peft#3114
        model.merge_and_unload()


def test_heads_that_are_in_no_way():
    for kind, config in (("roberta", LoraConfig), ("bert", LoHaConfig)):
        model = wrapped_classifier(kind, config)
        guards.check_merge(model)
        model.merge_and_unload()


def test_merge_loss_is_what_rounding_loses(llama):
    layer = trained(llama).base_model.model.model.layers[0].self_attn.q_proj
    assert guards.merge_loss(layer) < 1e-5
    layer.get_base_layer().to(torch.bfloat16)
    weight, delta = layer.get_base_layer().weight.float(), layer.get_delta_weight("default").float()
    kept = (weight + delta).to(torch.bfloat16).float() - weight
    assert guards.merge_loss(layer) == pytest.approx(((kept - delta).norm() / delta.norm()).item())


def prefixed(model, task_type="CAUSAL_LM"):
    from peft import PrefixTuningConfig

    return get_peft_model(model, PrefixTuningConfig(task_type=task_type, num_virtual_tokens=4))


IDS = torch.arange(3, 11).reshape(1, 8)


def test_a_prefix_with_checkpointing_is_refused_before_it_crashes(llama):
    model = prefixed(llama()).train()
    guards.check_prefix(model)
    with pytest.raises(UserError, match="set gradient_checkpointing=False"):
        guards.check_prefix(model, gradient_checkpointing=True)
    model.gradient_checkpointing_enable()
    with pytest.raises(UserError, match="lives in the key-value cache, and gradient checkpoint"):
        guards.check_prefix(model)
    with pytest.raises(RuntimeError, match="size of tensor"):
        model(input_ids=IDS, labels=IDS).loss.backward()
    with pytest.raises(ValueError, match="does not work with gradient checkpointing"):
        prefixed(model.get_base_model())


def test_a_prefix_without_a_cache_is_refused_before_it_crashes(llama):
    model = prefixed(llama()).eval()
    assert model.generate(input_ids=IDS, max_new_tokens=2, do_sample=False).shape[1] > 8
    with pytest.raises(UserError, match="set use_cache=True"):
        guards.check_prefix(model, use_cache=False)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model.generate(input_ids=IDS, max_new_tokens=2, use_cache=False)
    model.generation_config.use_cache = False
    with pytest.raises(UserError, match="set use_cache=True"):
        guards.check_prefix(model)


def test_a_t5_keeps_its_prefix_without_a_cache():
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 32, "num_layers": 1}
    t5 = T5ForConditionalGeneration(
        T5Config(**sizes, vocab_size=64, decoder_start_token_id=0, dropout_rate=0.0)
    )
    model = prefixed(t5, "SEQ_2_SEQ_LM").eval()
    guards.check_prefix(model, use_cache=False)
    with_cache = model.generate(input_ids=IDS, max_new_tokens=4)
    assert torch.equal(with_cache, model.generate(input_ids=IDS, max_new_tokens=4, use_cache=False))


def test_other_methods_may_checkpoint(llama):
    model = wrapped(llama)
    model.gradient_checkpointing_enable()
    guards.check_prefix(model, use_cache=False)
    guards.check_prefix(llama(), gradient_checkpointing=True)


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
    guards.check_input_gradients(model)


def test_layers_that_hand_no_gradient_on_are_caught(four_bit):
    model = four_bit(False)
    layers = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    for layer in layers[:3]:  # what packing does, on any machine
        layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
    with pytest.raises(UserError, match=r"3 of 28 4-bit layers hand no gradient .* first is model"):
        guards.check_input_gradients(model)


def packing_cpu():
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


@pytest.mark.skipif(not packing_cpu(), reason="only CPUs with AVX512-BF16 pack")
def test_the_real_trap_is_caught_and_cannot_be_undone(four_bit):

    model = four_bit(True)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = True  # as the library leaves it
    guards.check_input_gradients(model)
    evaluate(model)
    with pytest.raises(UserError, match="28 of 28 4-bit layers hand no gradient"):
        guards.check_input_gradients(model)
    with pytest.raises(
        UserError, match="already packed the 4-bit weights of .*load the model again"
    ):
        guards.keep_input_gradients(model)


def test_a_model_without_4_bit_layers_is_named(llama):
    with pytest.raises(UserError, match="No layer is in 4 bits"):
        guards.check_input_gradients(llama())
