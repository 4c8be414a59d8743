"""AdapterHub's files as people bring them: plain heads, names of 2020, pickles, wrong folders.

The right values are AdapterHub's own where its library computed them (the fixture's references);
all kinds here were compared with its library, version 1.3.0, on the same files (largest difference
8e-7, the T5's). Old names are those of its legacy_weights_mapping and ACTIVATION_RENAME.
"""

import copy
import json
import os
import pickle
import shutil

import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.activations import ACT2FN

from peftbottleneck import BottleneckConfig, from_adapterhub, to_adapterhub
from peftbottleneck.errors import AdapterError
from support.adapterhub_files import FIXTURE, TOLERANCE, base_model, gap
from support.bottleneck_models import SMALL, SPECIAL, batch, logits, tiny, train_weights

PLAIN_NAMES = {  # AdapterHub's numbered layers -> transformers' names
    "bert": {"1": "classifier"},
    "roberta": {"1": "classifier.dense", "4": "classifier.out_proj"},
    "distilbert": {"1": "pre_classifier", "4": "classifier"},
}
LEGACY = {"mh": "attention_text_{}_adapters", "output": "layer_text_{}_adapters"}


def copied(tmp_path, kind, placement):
    return shutil.copytree(FIXTURE / kind / placement, tmp_path / f"{kind}-{placement}")


def edit(path, change):
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def plain_head(folder, weights, model_class, **meta):
    """Write a head as AdapterHub does for a plain model class."""
    head = {"config": None, "model_class": model_class, "model_type": "x", "name": None, **meta}
    (folder / "head_config.json").write_text(json.dumps(head))
    save_file(
        {name: value.clone() for name, value in weights.items()}, folder / "model_head.safetensors"
    )


def refused(base, folder, sentence, **options):
    """Check the sentence, and that the base is as before: weights, names, what is trained."""
    base.requires_grad_(True)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with pytest.raises(AdapterError, match=sentence) as caught:
        from_adapterhub(base, folder, **options)
    assert "\n" not in str(caught.value)
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in base.parameters())
    assert not hasattr(base, "peft_config")


# Heads of plain model classes.


@pytest.mark.parametrize(
    ("kind", "placement"),
    [("bert", "pfeiffer"), ("roberta", "houlsby"), ("distilbert", "pfeiffer")],
)
def test_a_plain_classifiers_head_computes_what_adapterhub_computed(kind, placement, tmp_path):
    folder, base = copied(tmp_path, kind, placement), base_model(kind)
    numbered = load_file(folder / "model_head.safetensors")
    named = {}
    for name, value in numbered.items():
        _, _, index, part = name.split(".")
        named[f"{PLAIN_NAMES[kind][index]}.{part}"] = value
    plain_head(folder, named, type(base).__name__, num_labels=3)
    model = from_adapterhub(base, folder).eval()
    assert gap(model, kind, placement, "logits") <= TOLERANCE[placement]
    assert model.peft_config["default"].task_type == "SEQ_CLS"
    model.save_pretrained(tmp_path / "peft")  # the head is part of the adapter
    again = PeftModel.from_pretrained(base_model(kind), tmp_path / "peft").eval()
    assert gap(again, kind, placement, "logits") <= TOLERANCE[placement]


OTHER_HEADS = {
    "BertForTokenClassification": ("TOKEN_CLS", "classifier"),
    "DistilBertForQuestionAnswering": ("QUESTION_ANS", "qa_outputs"),
    "BertForMultipleChoice": (None, "classifier"),
    "RobertaForMaskedLM": (None, "lm_head"),
    "ElectraForSequenceClassification": ("SEQ_CLS", "classifier"),
    "LlamaForCausalLM": ("CAUSAL_LM", "lm_head"),
    "GPT2LMHeadModel": ("CAUSAL_LM", None),  # tied to the embeddings: nothing of its own
    "T5ForConditionalGeneration": ("SEQ_2_SEQ_LM", None),
}


def computed(model, name):
    inputs = {key: batch("bert")[key] for key in ("input_ids", "attention_mask")}
    if "MultipleChoice" in name:
        inputs = {key: value[None] for key, value in inputs.items()}
    if "T5" in name:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        found = model.eval()(**inputs)
    return found.start_logits if "start_logits" in found else found.logits


def other_head(name, folder):
    """Write an adapter with the plain head of a class; return a base and what it must compute."""
    cls = getattr(transformers, name)
    kind = cls.config_class.model_type
    options = {"vocab_size": 64, "pad_token_id": 1, **(SPECIAL.get(kind) or SMALL)}
    torch.manual_seed(2)
    base = cls(
        cls.config_class(**options, num_key_value_heads=2, num_labels=2, decoder_start_token_id=1)
    )
    base.eval()
    trained = copy.deepcopy(base)
    prefix = (f"{base.base_model_prefix}.", "encoder.", "decoder.", "shared.")
    own = dict(trained.named_parameters())  # a tied weight under its first name, the body's
    for key, value in own.items():
        if not key.startswith(prefix):
            value.data += 0.2 * torch.randn(value.shape)
    tied = dict(trained.named_parameters(remove_duplicate=False))
    head = {key: value.data for key, value in tied.items() if not key.startswith(prefix)}
    model = train_weights(get_peft_model(trained, BottleneckConfig(reduction_factor=8)))
    to_adapterhub(model, folder)
    plain_head(folder, head, name, num_labels=2)
    return base, computed(model, name), head


@pytest.mark.parametrize("name", list(OTHER_HEADS))
def test_other_plain_heads(name, tmp_path):
    base, wanted, head = other_head(name, tmp_path / "hub")
    model = from_adapterhub(copy.deepcopy(base), tmp_path / "hub")
    assert torch.equal(computed(model, name), wanted)
    task_type, module = OTHER_HEADS[name]
    config = model.peft_config["default"]
    assert (config.task_type, set(config.modules_to_save or ()) - {"score"}) == (
        task_type,
        {module} - {None} | ({"classifier"} if task_type in ("SEQ_CLS", "TOKEN_CLS") else set()),
    )
    to_adapterhub(model, tmp_path / "back")
    if module:
        written = load_file(tmp_path / "back" / "model_head.safetensors")
        assert written.keys() == head.keys()
        assert all(torch.equal(value, written[key]) for key, value in head.items())
    again = from_adapterhub(copy.deepcopy(base), tmp_path / "back")
    assert torch.equal(computed(again, name), wanted)


LABELS = {"zesty": 0, "bland": 1, "sour": 2}  # in a file they stand by the alphabet


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("written", "taken"),
    [
        (LABELS, True),
        (None, False),
        ({"zesty": 0, "bland": 1}, False),
        ({"zesty": "0", "bland": "1", "sour": "2"}, False),
        ({"zesty": 0, "bland": 1, "sour": [2]}, False),
        (["zesty", "bland", "sour"], False),
    ],
)
def test_a_head_brings_its_labels_names(plain, written, taken, tmp_path):
    folder, base = copied(tmp_path, "roberta", "houlsby"), base_model("roberta")
    if plain:
        own = {k: v for k, v in base.state_dict().items() if k.startswith("classifier.")}
        plain_head(folder, own, type(base).__name__, num_labels=3, label2id=written)
    else:
        edit(folder / "head_config.json", lambda meta: meta["config"].update(label2id=written))
    before = base.config.id2label
    model = from_adapterhub(base, folder)
    wanted = {number: name for name, number in LABELS.items()} if taken else before
    assert base.config.id2label == wanted and base.config.num_labels == 3
    to_adapterhub(model, tmp_path / "back")
    assert from_adapterhub(base_model("roberta"), tmp_path / "back").config.id2label == wanted


def test_plain_heads_that_do_not_fit_are_refused(tmp_path):
    base, _, head = other_head("BertForTokenClassification", tmp_path / "a")
    other = transformers.BertForSequenceClassification(base.config)
    refused(
        other, tmp_path / "a", "Load the base with BertForTokenClassification.* or pass head=False"
    )
    plain_head(tmp_path / "a", head, "BertForTokenClassification", num_labels=5)
    refused(base, tmp_path / "a", "Load the base with num_labels=5")
    wide = {key: value.repeat(2, *[1] * (value.dim() - 1)) for key, value in head.items()}
    plain_head(tmp_path / "a", wide, "BertForTokenClassification")
    refused(base, tmp_path / "a", "classifier.* is of another width")
    plain_head(
        tmp_path / "a", {"classifier.weight": head["classifier.weight"]}, type(base).__name__
    )
    refused(base, tmp_path / "a", "classifier.bias is in only one")
    base, _, head = other_head("GPT2LMHeadModel", tmp_path / "b")
    plain_head(tmp_path / "b", {"lm_head.weight": head["lm_head.weight"] + 1}, "GPT2LMHeadModel")
    refused(base, tmp_path / "b", "the very base .* lm_head.weight, which the base's body shares")
    assert from_adapterhub(base, tmp_path / "b", head=False)


def test_half_a_head_is_refused(tmp_path):
    folder = copied(tmp_path, "bert", "houlsby")
    (folder / "head_config.json").rename(tmp_path / "kept.json")
    refused(base_model("bert"), folder, "Pass head=False .* its head has no .*head_config.json")
    (tmp_path / "kept.json").rename(folder / "head_config.json")
    (folder / "model_head.safetensors").unlink()
    refused(base_model("bert"), folder, "or pass head=False: .* has no head weights")
    edit(folder / "head_config.json", lambda meta: meta.update(config="classification"))
    refused(base_model("bert"), folder, "without config")
    edit(folder / "head_config.json", lambda meta: meta.pop("model_class"))
    edit(folder / "head_config.json", lambda meta: meta.update(config=None))
    refused(base_model("bert"), folder, "head_config.json .* without model_class")
    assert from_adapterhub(base_model("bert"), folder, head=False)


def test_a_token_classifiers_head_is_not_written_as_a_sentence_classifiers(tmp_path):
    base, _, _ = other_head("BertForTokenClassification", tmp_path / "hub")
    to_adapterhub(from_adapterhub(base, tmp_path / "hub"), tmp_path / "back")
    meta = json.loads((tmp_path / "back" / "head_config.json").read_text())
    assert (meta["config"], meta["model_class"]) == (None, "BertForTokenClassification")


# Key names, configurations and activations of 2020 and 2021.


def aged(folder, *, of="task", activation=None, inverse=None, legacy_torch=True):
    """Rewrite a folder as AdapterHub's release 1 wrote it."""
    old = {}
    for name, value in load_file(folder / "adapter.safetensors").items():
        site = "mh" if ".attention.output." in name or "attention_adapters" in name else "output"
        head, tail = name.rsplit(".adapters.", 1)
        old[f"{head}.{LEGACY[site].format(of)}.{tail}"] = value
    (folder / "adapter.safetensors").unlink()
    torch.save(old, folder / "pytorch_adapter.bin", _use_new_zipfile_serialization=not legacy_torch)

    def change(meta):
        del meta["version"]
        meta["type"] = f"text_{of}"
        kept = (
            "original_ln",
            "residual_before",
            "adapter_residual",
            "ln_",
            "mh_",
            "output_",
            "reduc",
        )
        new = meta["config"]
        meta["config"] = {key: value for key, value in new.items() if key.startswith(kept)}
        meta["config"] |= {"leave_out": [], "invertible_adapter": inverse}
        meta["config"]["non_linearity"] = activation or new["non_linearity"]

    edit(folder / "adapter_config.json", change)
    return folder


INVERSE = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}


@pytest.mark.parametrize("of", ["task", "lang"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("placement", tuple(TOLERANCE))
def test_names_of_2020(kind, placement, of, tmp_path):
    unused = INVERSE if (placement, of) == ("pfeiffer", "task") else None
    folder = aged(copied(tmp_path, kind, placement), of=of, inverse=unused)
    model = from_adapterhub(base_model(kind), folder).eval()
    assert gap(model, kind, placement, "hidden") <= TOLERANCE[placement]
    assert gap(model, kind, placement, "logits") <= TOLERANCE[placement]


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"of": "lang", "inverse": INVERSE}, {}),  # a language's was used
        ({}, {"bert.invertible_lang_adapters.task.F.0.weight": torch.ones(2, 2)}),
        ({"of": "lang"}, {"bert.invertible_adapters.task.G.0.bias": torch.ones(2)}),
    ],
)
def test_an_inverse_adapter_that_was_used_is_refused(changes, added, tmp_path):
    folder = aged(copied(tmp_path, "bert", "pfeiffer"), **changes)
    weights = torch.load(folder / "pytorch_adapter.bin", weights_only=True)
    torch.save(weights | added, folder / "pytorch_adapter.bin")
    refused(base_model("bert"), folder, "differs from both in inv_adapter")


@pytest.mark.parametrize(
    ("written", "versioned", "meant"),
    [
        ("gelu", False, "gelu_new"),
        ("gelu_orig", False, "gelu"),
        ("GELU", False, "gelu_new"),
        ("gelu", True, "gelu"),
        ("leakyrelu", False, "leaky_relu"),
        ("LeakyReLU", True, "leaky_relu"),
        ("swish", False, "swish"),
        ("mish", True, "mish"),
    ],
)
def test_activations_by_their_old_names(written, versioned, meant, tmp_path):
    folder = aged(copied(tmp_path, "bert", "pfeiffer"), activation=written)
    if versioned:
        edit(folder / "adapter_config.json", lambda meta: meta.update(version="adapters.1.0.0"))
    model = from_adapterhub(base_model("bert"), folder)
    layer = model.base_model.model.bert.encoder.layer[0].output.LayerNorm
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(layer.bottleneck_activation["default"](x), ACT2FN[meant](x))


def test_an_activation_that_learns_keeps_its_weight(tmp_path):
    config = BottleneckConfig(reduction_factor=8, non_linearity="prelu", task_type="SEQ_CLS")
    model = train_weights(get_peft_model(tiny("bert"), config))
    to_adapterhub(model, tmp_path)
    path = tmp_path / "adapter.safetensors"
    weights = load_file(path)
    twice = {
        k.replace("adapter_down.1.", "non_linearity."): v
        for k, v in weights.items()
        if ".1.f." in k
    }
    assert twice
    save_file(weights | {key: value.clone() for key, value in twice.items()}, path)  # as AdapterHub
    assert torch.equal(
        logits(from_adapterhub(tiny("bert"), tmp_path), "bert"), logits(model, "bert")
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "lora", "r": 8}, "and it is lora"),
        ({"architecture": "prefix_tuning"}, "and it is prefix_tuning"),
        ({"architecture": "union", "configs": []}, "and it is union"),
        ({"non_linearity": "swoosh"}, "differs from both in non_linearity"),
        ({"non_linearity": None}, "differs from both in non_linearity"),
        ({"reduction_factor": None}, "differs from both in reduction_factor"),
        ({"reduction_factor": True}, "differs from both in reduction_factor"),
        ({"reduction_factor": "16"}, "differs from both in reduction_factor"),
        ({"mh_adapter": "yes"}, "differs from both in mh_adapter"),
        ({"dropout": 2}, "Set dropout to a probability"),
        ({"leave_out": [0]}, "differs from both in leave_out"),
    ],
)
def test_configurations_that_cannot_be_converted(changes, sentence, tmp_path):
    folder = copied(tmp_path, "bert", "houlsby")
    edit(folder / "adapter_config.json", lambda meta: meta["config"].update(changes))
    refused(base_model("bert"), folder, sentence)


# Files that are damaged, or something else.


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def pickled(folder, content):
    (folder / "adapter.safetensors").unlink(missing_ok=True)
    path = folder / "pytorch_adapter.bin"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)


@pytest.mark.parametrize(
    "content",
    [
        {"a": Harmful()},
        pickle.dumps(Harmful()),
        torch.nn.Linear(2, 2),
        b"",
        b"PK\x03\x04 cut short",
        b"not a pickle at all",
    ],
    ids=["code in torch's file", "code in a pickle", "module", "empty", "zip", "text"],
)
def test_a_pickle_that_is_no_file_of_weights_is_refused_and_never_run(
    content, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = copied(tmp_path, "bert", "houlsby")
    pickled(folder, content)
    refused(base_model("bert"), folder, "saved with use_safetensors=True: .* is damaged or")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [{"a": 1}, [torch.ones(2)], {"a": torch.ones(2, dtype=int)}])
def test_a_pickle_of_other_things_is_refused(content, tmp_path):
    folder = copied(tmp_path, "bert", "houlsby")
    pickled(folder, content)
    refused(base_model("bert"), folder, "holds more than named weights")


def test_damaged_safetensors_and_pointers_are_refused(tmp_path):
    folder = copied(tmp_path, "bert", "houlsby")
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(base_model("bert"), folder, "is damaged or")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(base_model("bert"), folder, "Fetch .* with `git lfs pull`")
    path.rename(folder / "pytorch_adapter.bin")
    refused(base_model("bert"), folder, "Fetch .* with `git lfs pull`")
    (folder / "pytorch_adapter.bin").unlink()
    refused(base_model("bert"), folder, "has no adapter weights")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "it is not JSON"),
        ("\xff", "it is not JSON"),
        ("[]", "without config"),
        (
            '{"config": null, "hidden_size": 16, "model_type": "bert", "name": "a"}',
            "without config",
        ),
        ('{"config": {}, "model_type": "bert", "name": "a"}', "without hidden_size"),
        ('{"config": {}, "hidden_size": 16}', "without model_type, name"),
        (
            '{"config": {}, "hidden_size": 16, "model_type": "bert", "name": "a"}',
            "differs from both",
        ),
    ],
)
def test_a_configuration_that_is_cut_short_is_refused(content, sentence, tmp_path):
    folder = copied(tmp_path, "bert", "houlsby")
    (folder / "adapter_config.json").write_bytes(content.encode("latin-1"))
    refused(base_model("bert"), folder, sentence)


def test_wrong_folders_are_refused(tmp_path):
    folder, base = copied(tmp_path, "bert", "houlsby"), base_model("bert")
    copied(tmp_path, "bert", "pfeiffer")
    refused(base, tmp_path, "Give one of the folders in .*: bert-houlsby, bert-pfeiffer")
    refused(base, folder / "adapter_config.json", "unpacked: .* is a file")
    refused(
        base, tmp_path / "nowhere", "on this machine: .*nowhere/adapter_config.json does not exist"
    )
    refused(base, "AdapterHub/bert-base-uncased-pf-imdb", "on this machine: .* does not exist")
    refused(base, FIXTURE / "bert", "Give one of the folders in .*: houlsby, pfeiffer")
    (folder / "adapter.safetensors").unlink()
    (folder / "adapter.safetensors").mkdir()
    refused(base, folder, "Make .* readable")


def test_after_a_refusal_the_right_adapter_fits(tmp_path):
    base = base_model("bert")
    edit(
        copied(tmp_path, "bert", "houlsby") / "adapter_config.json",
        lambda meta: meta["config"].update(reduction_factor=8),
    )
    refused(base, tmp_path / "bert-houlsby", "is of another width, .* in the file, not")
    model = from_adapterhub(base, FIXTURE / "bert" / "houlsby").eval()
    assert gap(model, "bert", "houlsby", "logits") <= TOLERANCE["houlsby"]


def test_a_local_path_stays_at_home(tmp_path):
    tiny("bert").save_pretrained(tmp_path / "secret" / "mine")
    base = transformers.AutoModel.from_pretrained(tmp_path / "secret" / "mine")
    to_adapterhub(get_peft_model(base, BottleneckConfig(reduction_factor=8)), tmp_path / "hub")
    meta = json.loads((tmp_path / "hub" / "adapter_config.json").read_text())
    assert meta["model_name"] == "mine"
