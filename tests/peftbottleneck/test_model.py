"""Bottleneck adapters through peft's own calls, on tiny random models of every architecture."""

import copy
import json
import subprocess
import sys

import pytest
import torch
import transformers
from peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PeftConfig,
    PeftModel,
    get_peft_model,
    inject_adapter_in_model,
)
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from peftbottleneck import BottleneckConfig, BottleneckLayer
from peftbottleneck.config import SAVED_TYPE
from peftbottleneck.errors import AdapterError
from support.bottleneck_models import DECODERS, TASK_TYPES, batch, logits, tiny, train_weights

PLACEMENTS = ("houlsby", "pfeiffer")
KINDS = ("bert", "roberta", "distilbert", "llama", "qwen3", "gpt2", "t5")  # the promised ones
every = pytest.mark.parametrize("kind", tuple(TASK_TYPES))
checks_checkpoints = pytest.mark.skipif(
    not hasattr(BaseTuner, "_remap_adapter_state_dict_for_load"),
    reason="peft below 0.21 does not ask the method before it loads a checkpoint",
)
promised = pytest.mark.parametrize("kind", KINDS)
both = pytest.mark.parametrize("placement", PLACEMENTS)


def config(kind, placement="houlsby", **changes):
    options = {"task_type": TASK_TYPES[kind], "placement": placement, "reduction_factor": 8}
    return BottleneckConfig(**(options | changes))


def adapted(kind, placement="houlsby", **changes):
    return get_peft_model(tiny(kind), config(kind, placement, **changes))


@every
@both
def test_a_new_adapter_changes_nothing_and_a_trained_one_does(kind, placement):
    base = tiny(kind)
    before = logits(base, kind)
    model = get_peft_model(base, config(kind, placement))
    assert torch.equal(logits(model, kind), before)
    assert not torch.allclose(logits(train_weights(model), kind), before)
    with model.disable_adapter():
        assert torch.equal(logits(model, kind), before)
    assert torch.equal(logits(model.unload(), kind), before)
    assert not any(isinstance(module, BottleneckLayer) for module in base.modules())


@every
@both
def test_parameters_follow_the_formula(kind, placement):
    model = adapted(kind, placement)
    blocks = 4 if kind in ("t5", "mt5") else 2
    sites = blocks * (2 if placement == "houlsby" else 1)
    one_adapter = 2 * 32 * 4 + 4 + 32
    trainable = sum(p.numel() for n, p in model.named_parameters() if ".bottleneck_" in n)
    assert trainable == sites * one_adapter
    others = {n for n, p in model.named_parameters() if p.requires_grad and ".bottleneck_" not in n}
    assert all(".modules_to_save." in name for name in others)


@pytest.mark.parametrize(("placement", "count"), [("houlsby", 1_789_056), ("pfeiffer", 894_528)])
def test_counts_of_roberta_base(placement, count, capsys):
    with torch.device("meta"):
        base = transformers.RobertaForSequenceClassification(
            transformers.RobertaConfig(
                vocab_size=50265, max_position_embeddings=514, type_vocab_size=1
            )
        )
        model = get_peft_model(base, BottleneckConfig(placement=placement, reduction_factor=16))
    assert model.get_nb_trainable_parameters()[0] == count
    model.print_trainable_parameters()
    assert f"trainable params: {count:,}" in capsys.readouterr().out


def test_the_article_adapter_is_what_the_formula_says():
    model = train_weights(adapted("llama"))
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    x = torch.randn(3, 48)
    y = layer.base_layer(x)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    assert torch.equal(layer(x), y + up(nn.functional.silu(down(y))))


def test_pfeiffer_reads_the_norm_and_adds_before_it():
    model = train_weights(adapted("bert", "pfeiffer"))
    layer = model.base_model.model.bert.encoder.layer[0].output.LayerNorm
    x = torch.randn(3, 32)
    norm = layer.base_layer
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    assert torch.equal(layer(x), norm(x + up(torch.relu(down(norm(x))))))


@promised
@both
def test_saved_and_loaded(kind, placement, tmp_path):
    model = train_weights(adapted(kind, placement))
    wanted = logits(model, kind)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny(kind), tmp_path)
    assert torch.equal(logits(loaded, kind), wanted)
    assert isinstance(PeftConfig.from_pretrained(tmp_path), BottleneckConfig)
    loaded.load_adapter(tmp_path, "again")
    loaded.set_adapter("again")
    assert torch.equal(logits(loaded, kind), wanted)
    lean = PeftModel.from_pretrained(tiny(kind), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(lean, kind), wanted)


@promised
@both
def test_two_adapters_switched_and_deleted(kind, placement):
    model = train_weights(adapted(kind, placement), seed=1)
    first = logits(model, kind)
    model.add_adapter("second", config(kind, placement, reduction_factor=4, non_linearity="gelu"))
    assert torch.equal(logits(model, kind), first)
    model.set_adapter("second")
    train_weights(model, seed=2)
    assert not torch.allclose(logits(model, kind), first)
    model.set_adapter("default")
    assert torch.equal(logits(model, kind), first)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".default." in name for name in trainable)
    model.delete_adapter("second")
    assert torch.equal(logits(model, kind), first)


def test_both_placements_on_one_model():
    model = train_weights(adapted("roberta", "houlsby"), seed=1)
    first = logits(model, "roberta")
    model.add_adapter("other", config("roberta", "pfeiffer"))
    model.set_adapter("other")
    train_weights(model, seed=2)
    second = logits(model, "roberta")
    model.set_adapter("default")
    assert torch.equal(logits(model, "roberta"), first)
    model.set_adapter("other")
    model.delete_adapter("default")
    assert torch.equal(logits(model, "roberta"), second)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bert"])
@both
def test_one_placement_after_the_other(kind, placement, tmp_path):
    (later,) = set(PLACEMENTS) - {placement}
    base = tiny(kind)
    names, plain = [name for name, _ in base.named_modules()], logits(base, kind)
    model = train_weights(get_peft_model(base, config(kind, placement)), seed=1)
    first = logits(model, kind)
    model.add_adapter("later", config(kind, later))
    model.set_adapter("later")
    train_weights(model, seed=2)
    second = logits(model, kind)
    assert torch.equal(logits(train_weights(adapted(kind, later), seed=2), kind), second)
    model.save_pretrained(tmp_path)
    assert torch.equal(
        logits(PeftModel.from_pretrained(tiny(kind), tmp_path / "later"), kind), second
    )
    model.set_adapter("default")
    assert torch.equal(logits(model, kind), first)
    base = model.unload()
    assert torch.equal(logits(base, kind), plain)
    assert [name for name, _ in base.named_modules()] == names
    assert not any(module._forward_hooks for module in base.modules())


def test_own_modules_with_parts_do_not_hide_the_placements_sites():
    model = adapted("llama", target_modules=["layers.0.mlp", "layers.1.self_attn"])
    model.add_adapter("later", config("llama"))
    model.set_adapter("later")
    alone = train_weights(adapted("llama"), seed=2)
    assert torch.equal(logits(train_weights(model, seed=2), "llama"), logits(alone, "llama"))


@both
def test_two_active_adapters_are_stacked(placement):
    model = train_weights(adapted("llama", placement), seed=1)
    first = logits(model, "llama")
    model.add_adapter("second", config("llama", placement))
    model.base_model.set_adapter(["default", "second"])
    assert torch.equal(logits(model, "llama"), first)  # the second is still the identity
    train_weights(model, seed=2)
    assert not torch.allclose(logits(model, "llama"), first)


@both
@pytest.mark.parametrize("kind", [*DECODERS, "t5"])
def test_generate(kind, placement):
    model = train_weights(adapted(kind, placement))
    inputs = {key: batch(kind)[key] for key in ("input_ids", "attention_mask")}
    cached = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    uncached = model.generate(**inputs, max_new_tokens=5, do_sample=False, use_cache=False)
    assert torch.equal(cached, uncached)


@both
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "t5"])
def test_recorded_hidden_states_hold_the_adapters(kind, placement):
    model = train_weights(adapted(kind, placement))
    with torch.no_grad():
        found = model(**batch(kind), output_hidden_states=True)
        states = found.get("hidden_states") or found.decoder_hidden_states
        with model.disable_adapter():
            found = model(**batch(kind), output_hidden_states=True)
            plain = found.get("hidden_states") or found.decoder_hidden_states
    assert torch.equal(states[0], plain[0])
    assert not torch.allclose(states[1], plain[1])


@promised
def test_modules_to_save(kind, tmp_path):
    names = {"t5": "lm_head", "gpt2": "ln_f", "llama": "norm", "qwen3": "norm"}
    model = train_weights(adapted(kind, modules_to_save=[names.get(kind, "classifier")]))
    for name, parameter in model.named_parameters():
        if ".modules_to_save." in name:
            parameter.data.add_(0.1)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny(kind), tmp_path)
    assert torch.equal(logits(loaded, kind), logits(model, kind))


@both
def test_copied_whole(placement):
    model = train_weights(adapted("llama", placement))
    twin = copy.deepcopy(model)
    wanted = logits(model, "llama")
    train_weights(model, seed=9)
    assert torch.equal(logits(twin, "llama"), wanted)
    twin.unload()
    assert not torch.allclose(logits(model, "llama"), logits(tiny("llama"), "llama"))


def test_transformers_and_peft_can_inject_it(tmp_path):
    model = inject_adapter_in_model(config("llama"), tiny("llama"))
    assert torch.equal(logits(model, "llama"), logits(tiny("llama"), "llama"))
    model = tiny("llama")
    model.add_adapter(config("llama"), "mine")
    wanted = logits(train_weights(model), "llama")
    model.save_pretrained(tmp_path)
    again = tiny("llama")
    again.load_adapter(str(tmp_path), "mine")
    assert torch.equal(logits(again, "llama"), wanted)


def test_a_model_without_a_head():
    base = transformers.AutoModel.from_config(tiny("roberta").config).eval()
    model = get_peft_model(base, BottleneckConfig(reduction_factor=8))
    assert len(model.base_model.targeted_module_names) == 4


def test_own_target_modules():
    chosen = ["layers.1.mlp"]
    model = adapted("llama", target_modules=chosen)
    assert model.base_model.targeted_module_names == ["model.layers.1.mlp"]


@pytest.mark.parametrize("how", ["identity", "bert", "houlsby"])
def test_initialisations(how):
    model = adapted("bert", init_weights=how)
    weights = dict(model.named_parameters())
    ups = [value for name, value in weights.items() if "bottleneck_up" in name and value.dim() == 2]
    largest = max(value.abs().max().item() for value in ups)
    assert (largest == 0) == (how == "identity")
    if how == "houlsby":
        assert largest <= 0.02


def test_scaling_and_dropout():
    model = train_weights(adapted("llama", scaling=4.0, dropout=0.5))
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    x = torch.randn(3, 32)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    assert torch.equal(layer.delta("default", x), 4 * up(nn.functional.silu(down(x))))
    model.train()
    share = (layer.delta("default", x) == 0).float().mean().item()
    assert 0.2 < share < 0.8


# What cannot work ends in a sentence.


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"placement": "parallel"}, "Set placement to 'houlsby' or 'pfeiffer', not 'parallel'"),
        ({"reduction_factor": 0.5}, "Set reduction_factor to 1 or more"),
        ({"reduction_factor": float("nan")}, "Set reduction_factor to 1 or more"),
        ({"reduction_factor": None}, "Set reduction_factor to 1 or more, not None"),
        ({"reduction_factor": "16"}, "Set reduction_factor to 1 or more, not '16'"),
        ({"dropout": 1.5}, "Set dropout to a probability between 0 and 1, not 1.5"),
        ({"dropout": None}, "Set dropout to a probability"),
        ({"non_linearity": "swoosh"}, "Set non_linearity to one of"),
        ({"init_weights": "zero"}, "Set init_weights to one of"),
    ],
)
def test_wrong_values_are_refused(changes, sentence):
    with pytest.raises(AdapterError, match=sentence):
        BottleneckConfig(**changes)


def test_a_reduction_factor_beyond_the_layer_is_refused_and_leaves_the_model_alone():
    base = tiny("bert")
    before = {name: type(module) for name, module in base.named_modules()}
    with pytest.raises(AdapterError, match="Set reduction_factor to 32"):
        get_peft_model(base, BottleneckConfig(reduction_factor=33))
    assert {name: type(module) for name, module in base.named_modules()} == before


@pytest.mark.parametrize(
    ("kind", "targets", "named"),
    [
        ("llama", "all-linear", "layers.0.self_attn.k_proj puts out 16"),
        ("qwen3", ["q_proj", "up_proj"], "layers.0.mlp.up_proj puts out 48"),
        ("qwen3", ["k_norm"], "k_norm puts out 8"),
        ("llama", ["lm_head"], "lm_head puts out 64"),
        ("gpt2", ["c_attn"], "h.0.attn.c_attn puts out 96"),
        ("bert", "all-linear", "intermediate.dense puts out 48"),
        ("bert", ["intermediate"], "layer.0.intermediate puts out 48"),
        ("t5", r".*\.wi", "DenseReluDense.wi puts out 48"),
    ],
)
def test_a_module_of_another_width_is_refused_before_the_first_is_wrapped(kind, targets, named):
    base = tiny(kind).requires_grad_(True)
    before = {name: type(module) for name, module in base.named_modules()}
    options = {"reduction_factor": 8, "target_modules": targets}
    with pytest.raises(AdapterError, match=f"only modules that put out .* 32, .*{named} features"):
        get_peft_model(base, BottleneckConfig(**options))
    assert {name: type(module) for name, module in base.named_modules()} == before
    assert all(parameter.requires_grad for parameter in base.parameters())
    model = get_peft_model(base, config(kind))
    with pytest.raises(AdapterError, match=f"{named} features"):
        model.add_adapter("second", BottleneckConfig(**options))
    assert list(model.peft_config) == ["default"]
    assert logits(model, kind) is not None


def test_a_width_that_only_the_forward_shows_is_a_sentence_there():
    # The head's first map has the hidden size, its last one has not.
    model = adapted("roberta", target_modules=["classifier"], task_type=None)
    with pytest.raises(AdapterError, match="classifier puts out 2 features"):
        logits(model, "roberta")


def test_an_unknown_architecture_is_refused():
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = transformers.AutoModel.from_config(transformers.MPNetConfig(**options))
    with pytest.raises(AdapterError, match="architecture 'mpnet': name the modules"):
        get_peft_model(base, BottleneckConfig())
    with pytest.raises(AdapterError, match="Use a transformers model"):
        get_peft_model(nn.Linear(2, 2), BottleneckConfig(target_modules=["0"]))


@pytest.mark.parametrize("call", ["merge_and_unload", "merge_adapter"])
def test_merging_is_refused_with_the_reason(call):
    model = train_weights(adapted("llama"))
    wanted = logits(model, "llama")
    with pytest.raises(AdapterError, match="a non-linearity sits between its two projections"):
        getattr(model, call)()
    assert torch.equal(logits(model, "llama"), wanted)


def test_a_name_used_twice_is_refused():
    model = train_weights(adapted("llama"))
    wanted = logits(model, "llama")
    with pytest.raises(AdapterError, match="already carries an adapter named 'default'"):
        get_peft_model(model.get_base_model(), config("llama", reduction_factor=4))
    with pytest.raises((ValueError, AdapterError), match="already exists"):  # ValueError is peft's
        model.add_adapter("default", config("llama"))
    assert torch.equal(logits(model, "llama"), wanted)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"placement": "pfeiffer"}, "an adapter of its own placement"),
        ({"reduction_factor": 4}, "an adapter of its own width: .* made with reduction_factor=4"),
    ],
)
@promised
@checks_checkpoints
def test_a_checkpoint_for_another_placement_or_width_is_refused(kind, changes, sentence, tmp_path):
    adapted(kind).save_pretrained(tmp_path)
    model = adapted(kind, **changes)
    with pytest.raises(AdapterError, match=sentence):
        model.load_adapter(tmp_path, "default")


@checks_checkpoints
def test_a_checkpoint_for_another_model_is_refused(tmp_path):
    adapted("llama").save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="an adapter of its own width"):
        PeftModel.from_pretrained(tiny("llama", hidden_size=64), tmp_path)
    with pytest.raises(ValueError, match="not found in the base model"):  # peft's
        PeftModel.from_pretrained(tiny("bert"), tmp_path)


def test_loading_under_a_used_name_replaces_the_weights(tmp_path):
    # peft's rule for every method, which Trainer's load_best_model_at_end relies on.
    model = train_weights(adapted("llama"), seed=1)
    wanted = logits(model, "llama")
    model.save_pretrained(tmp_path)
    train_weights(model, seed=2)
    model.load_adapter(tmp_path, "default")
    assert torch.equal(logits(model, "llama"), wanted)


def test_adapter_names_for_the_rows_of_a_batch_are_refused():
    model = adapted("llama")
    with pytest.raises(AdapterError, match="take no adapter_names"):
        model(**batch("llama"), adapter_names=["default", "default"])


def test_loading_without_our_import_says_what_to_import(tmp_path, monkeypatch):
    adapted("llama").save_pretrained(tmp_path)
    # What peft knows before `import peftbottleneck`:
    for known in (SAVED_TYPE, "BOTTLENECK"):
        monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, known)
    with pytest.raises(KeyError, match="BOTTLENECK: run `import peftbottleneck` before"):
        PeftConfig.from_pretrained(tmp_path)
    with pytest.raises(KeyError, match="BOTTLENECK: run `import peftbottleneck` before"):
        PeftModel.from_pretrained(tiny("llama"), tmp_path)


def test_a_fresh_process_without_our_import_says_what_to_import(tmp_path):
    adapted("llama").save_pretrained(tmp_path)
    code = "import sys, peft; peft.PeftConfig.from_pretrained(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=False, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "run `import peftbottleneck` before you load this adapter" in last


def test_a_loaded_adapter_can_be_trained_on(tmp_path):
    model = train_weights(adapted("llama"))
    model.save_pretrained(tmp_path)
    frozen = PeftModel.from_pretrained(tiny("llama"), tmp_path)
    assert not any(p.requires_grad for p in frozen.parameters())
    again = PeftModel.from_pretrained(tiny("llama"), tmp_path, is_trainable=True)
    trained = {name for name, p in again.named_parameters() if p.requires_grad}
    assert trained and all(".bottleneck_" in name for name in trained)


def test_a_plain_peft_type_loads_too(tmp_path):
    adapted("llama").save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peft_type": "BOTTLENECK"}))
    assert isinstance(PeftConfig.from_pretrained(tmp_path), BottleneckConfig)
