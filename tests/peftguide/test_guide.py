"""The decision guide: its answers follow from the records, and change with them."""

import json
import re
import subprocess
import sys
from itertools import product

import pytest

import peftguide
import peftmemory
from nbregress import cli
from peftbottleneck.errors import AdapterError
from peftguide import evidence, memory_need, reasons
from pefthelpers import methods, results
from pefthelpers.errors import UserError
from peftmemory.cards import verdict
from peftmemory.configs import read_sheet
from peftmemory.errors import EstimateError
from support.cells import Cells


def records(task):
    """Return copies of the records behind a task, free to be changed."""
    names = set(evidence.KINDS[task].records) & set(evidence.on_disk())
    return {name: results.rows(name) for name in names}


def without(task, *gone):
    """Return a task's records without some methods' rows."""
    return {name: rows[~rows["method"].isin(gone)] for name, rows in records(task).items()}


# Said where a test changes the records, or where nothing meets all wishes.
RARE = {
    "price",
    "unresolved",
    "wishes",
    "bf16",
    "ahead",
    "little behind",
    "keeps",
    "ties",
    "no default",
    "16 bits",
}
ANSWERED = [task for task in peftguide.KINDS if evidence.arms(task)]


def test_importing_the_guide_brings_no_torch():
    code = "import sys, peftguide; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize("task", ANSWERED)
def test_the_rows_of_an_answer_stand_in_the_records(task):
    choice = peftguide.choose(task)
    assert choice.method in choice.arms
    for method, arm in choice.arms.items():
        rows = results.rows(arm.record)
        rows = rows[(rows["method"] == method) & (rows["learning_rate"] == arm.learning_rate)]
        for seed, score in arm.test.items():
            assert score in list(rows[rows["seed"] == seed]["test"])
    assert len(choice.rows) == len(choice.arms)
    assert choice.rows.loc[choice.label, "mean"] == choice.arms[choice.method].mean


@pytest.mark.parametrize("task", ANSWERED)
def test_every_method_is_chosen_or_has_a_reason(task):
    choice = peftguide.choose(task)
    assert {choice.label, *choice.alternatives} == set(methods.LABELS.values())
    assert all(choice.alternatives.values())


def test_lost_old_tasks_are_forgetting_though_the_loss_stays():
    old = {"general_loss": [0.60, 0.61, 0.62], "tasks": [0.5, 0.5, 0.5]}
    made = evidence.Arm("lora", "made", 1e-3, 1000, 100, {0: 0.9, 1: 0.9, 2: 0.9}, old)
    base, asked = {"general_loss": 0.61, "tasks": 0.99}, peftguide.choose("elicit").asked
    case = reasons.Case(asked, made, {"lora": made}, evidence.judge({"lora": made}), base)
    assert reasons.forgetting(case).startswith("It forgets:")
    kept = case._replace(base=base | {"tasks": 0.5})
    assert reasons.forgetting(kept).startswith("It forgets less than 0.02")


@pytest.mark.parametrize("task", ANSWERED)
def test_without_the_winners_rows_another_answer_comes(task):
    first = peftguide.choose(task)
    second = peftguide.choose(task, records=without(task, first.method))
    assert second.method != first.method
    assert "no three seeds" in second.alternatives[first.label]


def test_without_any_row_it_says_so():
    choice = peftguide.choose("learn", records={})
    assert choice.method is None and choice.label == "Nothing recorded"
    assert "nothing to decide by" in choice.why[0]


@pytest.mark.parametrize("winner", ["prompt", "full", "houlsby", "dora"])
def test_a_record_in_which_another_method_wins_changes_the_answer(winner):
    changed = records("learn")
    rows = changed["sweep_decoder"]
    learn = rows["task"] == "learn"
    rows.loc[learn, ["test", "validation"]] *= 0.5
    own = learn & (rows["method"] == winner)
    repeated = rows[own].groupby("learning_rate")["seed"].nunique().idxmax()  # ran on every seed
    rows.loc[own & (rows["learning_rate"] == repeated), ["test", "validation"]] = 1.0
    asked = {"model": "llama-3.2-1b", "card_gib": 80}
    assert peftguide.choose("learn", **asked).method == "lora"
    choice = peftguide.choose("learn", records=changed, **asked)
    assert choice.method == winner
    assert any("every other method" in why and "worse" in why for why in choice.why)
    assert "default, LoRA on all linear layers, is ruled out" in choice.why[1]


def test_full_fine_tuning_cannot_share_a_base():
    changed = without("learn", *[name for name in methods.LABELS if name not in ("full", "prompt")])
    asked = {"model": "llama-3.2-1b", "card_gib": 80, "records": changed}
    assert peftguide.choose("learn", **asked).method == "full"
    shared = peftguide.choose("learn", tasks=10, **asked)
    assert shared.method == "prompt"
    assert "each of 10 tasks would be a whole model" in shared.alternatives["full"]
    assert any(sentence.startswith("What the question costs: full") for sentence in shared.why)


def test_in_pure_bf16_full_fine_tuning_says_so():
    changed = without("learn", *[name for name in methods.LABELS if name != "full"])
    mixed, pure = (memory_need.peak("llama-3.2-1b", n) for n in ("full", "full in bf16"))
    assert pure + 1 < 16 < mixed + 1
    choice = peftguide.choose("learn", model="llama-3.2-1b", card_gib=16, records=changed)
    assert choice.method == "full"
    assert any("pure bf16" in sentence for sentence in choice.why)


def test_four_bits_enter_where_sixteen_do_not_fit():
    large = peftguide.choose("learn", model="llama-3.1-8b", card_gib=80)
    small = peftguide.choose("learn", model="llama-3.1-8b", card_gib=16)
    assert large.method != "qlora" and small.method == "qlora"
    assert "not needed" in large.alternatives["QLoRA"]
    assert "more than this card holds" in small.alternatives["LoRA all-linear"]


def test_where_nothing_fits_it_says_what_would():
    choice = peftguide.choose("learn", model="llama-3.1-70b", card_gib=8)
    assert choice.method is None and choice.configuration == ""
    assert "the least is QLoRA" in choice.why[0]
    assert "a card of 48 GB holds it" in choice.why[1] and "is the largest" in choice.why[1]


def test_a_card_is_counted_with_headroom():
    """Usable memory of real cards, GiB: RTX 3070 7.6, T4 14.7, A10G and L4 22.1, L40S 44.4, H100 79.1."""
    for sold, usable in ((8, 7.6), (16, 14.74), (24, 22.1), (48, 44.4), (80, 79.1)):
        room = memory_need.room(sold) * peftmemory.GIB
        assert verdict(room, usable) == "uncertain"  # said beside an answer: reasons.memory
    tight = memory_need.room(24)
    for name in ("llama-3.2-3b", "llama-3.1-8b"):
        for method in ("lora", "qlora"):
            batches = [b for b in (1, 2, 4, 8) if memory_need.peak(name, method, b) <= tight]
            assert batches == [b for b in (1, 2, 4, 8) if b <= max(batches)]


def test_more_cards_need_less_each():
    alone = memory_need.peak("llama-3.1-70b", "qlora")
    each = [memory_need.sharded("llama-3.1-70b", "qlora", cards) for cards in (2, 4, 8)]
    assert alone > each[0] > each[1] > each[2] > alone / 8
    assert memory_need.cards_needed("llama-3.1-70b", "qlora", 48, 1, 1024) == 2
    assert memory_need.cards_needed("llama-3.1-70b", "full", 8, 1, 1024) is None


@pytest.mark.parametrize("card_gib", [8, 16, 24, 48, 80, None])
@pytest.mark.parametrize("task", ["elicit", "learn"])
def test_the_size_of_a_file_decides_nothing(task, card_gib):
    """The same scores with sizes turned round give the same answer."""
    changed = records(task)
    rows = changed["sweep_decoder"]
    rows["file_bytes"] = 10**9 - rows["file_bytes"]
    asked = {"card_gib": card_gib, "model": "llama-3.1-8b", "tasks": 50}
    first, second = (
        peftguide.choose(task, **asked),
        peftguide.choose(task, records=changed, **asked),
    )
    assert first.method == second.method and first.alternatives == second.alternatives


def test_a_tie_at_the_ceiling_never_moves_the_default():
    for task in ("summarise", "elicit"):
        model = "t5-base" if task == "summarise" else "llama-3.1-8b"
        full = records(task)
        for rows in full.values():
            rows.loc[rows["task"] == evidence.KINDS[task].task, ["test", "validation"]] = 1.0
        assert peftguide.choose(task, model=model, records=full).method == "lora"


def test_evidence_of_a_real_model_comes_before_the_toys():
    choice = peftguide.choose("elicit", model="llama-3.1-8b")
    real, toy = (
        next(i for i, why in enumerate(choice.why) if why.startswith(start))
        for start in ("On a real model", "Measured on a small stand-in")
    )
    assert real < toy
    # A prompt ties with LoRA on the toy, and lies below full fine-tuning on Llama-3.2-3B.
    assert choice.standings["prompt"].word in ("best", "tied")
    assert "on a real model 0.128" in choice.alternatives["prompt"]


def test_required_latency_leaves_only_what_merges():
    for tasks in (1, 10):
        choice = peftguide.choose("elicit", latency="merged", tasks=tasks)
        assert methods.METHODS[choice.method].mergeable
        assert "cannot be merged" in choice.alternatives["prefix"]
    assert any("to hold at once" in sentence for sentence in choice.why)


def test_peft_alone_leaves_bottlenecks_out():
    choice = peftguide.choose("elicit", tooling="peft")
    assert choice.alternatives["Houlsby"].startswith("peft has no bottleneck adapters")


@pytest.mark.parametrize("task", ANSWERED)
def test_no_sentence_ranks_what_the_intervals_do_not(task):
    choice = peftguide.choose(task, card_gib=80)
    best = max((choice.arms[name] for name in choice.standings), key=lambda arm: arm.mean)
    for method, standing in choice.standings.items():
        if standing.word in ("worse", "close"):
            gaps = [best.test[s] - choice.arms[method].test[s] for s in best.test]
            assert sum(gaps) / len(gaps) > evidence.half_width(gaps)
            continue
        reason = choice.alternatives.get(methods.LABELS[method], "")
        assert method == choice.method or "not told apart" in reason or "too few seeds" in reason


def test_the_interval_is_students():
    stats = pytest.importorskip("scipy.stats")
    for count in (3, 5):
        values = [0.1 * seed**2 for seed in range(count)]
        low, high = stats.t.interval(0.95, count - 1, loc=0, scale=stats.sem(values))
        assert evidence.half_width(values) == pytest.approx((high - low) / 2, rel=1e-3)


def arm(method, *scores):
    return evidence.Arm(method, "made", 1e-3, 1000, 200, dict(enumerate(scores)))


@pytest.mark.parametrize("task", ANSWERED)
def test_an_answer_names_the_measured_model_and_its_steps(task):
    """A toy's score is never said without the toy, nor without the steps it is a statement about."""
    choice = peftguide.choose(task)
    arm = choice.arms[choice.method]
    base, rows = evidence.KINDS[task].base, results.rows(arm.record)
    (row,) = (why for why in choice.why if why.startswith("Measured on a small stand-in"))
    assert base in row and base in choice.why[-1] and f"after {arm.steps:,} steps" in row
    assert arm.steps in set(rows[rows["method"] == choice.method]["steps"].dropna())
    assert f"measured on {base}" in peftguide.tree()
    behind = [s for s in choice.alternatives.values() if "paired" in s]
    assert all(f" steps, paired by seed, on {base}" in sentence for sentence in behind)


@pytest.mark.parametrize(("role", "task"), [("decoder", "learn"), ("seq2seq", "summarise")])
def test_a_toys_size_is_the_models(role, task):
    from pefthelpers import measure, models

    million = measure.count_parameters(models.load(role)[0])[1] / 1e6
    assert f"{million:.1f} million" in evidence.KINDS[task].base


def test_a_tie_at_the_ceiling_is_called_no_evidence():
    high = {"lora": arm("lora", 1.0, 0.99, 1.0), "dora": arm("dora", 0.99, 1.0, 1.0)}
    low = {name: arm(name, 0.81, 0.80, 0.82) for name in ("lora", "dora")}
    said = {}
    for name, found in (("high", high), ("low", low)):
        asked = peftguide.choose("learn").asked
        said[name] = reasons.ties(
            reasons.Case(asked, found["lora"], found, evidence.judge(found), None)
        )
    assert "no evidence that they are equal" in said["high"]
    assert "not ranked" in said["low"] and "ceiling" not in said["low"]


@pytest.mark.parametrize("task", ANSWERED)
def test_no_score_leaves_the_range_of_shares(task):
    for each in evidence.arms(task).values():
        shown = [float(number) for number in re.findall(r"\d\.\d+", each.score)]
        assert len(shown) == 3 and all(0 <= number <= 1 for number in shown)


def test_a_wide_interval_is_neither_equal_nor_worse():
    made = {"lora": arm("lora", 0.9, 0.9, 0.9), "ln": arm("ln", 0.9, 0.5, 0.9)}
    made |= {"ia3": arm("ia3", 0.5, 0.5, 0.5), "dora": arm("dora", 0.895, 0.895, 0.895)}
    words = {name: standing.word for name, standing in evidence.judge(made).items()}
    assert words == {"lora": "best", "ln": "unresolved", "ia3": "worse", "dora": "tied"}
    made = {"lora": arm("lora", 0.9, 0.9, 0.9), "ln": arm("ln", 0.885, 0.885, 0.885)}
    assert evidence.judge(made)["ln"].word == "close"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"task": "cook"}, "There is no task 'cook': take one of chat, elicit"),
        ({"model": "gpt-5"}, "There is no model 'gpt-5'"),
        ({"card_gib": 0}, "The card's memory must be above 0 GiB"),
        ({"card_gib": "big"}, "The card's memory must be above 0 GiB"),
        ({"tasks": 0}, "tasks must be a whole number of at least 1"),
        ({"examples": -5}, "examples must be a whole number of at least 1"),
        ({"latency": "none"}, "There is no latency 'none': take one of small, merged"),
        ({"tooling": "trl"}, "There is no tooling 'trl': take one of any, peft, vllm"),
        ({"model": "roberta-base"}, "roberta-base is for task 'classify' here"),
    ],
)
def test_a_question_that_cannot_be_is_one_sentence(fields, sentence):
    with pytest.raises((UserError, EstimateError)) as error:
        peftguide.choose(**{"task": "learn"} | fields)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_the_tree_says_what_the_function_says():
    drawn = peftguide.tree()
    lines = drawn.splitlines()
    assert len(lines) <= 30
    for task in peftguide.KINDS:
        assert any(line.startswith(f"{task}: ") for line in lines)
    assert peftguide.choose("learn").label in drawn and "Nothing fits" in drawn
    assert peftguide.tree({}).splitlines()[-1] == "  → Nothing recorded"


@pytest.mark.parametrize("method", methods.LABELS)
def test_the_estimate_is_of_the_configuration_shown(method):
    namespace = {}
    exec(peftguide.configuration(method), namespace)  # noqa: S102 - our own recipes
    config, described = namespace["config"], memory_need.described(method)
    if method == "full":
        assert config is None
        return
    assert peftmemory.read_method(config) == described
    assert config.task_type == "CAUSAL_LM" and 0 < namespace["learning_rate"] < 1


@pytest.mark.parametrize("method", [name for name in methods.LABELS if name != "full"])
def test_the_recipe_configures_what_was_measured(method):
    """All but what the table gives one value a model: ranks, scales, places and targets."""
    namespace = {}
    exec(peftguide.configuration(method), namespace)  # noqa: S102 - our own recipes
    recommended = namespace["config"].to_dict()
    measured = methods.config(method, "decoder").to_dict()
    differ = {name for name, value in measured.items() if value != recommended[name]}
    sized = {
        name
        for name, value in methods.METHODS[method].fields.items()
        if isinstance(value, dict) and value["decoder"] != value.get("real", value["decoder"])
    }
    assert differ - {"tokenizer_name_or_path"} == sized
    assert sized <= {"reduction_factor", "num_virtual_tokens", "encoder_hidden_size"}


def test_rslora_is_recommended_at_the_rank_that_was_measured():
    assert "r=8, lora_alpha=16" in peftguide.configuration("rslora")
    assert "16 / 64" not in peftguide.recipe("rslora") and "5.7 here" in peftguide.recipe("rslora")
    assert memory_need.described("rslora") == memory_need.described("lora")
    asked = {"model": "llama-3.1-8b", "card_gib": 24}
    rows = peftguide.choose("learn", **asked).rows
    for column in ("file bytes, llama-3.1-8b", "GiB, llama-3.1-8b"):
        assert rows.loc["rsLoRA", column] == rows.loc["LoRA all-linear", column]


def t5_11b(folder):
    """Write the configuration of a T5 with 11 billion parameters."""
    big = {"d_model": 1024, "d_ff": 65536, "d_kv": 128, "num_heads": 128, "num_layers": 24}
    path = folder / "t5-11b" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(read_sheet("t5-base")["config"] | big | {"num_decoder_layers": 24}))
    return str(path)


def test_what_no_formula_covers_is_counted_and_not_called_fitting(tmp_path):
    """Weights alone decide where no closed form covers the step: 8, 11 and 175 billion parameters."""
    made = tmp_path / "config.json"
    made.write_text(json.dumps({**read_sheet("llama-3.1-8b")["config"], "model_type": "gemma2"}))
    for model, card, method in (
        (str(made), 24, "lora"),
        (str(made), 16, "qlora"),
        (str(made), None, None),
        (t5_11b(tmp_path), 24, None),
        (t5_11b(tmp_path), 48, "lora"),
        ("gpt-3", 80, None),
        ("t5-base", None, "lora"),
    ):
        choice = peftguide.choose("learn", model=model, card_gib=card)
        assert choice.method == method, (model, card)
        total, packed, _ = memory_need.weights(model)
        assert choice.asked.parameters == total and 0.5 * total < packed < total
        assert memory_need.least(model, "qlora") < memory_need.least(model, "lora")
        assert method is None or any(f"{total / 1e9:.2f} billion" in why for why in choice.why)
    assert memory_need.weights("llama-3.1-8b").total == read_sheet("llama-3.1-8b")["parameters"]


SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 96}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}


@pytest.mark.parametrize(
    ("name", "task", "method"),
    [
        ("gemma-2-9b", "learn", "lora"),
        ("gemma-2-9b", "learn", "qlora"),
        ("bert-base", "classify", "lora"),
        ("t5-base", "summarise", "lora"),
    ],
)
def test_the_command_for_what_no_formula_covers_runs(name, task, method, tmp_path, capsys):
    small = {"d_model": 64, "d_ff": 96, "num_layers": 1, "num_decoder_layers": 1} | SMALL
    path = tmp_path / "config.json"
    path.write_text(json.dumps(read_sheet(name)["config"] | small))
    choice = peftguide.choose(task, model=str(path))
    assert memory_need.trace_command(str(path), "lora", 1, 1024) in str(choice)
    command = memory_need.trace_command(str(path), method, 1, 128).split()
    assert cli.main(command[1:]) == 0, capsys.readouterr().err
    assert "GiB" in capsys.readouterr().out


def test_a_family_that_transformers_does_not_know_is_one_sentence(tmp_path):
    made = tmp_path / "config.json"
    made.write_text(json.dumps({"model_type": "acme", "hidden_size": 64}))
    with pytest.raises(UserError, match="no language model of the kind 'acme'"):
        peftguide.choose("learn", model=str(made))


def test_an_encoder_decoder_learns_by_its_own_rows():
    choice = peftguide.choose("learn", model="t5-base")
    assert choice.method == "lora" and set(choice.arms) == {"full", "lora", "prefix", "prompt"}
    rows = results.rows("seq2seq_gates").query("base == 'seq2seq' and task == 'learn_facts'")
    own = rows[(rows["method"] == "lora") & (rows["replay"] == False)]
    chosen = results.at_chosen_rate(own, ["method"])
    assert choice.arms["lora"].test == dict(zip(chosen["seed"], chosen["test"], strict=True))
    assert "below" in choice.alternatives["prefix"] and "our toy T5" in str(choice)
    assert any("--task summarise" in why and 'set PREFIX to ""' in why for why in choice.why)
    assert choice.rows["file bytes"].isna().all()


def test_every_sentence_is_said_with_all_its_figures(tmp_path):
    """A rule that gives too few figures would raise; the grid says nearly every sentence."""
    said, made = set(), tmp_path / "config.json"
    made.write_text(json.dumps({**read_sheet("llama-3.1-8b")["config"], "model_type": "gemma2"}))

    class Noted(dict):
        def __getitem__(self, sentence):
            said.add(sentence)
            return super().__getitem__(sentence)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reasons, "SENTENCES", Noted(reasons.SENTENCES))
        special = {"classify": "roberta-base", "summarise": "t5-base"}
        asked = product(peftguide.KINDS, ("llama-3.2-3b", "llama-3.1-70b", None), (8, 80, None))
        for (task, model, card), latency in product(asked, ("small", "merged")):
            fields = {"model": model or special.get(task, "qwen3-8b"), "card_gib": card}
            for tasks, tooling, examples in ((1, "any", 80), (10, "peft", 12), (10, "vllm", 10**5)):
                more = {"tasks": tasks, "tooling": tooling, "examples": examples}
                peftguide.choose(task, latency=latency, **more, **fields)
        peftguide.choose("learn", model="llama-3.1-8b", card_gib=16, latency="merged")
        peftguide.choose("learn", model="smollm2-135m", card_gib=None)
        for model, card in product(("gpt-3", str(made)), (None, 24, 80)):
            peftguide.choose("learn", model=model, card_gib=card)
        peftguide.choose("learn", model="llama-3.1-8b", batch=4, seq=2048)
        peftguide.choose("summarise", model=t5_11b(tmp_path))
        peftguide.choose("learn", model="t5-base")
        peftguide.choose("learn", records={})
    assert set(reasons.SENTENCES) - said <= RARE


@pytest.mark.parametrize("method", methods.LABELS)
@pytest.mark.parametrize(("role", "model"), [("encoder", "roberta-base"), ("seq2seq", "t5-base")])
def test_the_configuration_names_the_other_roles_modules(method, role, model):
    cell = peftguide.configuration(method, model, role)
    assert methods.TASK_TYPES[role] in cell or method == "full"
    assert f'MODEL = "{read_sheet(model)["source"]}"' in cell
    assert "q_proj" not in cell
    compile(cell, method, "exec")


@pytest.mark.parametrize("method", [name for name in methods.LABELS if name != "full"])
def test_what_is_called_mergeable_merges(method, llama):
    from peft import get_peft_model

    namespace = {}
    exec(peftguide.configuration(method), namespace)  # noqa: S102 - our own recipes
    config = namespace["config"]
    if method in ("houlsby", "pfeiffer"):  # the small model is 64 wide
        config.reduction_factor = 8
    if method == "prompt":
        config.prompt_tuning_init = "RANDOM"
    model = get_peft_model(llama(), config)
    merges = hasattr(model.base_model, "merge_and_unload")
    if merges:
        try:
            model.merge_and_unload()
        except (NotImplementedError, AdapterError):
            merges = False
    assert merges == methods.METHODS[method].mergeable


def test_recipes_that_do_not_exist_are_one_sentence():
    with pytest.raises(UserError, match="There is no recipe 'dpo': take one of dora, full"):
        peftguide.recipe("dpo")


def test_the_quick_reference_names_todays_packages():
    words = Cells("07_comparison").by_id["recipes-md"].source
    for name in ("transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets"):
        assert name in words
    assert "`adapters`" in words and "adapter-transformers" not in words
