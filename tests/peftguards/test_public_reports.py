"""What people reported of adapters (issue 17), each with two more of its kind: the guard's word on it.

The number is the case's; `a` is what was reported, `b` and `c` are ours.
"""

import copy
import re
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model

import peftguards
from pefthelpers import session
from support import guard_models as make
from support.bottleneck_models import batch, tiny
from support.guard_models import (
    RENAMED,
    after,
    base,
    folder,
    merged,
    of,
    renamed,
    step,
    trained,
    wrap,
)

ANOTHER = r"trained on another base model: \d+ of 21 weights differ, the first is .*proj.weight"
SHARED = r"The weight of .* is shared with .*, and a merge would change both"
KEYS = r"Keys of the adapter .* do not match: 8 of 8 would be ignored and 8 of 8 stay as initial"


def trained_on(model, tmp, **options):
    """Train an adapter on a model, save and sign it; return its folder."""
    return folder(tmp, trained(model=model, **options))


def low(method, mark):
    """Return a method in bfloat16 whose correction is about a thousandth of the weights."""
    return make.spoil(wrap(method, base().bfloat16()), mark, lambda p: p * 0.999 + 0.001 * (p == 0))


def prefixed(kind, family, task):
    options = {"task_type": task, "num_virtual_tokens": 4}
    return get_peft_model(of(kind, family), PrefixTuningConfig(**options))


def lora(model, *targets, **options):
    return get_peft_model(model, LoraConfig(r=4, target_modules=list(targets), **options))


def headless(model, *targets):
    """Train an adapter without a task_type, so that the new head stays as it is."""
    labels = {"labels": torch.zeros(2, dtype=torch.long)}
    if model.config.architectures is None and hasattr(model, "qa_outputs"):
        labels = {name: labels["labels"] for name in ("start_positions", "end_positions")}
    elif type(model).__name__.endswith("TokenClassification"):
        labels = {"labels": torch.zeros(2, 9, dtype=torch.long)}
    inputs = {"input_ids": batch("bert")["input_ids"], **labels}
    return after(lora(model, *targets), inputs=inputs)


WHOLE_EMBEDDINGS = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}


def more_tokens(tmp, *, longer, **options):
    """Train an adapter on a base with two tokens more, which its file then holds; a base to load it on."""
    base().config.save_pretrained(tmp / "published")  # peft looks there: were tokens added?
    models = [base(), base()]
    for model in models[: 1 + longer]:
        model.resize_token_embeddings(66)
        model.name_or_path = str(tmp / "published")
    return trained_on(models[0], tmp, **options), models[1]


def reloaded(place, model):
    """Return the arguments of check_adapter."""
    return place, PeftModel.from_pretrained(model, place)


base_of, merges, trains = peftguards.check_base, peftguards.check_merge, peftguards.check_training
REPORTS = {
    "01a": (ANOTHER, base_of, lambda tmp: (trained_on(merged(), tmp), base())),
    "01b": (ANOTHER, base_of, lambda tmp: (trained_on(merged("LOHA"), tmp), base().bfloat16())),
    "01c": (ANOTHER, base_of, lambda tmp: (trained_on(base(), tmp), make.four_bit(merged()))),
    "02a": (
        "ok",
        base_of,
        lambda tmp: (trained_on(base(), tmp, modules_to_save=["embed_tokens"]), base()),
    ),
    "02a2": (
        "ok",
        base_of,
        lambda tmp: (trained_on(base(), tmp, trainable_token_indices=[5, 6]), base()),
    ),
    "02b": ("ok", base_of, lambda tmp: (trained_on(base(), tmp, modules_to_save=["norm"]), base())),
    "02c": (
        "ok",
        base_of,
        lambda tmp: (trained_on(base(), tmp, modules_to_save=["lm_head"]), base().half()),
    ),
    "02d": ("ok", base_of, lambda tmp: more_tokens(tmp, longer=True)),
    "02e": ("ok", base_of, lambda tmp: more_tokens(tmp, longer=True, trainable_token_indices=[64])),
    "02f": (
        r"embed_tokens.weight \(\[66, 64\] there, .* call resize_token_embeddings\(66\) first",
        base_of,
        lambda tmp: more_tokens(tmp, longer=False, trainable_token_indices=[64]),
    ),
    "02g": (
        "ok",
        peftguards.check_adapter,
        lambda tmp: reloaded(*more_tokens(tmp, longer=True, trainable_token_indices=[64])),
    ),
    "02h": (
        "ok",
        peftguards.check_adapter,
        lambda tmp: reloaded(*more_tokens(tmp, longer=True, **WHOLE_EMBEDDINGS)),
    ),
    "03a": (SHARED, merges, lambda tmp: (trained(target_modules=["v_proj", "lm_head"]),)),
    "03b": (
        SHARED,
        merges,
        lambda tmp: (lora(of("ForCausalLM", "gpt2", n_embd=32, n_head=2), "c_attn", "wte"),),
    ),
    "03c": (
        SHARED,
        merges,
        lambda tmp: (lora(tiny("t5", tie_word_embeddings=True), "q", "shared"),),
    ),
    "04a": ("ok", merges, lambda tmp: (trained(name="nonna"),)),
    "04b": ("ok", merges, lambda tmp: (apart("nonna", "zia"),)),
    "04c": ("keeps -?[0-9]+%", merges, lambda tmp: (make.sized(1e-3, name="nonna"),)),
    "05a": ("keeps -?[0-9]+% of the correction", merges, lambda tmp: (low("DoRA", "magnitude"),)),
    "05b": ("keeps -?[0-9]+% of the correction", merges, lambda tmp: (low("IA3", "ia3_l"),)),
    "05c": ("keeps -?[0-9]+% of the correction", merges, lambda tmp: (low("VERA", "lambda_b"),)),
    "07a": ("ok", trains, lambda tmp: after(wrap())),
    "07b": ("ok", trains, lambda tmp: after(wrap("LILY"))),
    "07c": ("ok", trains, lambda tmp: after(wrap("ADALORA"))),
    "15a": (
        r"fits only in part: .* under 'gate_proj', 'up_proj'; .* Phi3.* are down_proj, gate_up_proj",
        peftguards.check_targets,
        lambda tmp: (lora(of("ForCausalLM", "phi3"), "qkv_proj", "gate_proj", "up_proj"),),
    ),
    "15b": (
        r"under 'q_proj'; the layers of this Falcon.* are dense, .*lm_head, query_key_value",
        peftguards.check_targets,
        lambda tmp: (lora(of("ForCausalLM", "falcon"), "dense_4h_to_h", "q_proj"),),
    ),
    "15c": (
        r"under 'c_fc1'; the layers of this GPT2.* are c_fc \(Conv1D\), c_proj \(Conv1D\)",
        peftguards.check_targets,
        lambda tmp: (lora(tiny("gpt2"), "c_attn", "c_fc1"),),
    ),
    "21a": (
        "The head 'classifier' is new, and it is neither trained nor saved",
        trains,
        lambda tmp: headless(of("ForSequenceClassification", "roberta"), "query", "value"),
    ),
    "21b": (
        "The head 'classifier' is new",
        trains,
        lambda tmp: headless(of("ForTokenClassification", "bert"), "query"),
    ),
    "21c": (
        "The head 'qa_outputs' is new",
        trains,
        lambda tmp: headless(of("ForQuestionAnswering", "electra"), "value"),
    ),
}
for _letter, _name in zip("abcd", RENAMED, strict=True):
    REPORTS[f"06{_letter}"] = (
        KEYS,
        base_of,
        lambda tmp, name=_name: (renamed(trained_on(base(), tmp), RENAMED[name]), base()),
    )
PREFIXED = {
    "08a": ("ForSequenceClassification", "bert", "SEQ_CLS"),
    "08a2": ("ForSequenceClassification", "roberta", "SEQ_CLS"),
    "08b": ("ForTokenClassification", "bert", "TOKEN_CLS"),
    "08c": ("ForQuestionAnswering", "roberta", "QUESTION_ANS"),
}


def apart(*names):
    """Return a model with two trained adapters, each on modules of its own, both active."""
    model = wrap(name=names[0], target_modules=["q_proj"])
    model.add_adapter(names[1], LoraConfig(r=4, target_modules=["v_proj"]))
    model.base_model.set_adapter(list(names))
    return step(model, steps=2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REPORTS)
def test_what_people_reported(case, tmp_path):
    sentence, guard, arguments = REPORTS[case]
    said = peftguards.explain(guard, *arguments(tmp_path))
    assert re.search(rf"^{sentence}$" if sentence == "ok" else sentence, said), said


@pytest.mark.parametrize("case", PREFIXED)
def test_a_prefix_on_what_does_not_generate(case):
    model = prefixed(*PREFIXED[case])
    peftguards.check_prefix(model)
    peftguards.check_prefix(model, use_cache=False)
    with pytest.raises(peftguards.GuardError, match="set gradient_checkpointing=False"):
        peftguards.check_prefix(model, gradient_checkpointing=True)


def test_a_head_that_was_left_out_guesses_after_reloading(tmp_path):
    """Case 21: what the guard's sentence says would happen, does."""
    model = of("ForSequenceClassification", "roberta")
    tuned, _ = headless(copy.deepcopy(model), "query")
    tuned.eval().save_pretrained(tmp_path)
    torch.nn.init.normal_(model.classifier.out_proj.weight)  # as the next from_pretrained draws it
    again = PeftModel.from_pretrained(model, tmp_path).eval()
    ids = batch("roberta")["input_ids"]
    assert not torch.allclose(again(ids).logits, tuned(ids).logits, atol=1e-3)


def heard(call):
    """Return the messages of the warnings that a reader sees after ``session.start``."""
    with warnings.catch_warnings(record=True) as said:
        session.start(0)
        call()
    return [str(warning.message) for warning in said]


def test_what_a_reader_can_act_on_is_heard(tmp_path):
    """Cases 03 and 06: missing keys and tied weights; a file on a hub out of reach is not."""
    broken = renamed(folder(tmp_path, trained()), RENAMED["of a compiled model"])
    said = heard(lambda: PeftModel.from_pretrained(base(), broken))
    assert any("missing adapter keys" in message for message in said)
    tied = heard(lambda: wrap(target_modules=["lm_head"]).merge_and_unload())
    assert any("tie_word_embeddings" in message for message in tied)
    rows = wrap(target_modules=["q_proj", "embed_tokens"], model=base(tie_word_embeddings=False))
    rows.peft_config["default"].base_model_name_or_path = "nobody/nothing"
    assert not any("config file" in m for m in heard(lambda: rows.save_pretrained(tmp_path / "r")))
