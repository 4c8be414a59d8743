"""The mean-pooled classifier: what it averages, what it draws, what it keeps."""

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model

from pefthelpers import classification
from pefthelpers.classification import MeanPooledClassifier, Row
from pefthelpers.data import Labelled
from support.bottleneck_models import tiny


@pytest.fixture
def model():
    """Return a classifier on a tiny random BERT."""
    torch.manual_seed(0)
    return MeanPooledClassifier(tiny("bert", num_key_value_heads=4).bert).eval()


ROWS = [Row([5, 6, 7], 1), Row([8, 9, 10, 11, 12], 0), Row([3, 4], 1), Row([20, 21, 22, 23], 0)]


def test_padding_is_no_part_of_the_mean(model):
    alone = classification.evaluate(model, ROWS, batch_size=1)
    together = classification.evaluate(model, ROWS, batch_size=4)
    assert alone.loss == pytest.approx(together.loss, abs=1e-6)
    assert torch.equal(alone.right, together.right)


def test_the_mean_is_the_mean_of_the_tokens(model):
    batch = classification.collate(ROWS[:1])
    hidden = model.encoder(batch["input_ids"]).last_hidden_state
    pooled = model.pooled(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(pooled, hidden.mean(1), atol=1e-6)


def test_scores_are_in_the_order_of_the_split(model):
    right = classification.evaluate(model, ROWS).right
    one_by_one = [classification.evaluate(model, [row]).accuracy for row in ROWS]
    assert right.double().tolist() == one_by_one


def test_an_epoch_draws_each_sentence_once_and_seeds_differ():
    rows = [Row([i] * (1 + i % 7), 0) for i in range(40)]
    draw = lambda seed: [
        row.ids[0]
        for batch in classification.batches(rows, size=4, steps=10, seed=seed)
        for row in batch
    ]
    assert sorted(draw(0)) == list(range(40))
    assert draw(0) == draw(0) != draw(1)
    padded = list(classification.batches(rows, size=4, steps=10, seed=0))
    assert all(len(batch) == 4 for batch in padded)
    spread = [max(len(r.ids) for r in b) - min(len(r.ids) for r in b) for b in padded]
    assert max(spread) <= 2  # sorted by length: little is padding


def test_training_lowers_the_loss(model):
    model.requires_grad_(True)
    losses = classification.fit(model, ROWS, learning_rate=1e-2, steps=15, batch_size=4)
    assert losses[-1] < losses[0] / 2
    assert classification.evaluate(model, ROWS).accuracy == 1


def test_prefix_tuning_keeps_the_mean_and_the_head(model):
    # Without past_key_values in forward's signature peft would read the first token with a head of
    # its own: the virtual tokens have no output, so the mean is over the real ones.
    config = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    prefixed = get_peft_model(model, config).eval()
    start = classification.evaluate(prefixed, ROWS).loss
    assert start != classification.evaluate(model, ROWS).loss
    classification.fit(prefixed, ROWS, learning_rate=1e-2, steps=40, batch_size=4)
    assert classification.evaluate(prefixed, ROWS).loss < start


def test_the_real_encoder_is_loaded_without_dropout_and_pooler():
    model, tokenizer = classification.load(seed=3)
    assert model.encoder.pooler is None
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))
    again, _ = classification.load(seed=3)
    assert torch.equal(model.classifier.weight, again.classifier.weight)
    other, _ = classification.load(seed=4)
    assert not torch.equal(model.classifier.weight, other.classifier.weight)
    long = classification.encode(tokenizer, [Labelled("word " * 200, 1)])
    assert len(long[0].ids) == classification.MAX_TOKENS
