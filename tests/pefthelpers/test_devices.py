"""One rule for devices: a model says where it is, and what it is given goes there."""

import pytest
import torch

import peftguards
from pefthelpers import classification, data, measure, methods, models, profiles, training
from support.simulated_cuda import A100, T4, simulated, stand_ins

EXAMPLES = [data.Example("how hot ?", "very hot ."), data.Example("how long ?", "an hour .")]


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Fill a hub's cache with stand-ins of the gpu profile's models."""
    stand_ins.fill(cache := tmp_path_factory.mktemp("hub"))
    return cache


@pytest.fixture(params=[A100, T4], ids=["A100", "T4"])
def card(request, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    with simulated(request.param) as card:
        yield card


def test_without_a_gpu_everything_is_on_the_cpu():
    assert {models.place(profile) for profile in profiles.PROFILES} == {"cpu"}
    assert models.dtype_on("cpu", "bfloat16") is torch.bfloat16


@pytest.mark.parametrize("role", profiles.ROLES)
def test_tiny_stays_on_the_cpu(card, role):
    before = torch.cuda.memory_allocated()
    model, _ = models.load(role)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("role", profiles.ROLES)
def test_a_real_model_is_on_the_card(card, role):
    model, _ = models.load(role, "gpu")
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    wanted = getattr(torch, profiles.settings(role, "gpu").dtype)
    emulated = wanted is torch.bfloat16 and card is T4
    assert model.dtype is (torch.float16 if emulated else wanted)


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("profile", ["tiny", "gpu"])
def test_a_decoder_trains_and_is_measured_where_it_is(card, profile, four_bit):
    from peft import LoraConfig, get_peft_model

    model, tokenizer = models.load("decoder", profile, four_bit=four_bit, double_quant=four_bit)
    lora = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    where = model.device.type
    before = peftguards.snapshot(lora)
    losses = training.fit(lora, tokenizer, EXAMPLES, learning_rate=1e-2, steps=3, batch_size=2)
    peftguards.check_training(lora, before)
    assert torch.tensor(losses).isfinite().all()
    trained = [p for p in lora.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert (
        {p.device.type for p in lora.parameters()}
        == {p.grad.device.type for p in trained}
        == {where}
    )
    assert 0 <= measure.exact_match(lora, tokenizer, EXAMPLES) <= 1
    assert measure.mean_loss(lora, tokenizer, EXAMPLES) > 0
    word = tokenizer.tokenize(EXAMPLES[0].answer)[0]
    assert len(measure.token_match(lora, tokenizer, EXAMPLES, {word})) == 2
    assert len(measure.generate(lora, tokenizer, EXAMPLES, max_new_tokens=3)) == 2


@pytest.mark.parametrize("method", [name for name in methods.METHODS if name != "full"])
def test_every_method_puts_what_it_trains_beside_the_model(card, method):
    from peft import get_peft_model

    model, tokenizer = models.load("decoder", "gpu", dtype="float32")
    adapted = get_peft_model(model, methods.config(method, "decoder"))
    training.fit(adapted, tokenizer, EXAMPLES, learning_rate=1e-3, steps=1, batch_size=2)
    assert {p.device.type for p in adapted.parameters()} == {"cuda"}
    assert all(p.grad.is_cuda for p in adapted.parameters() if p.grad is not None)


@pytest.mark.parametrize("profile", ["tiny", "gpu"])
def test_a_seq2seq_model_trains_and_is_measured_where_it_is(card, profile):
    model, tokenizer = models.load("seq2seq", profile)
    training.fit(model, tokenizer, EXAMPLES, learning_rate=1e-4, steps=2, batch_size=2)
    assert measure.mean_loss(model, tokenizer, EXAMPLES) > 0
    assert len(measure.generate(model, tokenizer, EXAMPLES, max_new_tokens=3)) == 2


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("profile", ["tiny", "gpu"])
def test_a_classifier_is_whole_on_one_device(card, profile, four_bit):
    model, tokenizer = classification.load(profile, four_bit=four_bit)
    rows = classification.encode(tokenizer, data.reviews().train[:8])
    places = {p.device.type for p in model.parameters()}
    assert places == {"cpu" if profile == "tiny" else "cuda"}
    if not four_bit:
        classification.fit(model, rows, learning_rate=1e-4, steps=2, batch_size=4)
    assert classification.evaluate(model, rows).right.device.type == "cpu"


def test_the_head_is_the_same_on_every_machine(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    here = classification.load("gpu", seed=3)[0].classifier.weight
    with simulated():
        there = classification.load("gpu", seed=3)[0].classifier.weight.cpu()
    assert torch.equal(here, there)


def test_the_guards_work_on_the_card(card, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, _ = models.load("decoder", "gpu")
    lora = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    peftguards.sign(tmp_path, lora)
    peftguards.check_base(tmp_path, lora)
    assert peftguards.explain(peftguards.check_merge, lora) == "ok"
    four_bit, _ = models.load("decoder", "gpu", four_bit=True)
    assert peftguards.explain(peftguards.check_input_gradients, four_bit) == "ok"


@pytest.mark.parametrize("profile", list(profiles.PROFILES))
@pytest.mark.parametrize("role", profiles.ROLES)
def test_every_profile_has_a_rate_for_whatever_tiny_has(role, profile):
    asked = profiles.settings(role).learning_rates
    assert set(asked) <= set(profiles.settings(role, profile).learning_rates)


def test_a_large_vocabulary_is_scored_in_small_batches(llama, word_tokenizer):
    model, seen = llama(vocab_size=2**20), []
    model.register_forward_hook(lambda *call: seen.append(call[-1].logits.shape[0]))
    examples = [data.Example("w1 w2", "w3")] * 100  # four tokens, with the end
    measure.mean_loss(model, word_tokenizer, examples)
    assert max(seen) == 2**27 // (4 * 2**20) == 32 and sum(seen) == 100
