"""The adapters that a recipe carries compute what ``peftbottleneck`` computes."""

import pytest
import torch
import transformers as t
from peft import get_peft_model

from peftbottleneck import BottleneckConfig
from peftguide import bottleneck, recipes

SIZE = {"vocab_size": 60, "pad_token_id": 0, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE |= {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 40}
SMALL = {"vocab_size": 60, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
MODELS = {
    "decoder": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SIZE)),
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=2)),
    "seq2seq": lambda: t.T5ForConditionalGeneration(
        t.T5Config(**SMALL, decoder_start_token_id=0, pad_token_id=0)
    ),
    "encoder": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**SIZE)),
}


def built(kind):
    """Return a small random model, the same one each time."""
    torch.manual_seed(0)
    return MODELS[kind]().eval()


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_carried_adapters_are_peftbottlenecks(kind, placement, monkeypatch):
    role = "decoder" if kind == "gpt2" else kind
    monkeypatch.setattr(bottleneck, "SITES", eval(recipes.sites(placement, role)))
    monkeypatch.setattr(bottleneck, "PLACEMENT", placement)
    monkeypatch.setattr(bottleneck, "REDUCTION", 4)
    config = BottleneckConfig(placement=placement, reduction_factor=4)
    theirs, ours = get_peft_model(built(kind), config).eval(), bottleneck.insert(built(kind))
    adapters = [p for n, p in theirs.named_parameters() if "bottleneck_" in n]
    carried = list(ours.bottlenecks.parameters())
    assert len(adapters) == len(carried) > 0
    by_place = {id(p): i for i, p in enumerate(adapters)}
    assert len(by_place) == len(adapters)
    torch.manual_seed(1)
    for one, other in zip(adapters, carried, strict=True):
        assert one.shape == other.shape
        one.data.normal_(std=0.3)
        other.data.copy_(one.data)
    ids = torch.randint(1, 60, (2, 7))
    more = {"decoder_input_ids": ids} if kind == "seq2seq" else {}
    with torch.no_grad():
        plain, wanted, found = (
            model(input_ids=ids, **more).logits for model in (built(kind), theirs, ours)
        )
    assert torch.allclose(found, wanted, atol=1e-6) and not torch.allclose(found, plain, atol=1e-3)


def test_at_first_nothing_changes_and_only_the_adapters_are_trained(monkeypatch):
    monkeypatch.setattr(bottleneck, "SITES", eval(recipes.sites("houlsby", "encoder")))
    model, ids = built("encoder"), torch.randint(1, 60, (2, 7))
    before = model(ids).logits
    assert torch.equal(bottleneck.insert(model)(ids).logits, before)
    names = set(bottleneck.saved(model))
    assert names and all(name.startswith(("bottlenecks.", "classifier.")) for name in names)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == names


def test_a_model_without_such_modules_is_one_sentence(monkeypatch):
    monkeypatch.setattr(bottleneck, "SITES", "nowhere")
    with pytest.raises(SystemExit, match="No module of LlamaForCausalLM is named as SITES says"):
        bottleneck.insert(built("decoder"))
