"""Batches, the loop, and the measures."""

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

from pefthelpers import measure, models, training
from pefthelpers.data import Example

EXAMPLES = [Example(f"w{i} w{i + 1}", f"w{i + 2} w{i + 3}") for i in range(20)]


def test_the_loss_falls_on_answers_and_their_end_only(word_tokenizer):
    pairs = training.encode(word_tokenizer, [Example("w1 w2", "w3"), Example("w1", "w2 w3 w4")])
    batch = training.collate(word_tokenizer, pairs)
    end, w3 = word_tokenizer.eos_token_id, word_tokenizer.convert_tokens_to_ids("w3")
    assert batch["labels"][0].tolist() == [-100, -100, w3, end, -100]
    assert batch["attention_mask"][0].tolist() == [1, 1, 1, 1, 0]


def test_padding_with_the_end_token_keeps_the_end_in_the_loss(word_tokenizer):
    pairs = training.encode(word_tokenizer, [Example("w1", "w2"), Example("w1", "w2 w3 w4")])
    word_tokenizer.pad_token = "</s>"
    try:
        batch = training.collate(word_tokenizer, pairs)
    finally:
        word_tokenizer.pad_token = "<pad>"
    assert (batch["labels"][0] == word_tokenizer.eos_token_id).sum() == 1
    assert batch["attention_mask"][0].sum() == 3


def test_seq2seq_sources_end_with_the_end_token(word_tokenizer):
    pairs = training.encode(word_tokenizer, EXAMPLES[:2])
    batch = training.collate(word_tokenizer, pairs, seq2seq=True)
    assert (batch["input_ids"][:, -1] == word_tokenizer.eos_token_id).all()
    assert batch["labels"].shape == (2, 3)


def test_the_schedule_warms_up_and_ends_at_zero():
    factors = [training.learning_rate_factor(step, 100) for step in range(100)]
    assert factors[0] < factors[3] < factors[5]
    assert max(factors) <= 1 and 0 < factors[-1] < 0.011


def test_batches_visit_every_pair_once_per_epoch():
    pairs = [([i], [i]) for i in range(10)]
    seen = [
        pair[0][0] for batch in training.batches(pairs, size=5, steps=2, seed=0) for pair in batch
    ]
    assert sorted(seen) == list(range(10))


def test_fit_learns_and_is_deterministic(llama, word_tokenizer):
    runs = []
    for _ in range(2):
        model = llama()
        losses = training.fit(model, word_tokenizer, EXAMPLES, learning_rate=5e-3, steps=60, seed=3)
        runs.append(losses)
    assert runs[0] == runs[1] and runs[0][-1] < 0.5 * runs[0][0]
    assert measure.exact_match(model, word_tokenizer, EXAMPLES) > 0.8


def test_replay_keeps_its_share_of_each_batch(llama, word_tokenizer, monkeypatch):
    sizes = []
    collate = training.collate
    monkeypatch.setattr(
        training, "collate", lambda t, p, **o: sizes.append(p) or collate(t, p, **o)
    )
    old = [Example("w50 w51", "w52")]
    training.fit(
        llama(),
        word_tokenizer,
        EXAMPLES,
        learning_rate=1e-3,
        steps=2,
        batch_size=8,
        replay=old,
        replay_per_batch=4,
    )
    (old_pair,) = training.encode(word_tokenizer, old)
    assert [pairs.count(old_pair) for pairs in sizes] == [4, 4]


@pytest.mark.parametrize("method", ["plain", "lora", "prompt", "prefix"])
def test_teacher_forced_exact_match_equals_greedy_decoding(llama, word_tokenizer, method):
    model = llama()
    training.fit(model, word_tokenizer, EXAMPLES, learning_rate=5e-3, steps=30, seed=0)
    torch.manual_seed(0)
    if method == "lora":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    if method == "prompt":
        model = get_peft_model(
            model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        )
    if method == "prefix":
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        model = get_peft_model(model, config)
    generated = measure.generate(model, word_tokenizer, EXAMPLES, max_new_tokens=6)
    greedy = sum(g == e.answer for g, e in zip(generated, EXAMPLES, strict=True)) / len(EXAMPLES)
    assert measure.exact_match(model, word_tokenizer, EXAMPLES) == pytest.approx(greedy)


def test_beams_reach_the_model_and_greedy_is_the_default(llama, word_tokenizer, monkeypatch):
    model, seen = llama(), []
    generate = model.generate
    recording = lambda **options: seen.append(options["num_beams"]) or generate(**options)
    monkeypatch.setattr(model, "generate", recording)
    for options in ({}, {"num_beams": 3}):
        measure.generate(model, word_tokenizer, EXAMPLES[:2], max_new_tokens=2, **options)
    assert seen == [1, 3]


def test_token_match_tells_content_from_form(llama, word_tokenizer):
    def always(word, end):
        """Return a model that answers ``word`` after anything but it, and then ends."""

        def forward(input_ids, **_):
            after = torch.where(input_ids == word, end, word)
            logits = torch.nn.functional.one_hot(after, 64).float()
            return type("Output", (), {"logits": logits})()

        model = llama()
        model.forward = forward
        return model

    w3, end = word_tokenizer.convert_tokens_to_ids("w3"), word_tokenizer.eos_token_id
    examples = [Example("w1", "w3"), Example("w1", "w5"), Example("w2", "w3")]
    content, form = measure.token_match(always(w3, end), word_tokenizer, examples, {"w3", "w5"})
    assert (content, form) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_mean_loss_is_the_models_own_loss(llama, word_tokenizer):
    model = llama()
    batch = training.collate(word_tokenizer, training.encode(word_tokenizer, EXAMPLES))
    expected = model(**batch).loss.item()
    assert measure.mean_loss(model, word_tokenizer, EXAMPLES) == pytest.approx(expected, rel=1e-5)


def test_a_tied_tensor_counts_once(llama):
    tied, untied = llama(), llama(tie_word_embeddings=False)
    assert measure.count_parameters(untied)[1] - measure.count_parameters(tied)[1] == 64 * 64


@pytest.mark.parametrize(("role", "padded"), [("decoder", "left"), ("seq2seq", "right")])
def test_padding_comes_between_no_prompt_and_its_words(role, padded, monkeypatch):
    model, tokenizer = models.load(role)
    generate, masks = model.generate, []
    keep = lambda **options: masks.append(options["attention_mask"]) or generate(**options)
    monkeypatch.setattr(model, "generate", keep)
    examples = [
        Example(prompt, "") for prompt in ("the pizza", "the pizza with garlic and oregano")
    ]
    measure.generate(model, tokenizer, examples, max_new_tokens=2)
    short = masks[0][0].tolist()
    assert 0 in short and short == sorted(short, reverse=padded == "right")
