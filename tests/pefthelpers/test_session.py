"""What a notebook's libraries may say: all but the messages that are named, one by one."""

import logging
import subprocess
import sys
import warnings

import pytest

from pefthelpers import session

REPORT = """\x1b[1m{}\x1b[0m from: folder
Key               | Status  |
------------------+---------+-
classifier.weight | MISSING |
{} |

Notes:
- MISSING:\tthose params were newly initialized because missing from the checkpoint."""
A_HEAD = REPORT.format("BertForSequenceClassification LOAD REPORT", "classifier.bias   | MISSING")


@pytest.fixture
def said():
    """Return a function: what is left of a line that a library's logger writes."""

    def say(name, line):
        filters = [named for logger, named in session.LOGGED.items() if name.startswith(logger)]
        record = logging.LogRecord(name, logging.WARNING, "", 1, line, (), None)
        return all(each.filter(record) for each in filters)

    return say


@pytest.mark.parametrize(
    ("name", "line", "shown"),
    [
        ("transformers.modeling_utils", A_HEAD, False),
        ("transformers.modeling_utils", A_HEAD.replace("classifier.bias ", "bert.pooler.w"), True),
        (
            "transformers.modeling_utils",
            A_HEAD.replace("bias   | MISSING", "bias | UNEXPECTED"),
            True,
        ),
        ("transformers.modeling_utils", A_HEAD.replace("SequenceClassification", "CausalLM"), True),
        ("transformers.trainer", "Could not locate the best model at out/pytorch_model.bin", True),
        ("transformers.generation.utils", "Both `max_new_tokens` (=4) and `max_length`(=3)", False),
        ("transformers.generation.utils", "The following generation flags are not valid", True),
        ("accelerate.big_modeling", "Some parameters are on the meta device", False),
        ("accelerate.big_modeling", "You shouldn't move a model that is dispatched", True),
        ("accelerate.utils", "Some parameters are on the meta device", True),
        ("trl.trainer", "The following generation flags are not valid", True),
    ],
)
def test_a_log_s_line_is_shown_unless_it_is_named(said, name, line, shown):
    assert said(name, line) is shown


@pytest.mark.parametrize(
    ("module", "message", "shown"),
    [
        ("transformers.modeling_utils", "`is_gradient_checkpointing` is deprecated", False),
        ("transformers.modeling_utils", "The tied weights mapping is wrong", True),
        ("torch.nn.modules.module", "for x: copying from a non-meta parameter", True),
        ("torch._dynamo.eval_frame", "torch.utils.checkpoint: the use_reentrant parameter", False),
        ("torch.optim.lr_scheduler", "Detected call of `lr_scheduler.step()` before", True),
        ("bitsandbytes.optim", "Paged optimizers are not supported on CPU. Falling", False),
        ("bitsandbytes.nn", "Some matrices hidden dimension is not a multiple of 64", True),
        ("trl.trainer.sft_trainer", "Mismatch between tokenized prompt and completion", True),
        ("accelerate.utils", "The module is missing keys", True),
        ("peft.mapping_func", "The PEFT config's `base_model_name_or_path` was renamed", False),
        ("peft.tuners", "Found missing adapter keys while loading the checkpoint", True),
        ("peft.tuners", "Model has `tie_word_embeddings=True`", True),
    ],
)
def test_a_warning_is_shown_unless_it_is_named(module, message, shown):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        session.quiet()
        warnings.warn_explicit(message, UserWarning, "file.py", 1, module)
    assert bool(heard) is shown


def test_a_session_hears_missing_keys_of_a_base(tmp_path):
    """In a process of its own, as a notebook: the file lacks a layer, and transformers' report is printed."""
    script = """
import sys, torch
from pefthelpers import session
session.start(0)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig
config = LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, vocab_size=64, num_attention_heads=2)
AutoModelForCausalLM.from_config(config).save_pretrained(sys.argv[1])
file = sys.argv[1] + "/model.safetensors"
kept = {name: weight for name, weight in load_file(file).items() if "down_proj" not in name}
save_file(kept, file, metadata={"format": "pt"})
AutoModelForCausalLM.from_pretrained(sys.argv[1])
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "down_proj.weight" in done.stderr and "MISSING" in done.stderr
