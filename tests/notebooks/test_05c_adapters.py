"""Notebook 05c, the companion of 05: LLaMA-Adapter's decoders, what the text says, its exercises."""

import pandas as pd
import pytest
from peft import get_peft_model

from pefthelpers import results
from pefthelpers.checks import adapters as check
from support.bottleneck_models import tiny


@pytest.fixture
def book(cells):
    """Return notebook 05c with the names that its cells expect."""
    opened = cells("05c_adapters_in_depth")
    files = pd.DataFrame({"file_bytes": {"full": 1000, "houlsby": 9}})
    opened.namespace |= {"check": check, "scores": files}
    return opened


def test_llama_adapter_is_for_the_decoders_that_peft_lists():
    from peft import AdaptionPromptConfig
    from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG

    assert {"llama", "mistral", "gpt2"} <= set(TRANSFORMERS_MODEL_CONFIG)
    prompt = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=1)
    get_peft_model(tiny("gpt2"), prompt)
    with pytest.raises(ValueError, match="qwen2"):
        get_peft_model(tiny("qwen2"), prompt)


def test_the_decoder_s_adapters_take_higher_rates_where_the_text_says_so():
    sweep = results.rows("sweep_decoder")
    chosen = results.at_chosen_rate(sweep[sweep["method"].notna()], ["task", "method"])
    rates = chosen.groupby(["task", "method"])["learning_rate"].first()
    assert rates["learn", "lora"] < min(rates["learn", "houlsby"], rates["learn", "pfeiffer"])
    assert rates["elicit", "houlsby"] <= rates["elicit", "lora"] < rates["elicit", "pfeiffer"]


@pytest.mark.parametrize("number", [1, 2])
def test_stubs_are_not_attempted_and_solutions_are_correct(number, book):
    stub, solution = book.exercise(number)
    assert (stub.status, solution.status) == ("not attempted", "correct"), solution
