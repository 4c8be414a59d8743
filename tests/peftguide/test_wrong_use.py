"""What people type wrongly at `recipe`, `check` and `choose`: one sentence that says what to do, exit code 2."""

import json
import shlex

import pytest

from nbregress import cli
from peftmemory.configs import read_sheet

LLAMA = read_sheet("llama-3.1-8b")["config"]
FILES = {
    "bad.json": "{",
    "list.json": "[1]",
    "adapter.json": '{"peft_type": "LORA", "base_model_name_or_path": "x"}',
    "neg.json": json.dumps(LLAMA | {"num_hidden_layers": -3}),
    "typed.json": '{"model_type": 3}',
    "vit.json": json.dumps(read_sheet("vit-base")["config"]),
    "broken/config.json": "{",
    "acme/config.json": '{"model_type": "acme"}',
    "good.jsonl": "".join(
        json.dumps({"prompt": f"q{i}", "completion": "a"}) + "\n" for i in range(20)
    ),
}
USES = {
    "recipe": "required: method",
    "recipe dpo": "take one of dora",
    "recipe lora --task cook": "take one of chat",
    "recipe lora --precision int3": "take auto, float32",
    "recipe lora --card big": "--card takes GB, or none",
    "recipe lora --card -3": "--card takes GB, or none",
    "recipe lora --card nan": "--card takes GB, or none",
    "recipe lora --seq 0": "--seq takes a whole number",
    "recipe lora --seq 4": "at least 16 tokens",
    "recipe lora --model": "expected one argument",
    "recipe lora --model ''": "give a name on the hub",
    "recipe lora --model bad.json": "give a name on the hub or the folder",
    "recipe lora --model gpt-3": "give a name on the hub or the folder",
    "recipe lora --model broken": "Cannot read broken/config.json",
    "recipe lora --model empty": "Cannot read empty/config.json",
    "recipe lora --model roberta-base": "give a decoder or a T5",
    "recipe lora --model t5-base --task classify": "give a decoder",
    "recipe qlora --task classify": "take lora",
    "recipe prompt --model qwen3-0.6b --task classify": "take lora",
    "recipe lora --model llama-3.1-70b --card 24": "qlora on 4 cards of 24 GB under FSDP",
    "recipe qlora --model llama-3.1-8b --card 8": "--seq 512",
    "recipe lora --model llama-3.1-8b --seq 999999": "reads 131,072 tokens",
    "recipe lora extra words": "unrecognized arguments: extra words",
    "check": "required: FILE",
    "check gone.jsonl": "There is no file gone.jsonl",
    "check empty": "There is no file empty",
    "check good.jsonl gone.jsonl": "There is no file gone.jsonl",
    "check good.jsonl good.jsonl": "nothing is left to train on",
    "check good.jsonl --task cook": "take one of chat",
    "check good.jsonl --task classify": '"label"',
    "check good.jsonl --length 0": "--length takes a whole number",
    "check good.jsonl --model nowhere/at-all": "give a folder with the model's files",
    "check good.jsonl --model empty": "give a folder with the model's files",
    "choose": "required: task",
    "choose dpo": "preference tuning (DPO) is not here",
    "choose learn --model gpt-5": "download its config.json",
    "choose learn --model ''": "has no name",
    "choose learn --model empty": "Cannot read empty/config.json",
    "choose learn --model acme": "transformers has no language model of the kind 'acme'",
    "choose learn --model bad.json": "Cannot read bad.json",
    "choose learn --model list.json": "holds no configuration",
    "choose learn --model adapter.json": "This is an adapter's configuration",
    "choose learn --model neg.json": "layers must be a whole number",
    "choose learn --model typed.json": "names no model_type",
    "choose classify --model vit.json": "give one that reads or writes text",
    "choose learn --model roberta-base": "take a Llama",
    "choose chat --model t5-base": "'summarise' or 'learn'",
    "choose learn --card lots": "--card takes GB, or none",
    "choose learn --tasks 1.5": "--tasks takes a whole number",
    "choose learn --examples many": "--examples takes a whole number",
    "choose learn --latency none": "take one of small, merged",
    "choose learn --tooling trl": "take one of any, peft, vllm",
    "choose learn --batch 0": "--batch takes a whole number",
    "choose learn --seq 100000000": "reads 131,072 tokens",
    "choose learn learn": "unrecognized arguments: learn",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the files that are named above."""
    made = tmp_path_factory.mktemp("uses")
    (made / "empty").mkdir()
    for name, text in FILES.items():
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(text, encoding="utf-8")
    return made


@pytest.mark.parametrize("use", USES)
def test_wrong_use_is_one_sentence_and_exit_code_2(use, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(shlex.split(use)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("pefthelpers: ") and said.err.count("\n") == 1
    assert USES[use] in said.err and len(said.err) < 450
