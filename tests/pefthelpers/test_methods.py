"""The table of methods: what it says is what peft builds and what ``peftmemory`` counts."""

import subprocess
import sys

import pytest

import peftmemory
from pefthelpers import methods
from pefthelpers.measure import count_parameters
from pefthelpers.paths import data_dir

KITCHEN = str(data_dir() / "kitchen" / "decoder" / "config.json")


def test_reading_the_table_brings_neither_torch_nor_peft():
    code = "import sys; from pefthelpers import methods; methods.fields('lora')"
    code += "; print({'torch', 'peft'} & set(sys.modules))"
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.strip() == "set()"


@pytest.fixture
def decoder():
    """Return a model of the kitchen decoder's shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig.from_json_file(KITCHEN))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", methods.METHODS)
def test_peft_trains_what_the_memory_formula_counts(method, decoder):
    from peft import get_peft_model

    config = methods.config(method, "decoder")
    read = peftmemory.read_method(config) if config else None  # before peft resolves "all-linear"
    trained = count_parameters(get_peft_model(decoder, config) if config else decoder)[0]
    described = peftmemory.method(
        methods.METHODS[method].family, **methods.counted(method, "decoder")
    )
    assert peftmemory.parameters(KITCHEN, described).trainable == trained
    assert read in (None, described)


@pytest.mark.parametrize("role", ["decoder", "seq2seq", "encoder"])
@pytest.mark.parametrize("method", methods.METHODS)
def test_every_role_has_a_configuration_of_peft(method, role):
    config = methods.config(method, role)
    assert (config is None) == (method == "full")
    if config:
        assert config.task_type == methods.TASK_TYPES[role]
        if hasattr(config, "lora_alpha"):
            assert (config.r, config.lora_alpha) == (8, 16)


@pytest.mark.parametrize(("model", "column"), [(KITCHEN, "decoder"), ("llama-3.2-3b", "real")])
def test_bottlenecks_train_about_as_much_as_lora(model, column):
    count = {
        name: peftmemory.parameters(
            model, peftmemory.method(methods.METHODS[name].family, **methods.counted(name, column))
        ).trainable
        for name in ("lora", "houlsby", "pfeiffer")
    }
    for name in ("houlsby", "pfeiffer"):
        assert 0.7 < count[name] / count["lora"] < 1.4, count
