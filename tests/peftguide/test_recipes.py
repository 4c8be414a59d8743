"""Every recipe, executed to its end in an empty folder by a Python without this collection's packages.

``make test`` runs one family of models and one precision for each task, and some recipes on a simulated
card; ``make recipes`` runs all, and prints the table.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import peftguide
from nbregress import cli
from peftguide import data_check, memory_need, own_data, recipes
from pefthelpers import data, methods
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir
from peftmemory.configs import read_sheet
from support import recipe_models, recipe_worker

from .conftest import ENDED

ROOT = Path(__file__).resolve().parents[2]
# Run by `make test`: of the simulated cards one that has bf16 and one that has not.
USUAL = {
    ("decoder", "chat", "bf16"),
    ("seq2seq", "summarise", "float32"),
    ("encoder", "classify", "bf16"),
    ("decoder", "chat", "a100"),
    ("encoder", "classify", "t4"),
}
# What they run in: a precision on the CPU, or what the script itself takes on a simulated card.
WHERE = ("float32", "bf16", "a100", "t4")
# Of a card's recipes `make test` runs this one: ten seconds of CPU each.
ON_CARD = {"a100": "qlora", "t4": "lora"}
FORMS = [("decoder", task) for task in recipes.TASKS]
FORMS += [("seq2seq", "summarise"), ("encoder", "classify")]


def batches() -> list:
    """Return (kind, task, where) as parameters, those that are not usual marked."""
    found = []
    for kind, task in FORMS:
        for where in WHERE:
            each = (kind, task, where)
            if where == "t4" and each not in USUAL:
                continue  # it differs from the other card in its fp16 alone
            marks = () if each in USUAL else pytest.mark.every_recipe
            found.append(pytest.param(*each, marks=marks, id="-".join(each)))
    return found


def goes(method, task, kind):
    """Tell whether a recipe is printed for these."""
    try:
        recipes.refuse(method, task, kind)
    except UserError:
        return False
    return True


def run(root, card="cpu"):
    """Run the recipes in the folders of a root, and return how each ended."""
    worker = Path(recipe_worker.__file__)
    command = [sys.executable, str(worker), str(root), card]
    done = subprocess.run(command, check=False, capture_output=True, cwd=root, text=True)
    assert (root / "ended.json").exists(), done.stderr[-2000:]
    return json.loads((root / "ended.json").read_text())


def prepared(folder, text, rows):
    """Write a recipe and its data into a folder of its own."""
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(text, encoding="utf-8")
    recipe_models.write(rows, folder / "data.jsonl")


@pytest.mark.parametrize(("kind", "task", "where"), batches())
def test_recipes_train_save_reload_and_answer(kind, task, where, tmp_path, pytestconfig):
    on_card = where in ("a100", "t4")
    dtype = {"float32": "float32", "t4": "float16"}.get(
        where, "bfloat16"
    )  # as real models are stored
    model = str(recipe_models.save(kind, tmp_path / "model", dtype=dtype))
    going = [method for method in methods.METHODS if goes(method, task, kind)]
    if on_card and "not every_recipe" in pytestconfig.option.markexpr:
        going = [ON_CARD[where]]
    root = tmp_path / "run"
    for method in going:
        text = peftguide.recipe(method, model, task, precision="auto" if on_card else where)
        prepared(root / method, text, recipe_models.ROWS[task])
    ended = run(root, where if on_card else "cpu")
    assert sorted(ended) == sorted(going)
    table = pytestconfig.stash.setdefault(ENDED, {})
    table |= {(method, f"{task}, {kind}", where): end for method, end in ended.items()}
    for method, end in ended.items():
        assert not end["problem"], f"{method}: {end['problem']}"
        assert "tensors came back as they were trained" in end["said"]
        assert "on held-out data" in end["said"] and '"said"' in end["said"]
        assert len(end["more"]) == 2 and max(end["more"]) == 0, "a second base in memory"
        assert not end["old"], "the script calls what is deprecated"
        assert any((root / method / f"tuned-{method}-{task}").glob("*.safetensors"))


def test_all_that_can_be_asked_is_printed_or_refused_in_a_sentence():
    count = 0
    for method in methods.METHODS:
        for model, task in (
            ("Qwen/Qwen3-0.6B", "chat"),
            ("Qwen/Qwen3-0.6B", "summarise"),
            ("google-t5/t5-base", "summarise"),
            ("FacebookAI/roberta-base", "classify"),
            ("Qwen/Qwen3-0.6B", "classify"),
            ("someone/unheard-of", "chat"),
        ):
            if goes(method, task, memory_need.role_of(model) or "decoder"):
                text = peftguide.recipe(method, model, task)
                ast.parse(text)
                assert f'MODEL = "{model}"' in text and "pefthelpers." not in text
                count += 1
    assert count > 55


def test_the_closing_check_sees_a_lost_adapter_and_a_base_that_stayed(tmp_path):
    """The check can fail: an adapter that is written over, and a recipe that keeps its first base."""
    model = str(recipe_models.save("decoder", tmp_path / "model"))
    text = peftguide.recipe("lora", model, "chat", precision="float32")
    saving, freeing = "tokenizer.save_pretrained(FOLDER)\n", "del trainer, model\n"
    assert text.count(saving) == 1 and text.count(freeing) == 1
    spoilt = (
        "from safetensors.torch import load_file, save_file\n"
        "where = f'{FOLDER}/adapter_model.safetensors'\n"
        "save_file({name: t * 1.05 for name, t in load_file(where).items()}, where)\n"
    )
    rows = recipe_models.ROWS["chat"]
    prepared(tmp_path / "run" / "lost", text.replace(saving, saving + spoilt), rows)
    prepared(tmp_path / "run" / "two", text.replace(freeing, ""), rows)
    ended = run(tmp_path / "run")
    assert "does not hold what was trained" in ended["lost"]["problem"]
    assert max(ended["two"]["more"]) == 1


def test_a_script_is_of_the_size_that_fits_the_card():
    sizes = []
    for card in (8.5, 9, 16, 24):
        text = peftguide.recipe("qlora", "meta-llama/Llama-3.1-8B-Instruct", card_gib=card)
        batch, accumulation = map(
            int, re.search(r"BATCH, ACCUMULATION = (\d+), (\d+)", text).groups()
        )
        assert batch * accumulation == recipes.TOGETHER
        need = memory_need.peak("llama-3.1-8b", "qlora", batch, recipes.TASKS["chat"][2])
        assert need <= memory_need.room(card) and f"{need:.1f} GiB by formula" in text
        sizes.append(batch)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dpo"], "There is no recipe 'dpo': take one of dora, full"),
        (["lora", "--task", "cook"], "There is no task 'cook'"),
        (["lora", "--precision", "int3"], "There is no precision 'int3'"),
        (["lora", "--card", "big"], "--card takes GB, or none"),
        (
            ["lora", "--model", "llama-3.1-8b", "--card", "16"],
            "take qlora (6.1 GiB), or a card of 24",
        ),
        (["lora", "--model", "llama-3.1-70b", "--card", "24"], "take"),
        (["lora", "--model", "roberta-base"], "An encoder writes no text"),
        (
            ["lora", "--model", "t5-base", "--task", "classify"],
            "An encoder-decoder is for 'summarise'",
        ),
        (["qlora", "--task", "classify"], "QLoRA is for models that do not fit"),
        (
            ["prompt", "--model", "qwen3-0.6b", "--task", "classify"],
            "does not go with a classifier",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(arguments, sentence, capsys):
    assert cli.main(["recipe", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_the_command_prints_the_script(capsys):
    given = [
        "--model",
        "Qwen/Qwen3-8B",
        "--task",
        "summarise",
        "--data",
        "mine.jsonl",
        "--card",
        "48",
    ]
    assert cli.main(["recipe", "dora", *given, "--held-out", "other.jsonl"]) == 0
    text = capsys.readouterr().out
    asked = {"data": "mine.jsonl", "held_out": "other.jsonl", "card_gib": 48.0}
    assert text == peftguide.recipe("dora", "Qwen/Qwen3-8B", "summarise", **asked)
    assert 'DATA = "mine.jsonl"' in text and 'HELD_OUT = "other.jsonl"' in text


def test_there_is_one_recipe_a_method_and_its_packages_are_the_pinned_ones():
    notes = yaml.safe_load((data_dir() / "recipes.yaml").read_text(encoding="utf-8"))
    assert list(notes["methods"]) == list(methods.METHODS)
    pinned = set((ROOT / "requirements.txt").read_text().split())
    assert {each for each in notes["packages"].split() if "==" in each} <= pinned
    for method in methods.METHODS:
        assert f'"tuned-{method}-chat"' in peftguide.recipe(method)
        cell = peftguide.configuration(method)
        assert "(20" in cell or ", 20" in cell, "the learning rate names author and year"
        rates = recipes.rates(method)
        low, start, high = (float(rates[name]) for name in ("low", "learning_rate", "high"))
        assert low <= start <= high and low < high


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-8b", "t5-base", "roberta-base"])
def test_a_models_role_is_read_from_its_name_and_from_its_file(name, tmp_path):
    sheet = read_sheet(name)
    (tmp_path / "config.json").write_text(json.dumps(sheet["config"]))
    role = {"t5-base": "seq2seq", "roberta-base": "encoder"}.get(name, "decoder")
    for model in (name, sheet["source"], str(tmp_path), str(tmp_path / "config.json")):
        assert memory_need.role_of(model) == role


@pytest.mark.parametrize(
    ("model", "role"),
    [
        ("google/flan-t5-large", "seq2seq"),
        ("facebook/bart-large-cnn", "seq2seq"),
        ("distilbert/distilbert-base-uncased", "encoder"),
        ("microsoft/deberta-v3-base", "encoder"),
        ("sentence-transformers/all-MiniLM-L6-v2", "encoder"),
        ("google/gemma-2-9b-it", "decoder"),
        ("bartowski/some-decoder", None),
        ("mistralai/Mistral-7B-v0.3", "decoder"),
    ],
)
def test_a_role_is_guessed_from_a_name_on_the_hub(model, role):
    assert memory_need.role_of(model) == role


# --- the check of the reader's own data


def checked(rows, task, folder, held=None, model=None, length=1024):
    """Return what the check says of rows."""
    path = recipe_models.write(rows, folder / "data.jsonl")
    other = str(recipe_models.write(held, folder / "held.jsonl")) if held else None
    return "\n".join(data_check.findings(str(path), other, task, model, length))


def test_the_recipe_carries_the_checks_functions():
    source = Path(own_data.__file__).read_text(encoding="utf-8")
    functions = source[source.index("# For a tokenizer") :].strip()
    for method, task in (("lora", "chat"), ("full", "classify")):
        assert functions in peftguide.recipe(method, task=task)


def test_good_data_is_called_good(tmp_path):
    for task, rows in recipe_models.ROWS.items():
        said = checked(rows, task, tmp_path)
        assert "examples to train on" in said and "held out" in said
        assert "left out" not in said and "twice" not in said


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("chat", {"prompt": "a", "completion": "b"}),
        ("chat", {"prompt": [{"role": "user", "content": "a"}], "completion": "b"}),
        ("chat", {"messages": [{"role": r, "content": r} for r in ("user", "assistant") * 2]}),
        ("summarise", {"text": "a", "summary": "b"}),
        ("classify", {"text": "a", "label": 0}),
        ("classify", {"sentence": "a", "label": "good"}),
    ],
)
def test_these_rows_can_be_used(task, row):
    pairs = own_data.pairs_of(row, task)
    assert len(pairs) == (2 if len(row.get("messages", ())) == 4 else 1)
    assert all(answer for _, answer in pairs)


@pytest.mark.parametrize("task", own_data.COLUMNS)
@pytest.mark.parametrize(
    "row",
    [
        {},
        {"prompt": "a"},
        {"prompt": "a", "completion": " "},
        {"prompt": 3, "completion": 4},
        {"messages": "hello"},
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]},
        {"messages": [3]},
        {"text": "a"},
        {"text": None, "summary": "b", "label": 1},
        {"text": "a", "label": None, "summary": ""},
        {"text": "a", "label": [1], "summary": 3},
    ],
)
def test_these_rows_cannot_be_used(task, row):
    assert own_data.pairs_of(row, task) == []


def test_each_fault_of_the_data_is_one_sentence(tmp_path):
    chat = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(20)]
    assert "2 rows stand there twice" in checked(chat + chat[:2], "chat", tmp_path)
    assert "1 of 21 rows lack" in checked([*chat, {"prompt": "x"}], "chat", tmp_path)
    held = [{"prompt": "Question  3", "completion": "other"}, {"prompt": "new", "completion": "b"}]
    said = checked(chat, "chat", tmp_path, held)
    assert "1 rows ask what a held-out row asks" in said and "19 examples to train on, 2" in said
    labels = [{"text": f"t {i}", "label": i % 2} for i in range(20)]
    both = [*labels, {"text": "T  4", "label": 1}, {"text": "t 6", "label": 1}]
    assert "2 sentences stand there under two labels" in checked(both, "classify", tmp_path)
    for rows, task, problem in (
        (chat, "classify", 'a row has "text"'),
        ([], "chat", "the file has no row"),
        (chat[:1], "chat", "too few different prompts"),
        ([{"text": f"t {i}", "label": 0} for i in range(9)], "classify", "two labels at least"),
        (chat, "cook", "There is no task 'cook'"),
    ):
        with pytest.raises(UserError, match=re.escape(problem)):
            checked(rows, task, tmp_path)
    with pytest.raises(UserError, match="1 labels of held-out rows are in no training row: 2"):
        checked(labels, "classify", tmp_path, [{"text": "new", "label": 2}])


def test_tokens_are_counted_by_the_models_own_tokenizer(tmp_path):
    model = str(recipe_models.save("decoder", tmp_path / "model"))
    rows = [{"prompt": f"q {i}", "completion": "a" * (10 * i)} for i in range(1, 21)]
    said = checked(rows, "chat", tmp_path, None, model, 150)
    coded = [
        own_data.coded_pair(own_data.pairs_of(r, "chat")[0], data_check.tokenizer_of(model)[0])
        for r in rows
    ]
    long = sum(each["length"] > 150 for each in coded)
    assert 0 < long < 20 and f"LENGTH is 150: {long} ({long / 20:.0%}) are left out" in said
    assert "lack the end token" not in said
    assert "reads 2048 tokens: lower the length, 4000" in checked(
        rows, "chat", tmp_path, None, model, 4000
    )
    seq2seq = str(recipe_models.save("seq2seq", tmp_path / "t5"))  # its tokenizer adds no end
    summaries = recipe_models.ROWS["summarise"]
    said = checked(summaries, "summarise", tmp_path, None, seq2seq, 20)
    assert "12 of 12 answers lack the end token <|im_end|>" in said and "(100%) are cut" in said
    with pytest.raises(UserError, match="cannot be had"):
        checked(rows, "chat", tmp_path, None, str(tmp_path / "nowhere"))


def test_labels_stand_on_the_answer_and_its_end_alone(tmp_path):
    folder = recipe_models.save("decoder", tmp_path / "model")
    tokenizer = data_check.tokenizer_of(str(folder))[0]
    for template in (
        tokenizer.chat_template,
        own_data.PLAIN_TEMPLATE,
        "{{ messages[-1].content }}",
    ):
        tokenizer.chat_template = template
        coded = own_data.coded_pair(([{"role": "user", "content": "Hello"}], "Good day"), tokenizer)
        taught = tokenizer.decode([label for label in coded["labels"] if label >= 0])
        assert "Good day" in taught and "Hello" not in taught
        assert taught.rstrip().endswith("<|im_end|>")
        assert coded["ended"] == ("content }}" not in template or len(template) > 40)


GOOD = "".join(f'{{"prompt": "q {i}", "completion": "a {i}"}}\n' for i in range(20)).encode()
LINE = "line 1: write one JSON object"
NO_ROW = "the file has no row"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[1, 2]\n", LINE),
        (b'{"prompt": "a", "completion": "b"}\nnot json\n', "line 2: write one JSON object"),
        (b"\xff\xfe\x00", LINE),
        (GOOD.decode().encode("utf-16"), LINE),
        (b"", NO_ROW),
        (b"\n\n  \n", NO_ROW),
        (b"prompt,completion\na,b\n", LINE),
        (b'{\n  "prompt": "a",\n  "completion": "b"\n}\n', LINE),
        (b'[{"prompt": "a", "completion": "b"}]', LINE),
        (b"{'prompt': 'a'}\n", LINE),
        (b"[" * 100_000, LINE),
        (b'{"prompt": ' + b"9" * 5000 + b"}\n", LINE),
        (b"null\n" + GOOD, LINE),
        (b"\x1f\x8b\x08 gzip", LINE),
        (b'{"instruction": "a", "output": "b"}\n', "row 1 has 'instruction', 'output'"),
        (b'{"conversations": [{"from": "human", "value": "a"}]}\n', "row 1 has 'conversations'"),
        (b'{"prompt": "\\ud800", "completion": "b"}\n', "1 of 1 rows cannot be used"),
        (b'{"prompt": NaN, "completion": Infinity}\n', "1 of 1 rows cannot be used"),
        (b'{"messages": {"role": "user"}}\n', "row 1 has 'messages'"),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', "an answer of the assistant"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}\n', "1 of 1 rows cannot be used"),
        (b"{" + b",".join(b'"k%d": 1' % i for i in range(999)) + b"}\n", "'k5', and 1 of 1"),
        (GOOD.splitlines()[0], "too few different prompts"),
        (GOOD.splitlines()[0] + b"\n" + GOOD.splitlines()[0], "too few different prompts"),
        (GOOD.replace(b"q ", b"Q\\t "), None),
        (b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"), None),
    ],
)
def test_a_bad_file_is_one_sentence_at_the_command_line(content, sentence, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_bytes(content)
    code = cli.main(["check", str(tmp_path / "data.jsonl")])
    told = capsys.readouterr()
    if sentence is None:  # what is only odd is read
        assert code == 0 and "18 examples to train on, 2 held out" in told.out
        return
    assert code == 2 and told.out == ""
    assert sentence in told.err and told.err.count("\n") == 1 and len(told.err) < 500


def test_a_file_that_is_not_there_is_one_sentence(tmp_path, capsys):
    for path in (tmp_path / "gone.jsonl", tmp_path):
        assert cli.main(["check", str(path)]) == 2
        assert "There is no file" in capsys.readouterr().err


def test_a_rare_label_is_not_held_out_alone(tmp_path):
    rows = [{"text": f"t {i}", "label": "often"} for i in range(40)]
    rows += [{"text": f"rare {i}", "label": f"once {i}"} for i in range(20)]
    for seed in range(5):
        path = str(recipe_models.write(rows, tmp_path / "data.jsonl"))
        train, held = own_data.split(path, None, "classify", seed, [])
        assert len(train) + len(held) == 60
        assert {label for _, label in held} <= {label for _, label in train}
    every = [{"text": f"t {i}", "label": i} for i in range(30)]
    with pytest.raises(UserError, match="too few"):  # each label once: none can be held out
        checked(every, "classify", tmp_path)
    twice = every + [{"text": f"again {i}", "label": i} for i in range(30)]
    assert "labels for" in checked(twice, "classify", tmp_path)


def test_a_template_that_refuses_a_role_is_one_sentence(tmp_path):
    folder = recipe_models.save("decoder", tmp_path / "model")
    tokenizer = data_check.tokenizer_of(str(folder))[0]
    refuses = "{{ raise_exception('System role not supported') }}"
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}" + refuses + "{% endif %}x"
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        UserError, match="refuses messages of the roles system, user.*not supported"
    ):
        checked(recipe_models.ROWS["chat"], "chat", tmp_path, model=str(folder))


def test_thinking_aloud_is_neither_asked_for_nor_taught(tmp_path):
    """As Qwen3's template does it: an empty thought before an answer, and in the prompt if none is wanted."""
    tokenizer = recipe_models.tokenizer(eos_token="<|im_end|>", pad_token="<pad>")
    empty = "<think>\n\n</think>\n\n"
    tokenizer.chat_template = recipe_models.TEMPLATE.replace(
        "{{ m.content }}", "{% if m.role == 'assistant' %}" + empty + "{% endif %}{{ m.content }}"
    ).replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is false %}" + empty + "{% endif %}{% endif %}",
    )
    prompt = [{"role": "user", "content": "Hello"}]
    coded = own_data.coded_pair((prompt, "Good day"), tokenizer)
    taught = tokenizer.decode([label for label in coded["labels"] if label >= 0])
    assert taught.startswith("Good day") and coded["ended"]
    asked = tokenizer.decode(own_data.prompt_ids(prompt, tokenizer))
    assert asked.endswith(empty)
    (example,) = data.chat_examples(tokenizer, [data.Example("Hello", "Good day")])
    assert example.prompt.endswith(empty)


def test_the_check_is_a_command(tmp_path, capsys):
    path = recipe_models.write(recipe_models.ROWS["chat"], tmp_path / "data.jsonl")
    assert cli.main(["check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == data_check.findings(str(path), None, "chat")
