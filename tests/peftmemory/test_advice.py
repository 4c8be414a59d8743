"""What fits a card and what would make it fit: in Python and on the command line."""

import json
import subprocess
import sys

import pytest

import peftmemory
from nbregress import cli
from peftmemory.advice import covered_models
from peftmemory.cards import CARD_OVERHEAD_GIB, card_gib, range_in_words, verdict
from peftmemory.errors import EstimateError
from support.memory_models import TOY

EVERYWHERE = peftmemory.EVERYWHERE
STEP = {"batch": 1, "seq": 2048, "optimizer": "adamw_torch_fused"}


def test_what_fits_is_said_with_the_peak():
    advice = peftmemory.advise("llama-2-7b", EVERYWHERE, card_gib=48, **STEP)
    assert advice.fits and advice.changes == ()
    assert f"{advice.peak_gib:.1f} GiB" in str(advice)
    assert str(advice).startswith("It fits a card of 48 GiB")


def test_one_change_that_is_enough_is_named_alone():
    advice = peftmemory.advise("llama-2-7b", EVERYWHERE, card_gib=24, **STEP)
    assert not advice.fits and advice.smallest_card_gib == 48
    assert advice.changes == ("gradient checkpointing",)
    found = peftmemory.estimate("llama-2-7b", EVERYWHERE, **STEP, checkpointing=True)
    assert advice.changed_gib == found.peak / peftmemory.GIB


@pytest.mark.parametrize("card", [8, 16, 24])
def test_several_changes_make_it_fit_and_none_can_be_left_out(card):
    advice = peftmemory.advise("llama-3.1-8b", card_gib=card, **STEP, precision="fp32")
    assert not advice.fits and len(advice.changes) > 1
    assert advice.changed_gib + CARD_OVERHEAD_GIB <= card
    assert any("LoRA instead of full fine-tuning" in change for change in advice.changes)


def test_what_nothing_can_make_fit_is_said_so():
    advice = peftmemory.advise("llama-3.1-70b", EVERYWHERE, card_gib=24, **STEP)
    assert advice.changes == () and advice.changed_gib > 24
    assert "No change listed here makes it fit" in str(advice)


def test_advice_is_a_verdict_and_a_remedy():
    for card in (8, 24, 80):
        advice = peftmemory.advise("llama-2-7b", EVERYWHERE, card_gib=card, **STEP)
        assert str(advice) == f"{advice.verdict} {advice.remedy}".strip()
        assert bool(advice.remedy) is not advice.fits


def test_between_yes_and_no_is_said_so_with_what_would_settle_it():
    advice = peftmemory.advise("llama-2-7b", EVERYWHERE, card_gib="a100-40", **STEP)
    assert advice.word == "uncertain" and not advice.fits
    assert str(advice).startswith("It may fit the A100-40 of 39.25 GiB: ")
    assert range_in_words(2**30 * advice.peak_gib).startswith("A card shows 31.4 to 42.9 GiB")
    assert advice.changes == ("gradient checkpointing",) and "It would fit with" in str(advice)


def test_targets_as_a_list_are_advised_too():
    listed = peftmemory.method("lora", r=8, target_modules=["q_proj", "v_proj"])
    peaks = {peftmemory.advise(TOY, m, card_gib=8, **STEP).peak_gib for m in (listed, "lora")}
    assert len(peaks) == 1


def test_the_largest_model_that_fits():
    assert covered_models()[0] == "smollm2-135m" and covered_models()[-1] == "llama-3.1-70b"
    qlora = {**STEP, "precision": "nf4", "checkpointing": True, "loss": "chunked"}
    assert peftmemory.largest_fitting(EVERYWHERE, card_gib=80, **qlora) == "llama-3.1-70b"
    assert peftmemory.largest_fitting(EVERYWHERE, card_gib=24, **qlora) == "qwen3-8b"
    assert peftmemory.largest_fitting("full", card_gib=0.5, **STEP) is None


@pytest.mark.parametrize("card", [0, -24, float("nan"), float("inf"), True])
def test_a_card_without_memory_is_refused(card):
    for ask in (
        lambda: peftmemory.advise(TOY, card_gib=card, **STEP),
        lambda: peftmemory.fits(TOY, card_gib=card),
        lambda: peftmemory.largest_fitting("full", card_gib=card, **STEP),
    ):
        with pytest.raises(EstimateError, match="must be above 0 GiB"):
            ask()


def run(capsys, *arguments):
    code = cli.main(["memory", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


LORA = ("llama-3.1-8b", "--method", "lora", "--rank", "16", "--targets", "all-linear")


def test_the_command_prints_the_same_table(capsys):
    code, out, _ = run(capsys, *LORA, "--batch", "2", "--seq", "512", "--checkpointing")
    options = {"checkpointing": True, "optimizer": "adamw_torch_fused"}
    found = peftmemory.estimate("llama-3.1-8b", EVERYWHERE, batch=2, seq=512, **options)
    assert code == 0 and out == f"{found}\n"


def test_the_command_prints_json(capsys):
    code, out, _ = run(capsys, *LORA, "--precision", "mixed", "--json", "--card-gib", "24")
    found = json.loads(out)
    assert code == 0 and found["setting"]["autocast"] is True
    assert found["peak"] == sum(found["moments"][found["peak_moment"]].values())
    assert found["advice"]["sentence"].startswith("It does not fit a card of 24 GiB")
    assert {row["fits"] for row in found["fits"]} == {True, False}


@pytest.mark.parametrize("option", ["--card-gib", "--max-vram"])
def test_a_card_says_which_settings_fit(capsys, option):
    _, out, _ = run(capsys, *LORA, option, "24")
    rows = [line for line in out.splitlines() if line.startswith(("fits", "maybe", "-"))]
    fitting = [line for line in rows if line.startswith("fits")]
    assert len(rows) == 24 and any("QLoRA" in line for line in fitting)
    assert not any("full" in line for line in fitting)


def test_the_command_traces_other_families(capsys):
    arguments = ("t5-base", "--trace", "--method", "prompt", "--virtual-tokens", "8", "--seq", "16")
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and "prompt tuning num_virtual_tokens=8" in out and "*backward" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("gpt-9",), "There is no model 'gpt-9'"),
        (("llama-2-7b", "--method", "magic"), "There is no method 'magic'"),
        (("llama-2-7b", "--method", "full", "--rank", "4"), "full has no option 'r'"),
        (("llama-2-7b", "--method", "lora", "--rank", "four"), "--rank takes a whole number"),
        (
            ("llama-2-7b", "--method", "lora", "--rank", "0"),
            "r must be a whole number of at least 1",
        ),
        (("llama-2-7b", "--method", "lora", "--rank", "5000"), "a rank of at most 4096"),
        (("llama-2-7b", "--method", "lora", "--targets", "query"), "has no module query"),
        (("llama-2-7b", "--batch", "-5"), "batch must be a whole number of at least 1"),
        (("llama-2-7b", "--seq", "1.5"), "--seq takes a whole number"),
        (
            ("llama-2-7b", "--precision", "int3"),
            "(choose from 'bf16', 'mixed', 'fp32', 'nf4', 'fp16')",
        ),
        (("llama-2-7b", "--optimizer", "sgdm"), "optimizer must be one of"),
        (("llama-2-7b", "--card-gib", "0"), "must be above 0 GiB"),
        (("llama-2-7b", "--max-vram", "big"), "--max-vram takes a number"),
        (("llama-2-7b", "--method", "prefix", "--checkpointing"), "turn one of the two off"),
        (("llama-2-7b", "--precision", "nf4"), "4-bit weights cannot be trained"),
        (("nowhere/config.json",), "Cannot read nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, arguments, sentence):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err and err.startswith("pefthelpers: ") and err.count("\n") == 1


@pytest.mark.parametrize("text", ["[]", "7", "{", '"a"'])
def test_a_file_that_holds_no_config_is_refused(capsys, tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    code, out, err = run(capsys, str(path))
    assert (code, out) == (2, "") and "config.json." in err and err.count("\n") == 1


def test_a_config_whose_heads_do_not_divide_is_refused(capsys, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**TOY, "num_key_value_heads": 3}))
    code, out, err = run(capsys, str(path))
    assert (code, out) == (2, "") and "cannot share 3 key/value heads" in err


# FitCheck's runs at a T4's boundary (fitcheck-llm 0.3.1, validation/final-t4-20260921-verdicts.json,
# MIT): the closed form's peak in MiB, and whether the run completed.
T4_RUNS = [
    (12_529, True), (14_881, False), (11_835, True), (14_383, False), (12_263, True),
    (14_403, False), (10_557, True), (13_339, False), (11_084, True), (11_788, True),
    (11_504, True), (12_601, True),
]  # fmt: skip


@pytest.mark.parametrize(("mib", "completed"), T4_RUNS)
def test_no_verdict_on_a_t4_contradicts_what_happened(mib, completed):
    wrong = "does not fit" if completed else "fits"
    assert verdict(mib * 2**20, card_gib("t4")) != wrong


@pytest.mark.parametrize(("name", "gib"), [("T4", 14.56), ("NVIDIA A10G", 22.06), ("h100", 79.11)])
def test_cards_are_known_by_name(name, gib):
    assert card_gib(name) == gib


@pytest.mark.parametrize(
    ("card", "code"), [("h100", 0), ("a100-40", 1), ("a10g", 1)], ids=["fits", "uncertain", "no"]
)
def test_must_fit_decides_the_exit_code(capsys, card, code):
    step = ("llama-2-7b", *LORA[1:], "--seq", "2048", "--card", card)
    assert run(capsys, *step, "--must-fit")[0] == code
    assert run(capsys, *step)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--method", "qlora"), "qlora is lora on a 4-bit base"),
        (("--attention", "flash_attention_3"), "same bytes as flash_attention_2"),
        (("--attention", "flex_attention"), "same bytes as sdpa"),
        (("--optimizer", "paged_adamw"), "take paged_adamw_32bit or paged_adamw_8bit"),
        (("--optimizer", "lion"), "take lion_32bit or lion_8bit"),
        (("--loss", "fused"), "loss must be one of plain, chunked, liger"),
        (("--recompute", "selective"), "goes with checkpointing"),
        (("--checkpointing", "--recompute", "some"), "recompute must be one of layers"),
        (
            ("--checkpointing", "--recompute", "selective", "--attention", "eager"),
            "keeps a fused kernel's output",
        ),
        (("--table",), "--table needs a card"),
        (("--devices", "0"), "devices must be a whole number of at least 1"),
        (("--devices", "two"), "--devices takes a whole number"),
        (("--devices", "2", "--strategy", "zero4"), "invalid choice: 'zero4'"),
        (("--strategy", "zero3"), "--strategy goes with --devices"),
        (("--offload", "all"), "--offload goes with --devices"),
        (("--devices", "2", "--strategy", "zero2", "--offload", "all"), "With zero2 offload is"),
        (("--devices", "2", "--task", "dpo"), "two questions"),
        (("--devices", "2", "--trace"), "two questions"),
        (("--devices", "2", "--switches"), "two questions"),
        (("--serve", "--table", "--card", "t4"), "two questions"),
        (("--adapters", "4"), "--adapters goes with --serve"),
        (("--serve", "--adapters", "4"), "--adapters needs --method"),
        (("--serve", "--precision", "mixed"), "mixed is a way to train"),
        (("--serve", "--prefill", "0"), "prefill must be a whole number of at least 1"),
        (("--cache-8bit",), "--cache-8bit goes with --serve"),
        (("--reference", "second-model"), "--reference goes with --task"),
        (("--task", "dpo", "--reference", "adapter-off"), "has no adapter to switch off"),
        (("--task", "dpo", "--generated", "8"), "DPO generates nothing"),
        (("--task", "ppo"), "invalid choice: 'ppo'"),
        (("--task", "dpo", "--loss", "liger"), "tile by tile: take loss='chunked'"),
        (("--method", "lora", "--targets", ""), "--targets takes names"),
        (("--method", "lora", "--targets", "q_proj,v_porj"), "has no module v_porj"),
        (("--card", "t5"), "did you mean t4?"),
        (("--card", "t4", "--card-gib", "16"), "two cards"),
        (("--must-fit",), "--must-fit needs a card"),
        (("--batch", str(10**21)), "batch must be at most"),
        (("--head", "poet"), "head must be one of causal-lm"),
        (("--method", "houlsby", "--reduction", "nan"), "reduction_factor must be at least 1"),
        (("--max-vram", "inf"), "must be above 0 GiB"),
        (("--prepare-kbit",), "prepare_kbit goes with"),
    ],
)
def test_near_misses_name_what_was_meant(capsys, arguments, sentence):
    code, out, err = run(capsys, "llama-2-7b", *arguments)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"peft_type": "LORA", "base_model_name_or_path": "some/base"}, "config.json of some/base"),
        ({"hidden_size": 64}, "names no model_type"),
        ({**TOY, "intermediate_size": None}, "names no intermediate_size"),
        ({**TOY, "hidden_size": "wide"}, "hidden_size must be a whole number"),
    ],
)
def test_a_file_that_is_no_whole_model_is_refused(capsys, tmp_path, content, sentence):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    code, out, err = run(capsys, str(path))
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


def test_a_model_is_a_name_a_hub_id_a_folder_or_a_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TOY))
    known = peftmemory.load_config("llama-3.1-8b")
    assert peftmemory.load_config("meta-llama/Llama-3.1-8B") == known
    assert peftmemory.load_config(str(tmp_path)) == peftmemory.load_config(str(path))
    with pytest.raises(EstimateError, match="hf download nobody/nothing config.json"):
        peftmemory.load_config("nobody/nothing")


def test_the_text_part_of_a_multimodal_file_is_taken_and_said():
    gemma = peftmemory.load_config("google/gemma-3-4b-pt")
    assert (gemma.model_type, gemma.hidden_size) == ("gemma3_text", 2560)
    assert "text part (gemma3_text) of a multimodal gemma3" in gemma.notes[0]
    llama = {**TOY, "model_type": "llama"}
    found = peftmemory.estimate({"model_type": "llava", "text_config": llama}, batch=1, seq=8)
    assert found.peak == peftmemory.estimate(TOY, batch=1, seq=8).peak and found.notes


def test_the_switches_of_what_people_run_reach_the_step(capsys):
    step = ("--precision", "nf4", "--autocast", "--adapters-16bit", "--free-outputs", "--json")
    setting = json.loads(run(capsys, *LORA, *step)[1])["setting"]
    assert setting["autocast"] and setting["free_outputs"]
    assert setting["autocast_adapter_dtype"] is False


QUESTIONS = {
    "plain": (),
    "table": ("--table", "--checkpointing"),
    "switches": ("--switches",),
    "devices": ("--devices", "8", "--strategy", "zero2", "--offload", "optimizer"),
    "dpo": ("--task", "dpo", "--batch", "2"),
    "grpo": ("--task", "grpo", "--generated", "16", "--reference", "adapter-off"),
    "serve": ("--serve", "--adapters", "4", "--prefill", "2048"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_command_answers_at_once_and_without_torch(question):
    arguments = ["memory", *LORA, "--card", "a10g", *QUESTIONS[question]]
    code = (
        "import sys, time; from nbregress import cli;"
        f"cli.main({arguments});"
        "print(time.process_time(), {'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    seconds, heavy = out.splitlines()[-1].split(" ", 1)
    assert heavy == "set()" and float(seconds) < 0.5


@pytest.mark.parametrize(
    ("question", "keys", "words"),
    [
        ("table", {"table", "verdict", "advice"}, "Largest batch of 1,024 tokens: "),
        ("switches", {"switches", "verdict", "advice"}, "recomputes"),
        ("devices", {"verdict"}, "zero2 on 8, offload optimizer"),
        ("dpo", {"verdict"}, "DPO on 2 pairs, reference adapter-off, batch 4 x 1024 tokens"),
        ("grpo", {"verdict"}, "*generation"),
        ("serve", {"verdict", "sequences"}, "Sequences of 1,024 tokens at a time"),
    ],
)
def test_each_question_is_answered_in_words_and_in_json(capsys, question, keys, words):
    arguments = (*LORA, "--card", "h100", *QUESTIONS[question])
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and (words in out or question == "grpo" and " generation" in out)
    found = json.loads(run(capsys, *arguments, "--json")[1])
    others = {"table", "switches", "sequences", "advice", "verdict"} - keys
    assert keys <= set(found) and not others & set(found)


@pytest.mark.parametrize("question", ["switches", "devices", "dpo", "grpo"])
def test_a_question_that_cannot_be_traced_does_not_say_trace_it(capsys, question):
    code, out, err = run(capsys, "gpt2", "--method", "lora", *QUESTIONS[question])
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "not gpt2, and this question cannot be traced." in err


def test_several_devices_may_fit_what_one_does_not(capsys):
    step = ("llama-3.1-70b", *LORA[1:], "--checkpointing", "--card", "h100", "--must-fit")
    assert run(capsys, *step)[0] == 1
    assert run(capsys, *step, "--devices", "8")[0] == 0


@pytest.mark.parametrize(("gib", "word", "code"), [("24", "fits", 0), ("0.1", "does not fit", 1)])
def test_a_traced_peak_gets_a_verdict_too(capsys, tmp_path, gib, word, code):
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**gpt2, "vocab_size": 64}))
    arguments = (str(path), "--method", "lora", "--seq", "32", "--max-vram", gib, "--must-fit")
    found, out, _ = run(capsys, *arguments, "--json")
    assert found == code and json.loads(out)["verdict"] == word
    assert ("traced again: " in run(capsys, *arguments)[1]) is (word != "fits")


def test_a_task_takes_trls_loss_and_padding_unless_told(capsys):
    setting = lambda *more: json.loads(run(capsys, *LORA, "--task", "dpo", "--json", *more)[1])[
        "setting"
    ]
    assert setting()["loss"] == "chunked" and setting()["padding"]
    assert setting("--packing")["packing"] and not setting("--packing")["padding"]
