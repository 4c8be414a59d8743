"""The silent failures: each is caught, and the right way passes."""

import copy
import re

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


def test_one_healthy_step_is_training(llama):
    model = wrapped(llama)
    before = guards.snapshot(model)
    train(model, [p for p in model.parameters() if p.requires_grad], steps=1)
    guards.check_training(model, before)


def test_a_weight_that_could_have_moved_is_caught_after_one_step_too(llama):
    model = wrapped(llama)
    before = guards.snapshot(model)
    train(model, [p for name, p in model.named_parameters() if "lora_B" in name], steps=1)
    with pytest.raises(UserError, match=r"4 of 8 trainable weights never moved, .*lora_A"):
        guards.check_training(model, before)


@pytest.mark.parametrize("held", [False, True])
def test_only_a_head_that_no_checkpoint_holds_is_refused(tmp_path, held):
    from transformers import AutoModel, AutoModelForSequenceClassification

    source = AutoModelForSequenceClassification if held else AutoModel
    source.from_config(tiny("roberta").config).save_pretrained(tmp_path)
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["query"]))
    said = guards.explain(guards.check_head, model)
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
        with pytest.raises(UserError, match=rf"only in part: .* under '{target[1]}'; .*{there}"):
            guards.check_targets(model)


def test_a_merged_base_is_told_from_another_one(llama, tmp_path):
    guards.sign(tmp_path, llama())
    with pytest.raises(UserError, match=r"another base model: 4 of 21 .*q_proj.weight: only matri"):
        guards.check_base(tmp_path, trained(llama).merge_and_unload())
    model = trained(llama)
    model.merge_adapter()
    with pytest.raises(UserError, match=r"call unmerge_adapter\(\) before sign"):
        guards.sign(tmp_path, model)


def test_what_cannot_be_read_is_said(llama, tmp_path):
    guards.sign(tmp_path, llama())
    with pytest.raises(
        UserError, match=r"21 of 21 weights of the base could not be checked, .*meta"
    ):
        guards.check_base(tmp_path, llama().to("meta"))
    (tmp_path / guards.FINGERPRINT).write_text('{"base_fingerprint": "00"}')
    with pytest.raises(UserError, match=r"older version that did not cover linear .* sign again"):
        guards.check_base(tmp_path, llama())


def test_checks_leave_random_numbers_and_models_alone(llama, tmp_path):
    model = trained(llama).eval()
    state, values = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    model.save_pretrained(tmp_path)
    guards.sign(tmp_path, model)
    guards.check_base(tmp_path, llama())
    torch.set_rng_state(state)
    guards.check_base(tmp_path, model)
    guards.check_adapter(tmp_path, model)
    guards.check_merge(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def test_keys_that_do_not_match_are_named(llama, tmp_path):
    from safetensors.torch import load_file, save_file

    trained(llama).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file(
        {k.replace("model.model.", "_orig_mod."): v for k, v in load_file(file).items()}, file
    )
    guards.sign(tmp_path, llama())
    with pytest.raises(UserError, match="8 of 8 would be ignored and 8 of 8 stay as initialised"):
        guards.check_base(tmp_path, llama())


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
    assert re.search(sentence, guards.why_large(tmp_path))


def test_a_shared_weight_is_named(llama):
    model = get_peft_model(llama(), LoraConfig(**CONFIG | {"target_modules": ["lm_head"]}))
    with pytest.raises(UserError, match=r"lm_head is shared with .*embed_tokens.weight: a merge"):
        guards.check_merge(model)


def test_a_name_in_use_is_said(llama, tmp_path):
    trained(llama).save_pretrained(tmp_path)
    model = get_peft_model(llama(), LoraConfig(**CONFIG | {"lora_alpha": 32}))
    with pytest.raises(UserError, match=r"'default' is in use \(lora_alpha 32 there, 8 here\)"):
        guards.check_reuse(tmp_path, model)
    model.load_adapter(tmp_path, "default")
    with pytest.raises(UserError, match=r"multiplies by 8 where the saved adapter has 2 "):
        guards.check_adapter(tmp_path, model)


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


@pytest.mark.parametrize(
    "options",
    [
        BEST,
        BEST | {"eval_strategy": "epoch"},
        BEST | {"eval_strategy": "steps", "eval_dataset": [1]},
        BEST | {"eval_dataset": [1]},
    ],
)
def test_the_best_of_nothing_is_refused(options):
    with pytest.raises(UserError, match="give eval_strategy the value of save_strategy"):
        guards.check_selection(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"save_strategy": "epoch", "learning_rate": 1e-3},
        BEST | {"eval_strategy": "epoch", "eval_dataset": [1]},
        {"load_best_model_at_end": True, "save_strategy": "best"}
        | {"eval_strategy": "steps", "eval_dataset": [1]},
    ],
)
def test_a_best_that_can_be_found_passes(options, tmp_path):
    from transformers import TrainingArguments

    guards.check_selection(**options)
    options.pop("eval_dataset", None)
    TrainingArguments(output_dir=tmp_path, use_cpu=True, metric_for_best_model="loss", **options)


def test_the_library_refuses_the_best_of_nothing_too(tmp_path):
    from transformers import TrainingArguments

    with pytest.raises(ValueError, match="save and eval strategy to match"):
        TrainingArguments(output_dir=tmp_path, **BEST)


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
    from pefthelpers import models

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
        models.keep_input_gradients(model)


def test_a_model_without_4_bit_layers_is_named(llama):
    with pytest.raises(UserError, match="No layer is in 4 bits"):
        guards.check_input_gradients(llama())
