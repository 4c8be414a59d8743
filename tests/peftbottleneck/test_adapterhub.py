"""Equality with AdapterHub's library, from what it computed: see studies/adapterhub_fixture.py."""

import json
import shutil

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel

from peftbottleneck import BottleneckConfig, from_adapterhub, to_adapterhub
from peftbottleneck.errors import AdapterError
from support.adapterhub_files import FIXTURE, TOLERANCE, WITH_HEAD, base_model, gap, inputs
from support.bottleneck_models import tiny

KINDS = (*WITH_HEAD, "llama", "gpt2", "t5")
every = pytest.mark.parametrize("kind", KINDS)
both = pytest.mark.parametrize("placement", tuple(TOLERANCE))


@every
@both
def test_an_adapter_of_adapterhub_computes_the_same_here(kind, placement):
    model = from_adapterhub(base_model(kind), FIXTURE / kind / placement).eval()
    assert gap(model, kind, placement, "hidden") <= TOLERANCE[placement]
    if kind in WITH_HEAD:
        assert gap(model, kind, placement, "logits") <= TOLERANCE[placement]
    with model.disable_adapter():
        assert gap(model, kind, placement, "hidden") > 0.01


@every
@both
def test_there_and_back_every_weight_is_the_same(kind, placement, tmp_path):
    model = from_adapterhub(base_model(kind), FIXTURE / kind / placement, adapter_name="task")
    to_adapterhub(model, tmp_path, adapter_name="task")
    for stem in ("adapter", "model_head")[: 1 + (kind in WITH_HEAD)]:
        theirs = load_file(FIXTURE / kind / placement / f"{stem}.safetensors")
        mine = load_file(tmp_path / f"{stem}.safetensors")
        assert theirs.keys() == mine.keys()
        assert all(torch.equal(theirs[key], mine[key]) for key in theirs)


@every
@both
def test_our_configuration_files_say_what_adapterhub_says(kind, placement, tmp_path):
    model = from_adapterhub(base_model(kind), FIXTURE / kind / placement, adapter_name="task")
    model.peft_config["task"].init_weights = "bert"
    to_adapterhub(model, tmp_path, adapter_name="task")
    for name in ("adapter_config.json", "head_config.json")[: 1 + (kind in WITH_HEAD)]:
        theirs = json.loads((FIXTURE / kind / placement / name).read_text())
        mine = json.loads((tmp_path / name).read_text())
        mine["model_name"] = theirs["model_name"]
        free = {"activation_function"} if placement == "pfeiffer" else set()
        same = {key for key, value in mine["config"].items() if theirs["config"][key] == value}
        assert set(mine["config"]) - same <= free
        assert {**mine, "config": 0} == {**theirs, "config": 0}


def test_our_own_adapter_comes_back_from_adapterhubs_files(tmp_path):
    for placement in TOLERANCE:
        config = BottleneckConfig(
            task_type="SEQ_CLS", placement=placement, reduction_factor=4, scaling=2.0, dropout=0.1
        )
        model = get_peft_model(base_model("roberta"), config, adapter_name="mine")
        to_adapterhub(model, tmp_path / placement, adapter_name="mine")
        again = from_adapterhub(base_model("roberta"), tmp_path / placement)
        found = again.peft_config["default"]
        for field in ("placement", "reduction_factor", "non_linearity", "scaling", "dropout"):
            assert getattr(found, field) == getattr(config, field)
        with torch.no_grad():
            ours = model.eval()(**inputs("roberta")).logits
            assert torch.equal(again.eval()(**inputs("roberta")).logits, ours)


def test_a_second_adapter_under_a_name_of_its_own():
    model = from_adapterhub(base_model("roberta"), FIXTURE / "roberta" / "houlsby")
    from_adapterhub(model, FIXTURE / "roberta" / "pfeiffer", adapter_name="other")
    assert gap(model.eval(), "roberta", "houlsby", "logits") <= TOLERANCE["houlsby"]
    model.set_adapter("other")
    assert gap(model, "roberta", "pfeiffer", "logits") <= TOLERANCE["pfeiffer"]


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS", "TOKEN_CLS"])
def test_the_adapter_without_its_head(task_type):
    base = base_model("roberta", num_labels=2)
    folder = FIXTURE / "roberta" / "houlsby"
    model = from_adapterhub(base, folder, head=False, task_type=task_type).eval()
    assert gap(model, "roberta", "houlsby", "hidden") <= TOLERANCE["houlsby"]


def test_adapterhubs_pickled_weights(tmp_path):
    shutil.copytree(FIXTURE / "gpt2" / "houlsby", tmp_path / "old")
    safe = tmp_path / "old" / "adapter.safetensors"
    torch.save(load_file(safe), tmp_path / "old" / "pytorch_adapter.bin")
    safe.unlink()
    model = from_adapterhub(base_model("gpt2"), tmp_path / "old").eval()
    assert gap(model, "gpt2", "houlsby", "hidden") <= TOLERANCE["houlsby"]


# What cannot be converted ends in a sentence, and the base is as before.


def changed(tmp_path, kind="roberta", name="adapter_config.json", **changes):
    folder = tmp_path / "changed"
    shutil.copytree(FIXTURE / kind / "houlsby", folder)
    meta = json.loads((folder / name).read_text())
    meta["config"].update(changes)
    (folder / name).write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"is_parallel": True}, "differs from both in is_parallel"),
        ({"inv_adapter": "nice"}, "differs from both in inv_adapter"),
        ({"scaling": "learned"}, "differs from both in scaling"),
        ({"reduction_factor": {"default": 16}}, "differs from both in reduction_factor"),
        ({"mh_adapter": False}, "differs from both in mh_adapter"),
    ],
)
def test_other_kinds_of_adapter_are_refused(changes, sentence, tmp_path):
    with pytest.raises(AdapterError, match=sentence):
        from_adapterhub(base_model("roberta"), changed(tmp_path, **changes))


def test_another_base_is_refused():
    folder = FIXTURE / "roberta" / "houlsby"
    with pytest.raises(AdapterError, match="into a roberta model of hidden size 16"):
        from_adapterhub(base_model("bert"), folder)
    with pytest.raises(AdapterError, match="the base is roberta, 32"):
        from_adapterhub(tiny("roberta"), folder)
    base = base_model("roberta", num_hidden_layers=1)
    before = list(base.state_dict())
    with pytest.raises(AdapterError, match="into the model it was trained on: .* is in only one"):
        from_adapterhub(base, folder)
    assert list(base.state_dict()) == before


def test_weights_of_another_width_are_refused(tmp_path):
    wide = changed(tmp_path, reduction_factor=8)
    model = from_adapterhub(base_model("roberta"), FIXTURE / "roberta" / "houlsby")
    with pytest.raises(
        (AdapterError, RuntimeError), match="width|size mismatch"
    ):  # peft 0.20: its own
        from_adapterhub(model, wide, adapter_name="wide")
    assert set(model.peft_config) == {"default"}


def test_heads_that_do_not_fit_are_refused(tmp_path):
    folder = FIXTURE / "roberta" / "houlsby"
    with pytest.raises(AdapterError, match="Load the base with num_labels=3"):
        from_adapterhub(base_model("roberta", num_labels=2), folder)
    with pytest.raises(
        AdapterError, match="AutoModelForSequenceClassification, or pass head=False"
    ):
        from_adapterhub(AutoModel.from_pretrained(FIXTURE / "roberta"), folder)
    odd = changed(tmp_path, name="head_config.json", head_type="tagging")
    with pytest.raises(AdapterError, match="no counterpart of its tagging head"):
        from_adapterhub(base_model("roberta"), odd)


def test_folders_of_something_else_are_refused(tmp_path):
    with pytest.raises(AdapterError, match="adapter_config.json does not exist"):
        from_adapterhub(base_model("gpt2"), tmp_path)
    model = get_peft_model(base_model("gpt2"), BottleneckConfig(reduction_factor=4))
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="with PeftModel.from_pretrained: PEFT wrote it"):
        from_adapterhub(base_model("gpt2"), tmp_path)


def test_what_adapterhub_has_no_name_for_is_refused(tmp_path):
    model = get_peft_model(tiny("qwen3"), BottleneckConfig(reduction_factor=4))
    with pytest.raises(AdapterError, match="AdapterHub has no qwen3 model"):
        to_adapterhub(model, tmp_path)
    own = BottleneckConfig(reduction_factor=4, target_modules=["layers.1.mlp"])
    with pytest.raises(AdapterError, match="AdapterHub has no adapter at 'layers.1.mlp'"):
        to_adapterhub(get_peft_model(tiny("llama"), own), tmp_path)
    saved = BottleneckConfig(reduction_factor=4, modules_to_save=["norm"])
    with pytest.raises(AdapterError, match="no head made of .*model.norm"):
        to_adapterhub(get_peft_model(tiny("llama"), saved), tmp_path)
