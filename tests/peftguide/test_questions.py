"""Forty-seven questions of people with a job to do: the guide's answer beside an expert's."""

import re
from pathlib import Path

import pytest
import yaml

import peftguide
from nbregress import cli
from pefthelpers.errors import UserError

ASKED = yaml.safe_load(Path(__file__).with_name("questions.yaml").read_text(encoding="utf-8"))


def said(choice):
    """Return all that an answer says: label, reasons, the others, the cell."""
    return f"{choice}\n{choice.configuration}"


@pytest.mark.parametrize("number", ASKED)
def test_the_guide_answers_as_an_expert_does(number):
    asked = ASKED[number]
    if refusal := asked.get("refused"):
        with pytest.raises(UserError) as error:
            peftguide.choose(**asked["fields"])
        assert refusal in str(error.value) and "\n" not in str(error.value)
        return
    choice = peftguide.choose(**asked["fields"])
    assert choice.method == asked["method"], asked["expert"]
    texts = [choice.label, *choice.why, said(choice)]
    for pattern in asked["must"]:
        assert any(re.search(pattern, text, re.DOTALL) for text in texts), (
            f"{pattern}\n{said(choice)}"
        )
    for pattern in asked.get("must_not", ()):
        assert not re.search(pattern, said(choice)), pattern


def test_the_table_is_whole_and_can_fail():
    assert len(ASKED) == 47
    for asked in ASKED.values():
        assert asked["ask"] and ("refused" in asked or asked["expert"] and asked["must"])
    plain = said(peftguide.choose("learn", model="qwen3-0.6b", card_gib=40))
    others = [
        p for each in ASKED.values() for p in each.get("must", ()) if re.search(p, plain, re.DOTALL)
    ]
    assert len(others) < sum(len(each.get("must", ())) for each in ASKED.values()) / 2


def test_the_command_says_what_the_function_says(capsys):
    given = [
        "learn",
        "--model",
        "llama-3.1-8b",
        "--card",
        "16",
        "--tasks",
        "3",
        "--tooling",
        "peft",
    ]
    assert cli.main(["choose", *given]) == 0
    asked = {"model": "llama-3.1-8b", "card_gib": 16, "tasks": 3, "tooling": "peft"}
    assert capsys.readouterr().out == f"{peftguide.choose('learn', **asked)}\n"
    assert cli.main(["choose", "learn", "--model", "llama-3.1-8b", "--card", "none"]) == 0
    assert capsys.readouterr().out.startswith("Not without a GPU")
    assert cli.main(["choose", "cook"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_config_json_is_answered_as_the_model_it_is_of(tmp_path):
    import json

    from peftmemory.configs import read_sheet

    path = tmp_path / "config.json"
    path.write_text(json.dumps(read_sheet("llama-3.1-8b")["config"]))
    for model in (str(path), str(tmp_path)):
        choice = peftguide.choose("learn", model=model, card_gib=24)
        named = peftguide.choose("learn", model="llama-3.1-8b", card_gib=24)
        assert choice.method == named.method
        assert choice.asked.peak("lora") == named.asked.peak("lora")
    other, broken = tmp_path / "other.json", tmp_path / "broken.json"
    other.write_text(json.dumps({**read_sheet("llama-3.1-8b")["config"], "model_type": "gemma2"}))
    assert any("--trace" in why for why in peftguide.choose("learn", model=str(other)).why)
    broken.write_text("{")
    assert cli.main(["choose", "learn", "--model", str(broken)]) == 2
