"""Shared by all tests: no network beyond this machine, and small things to test with."""

import setuptools  # noqa: F401, I001 - before anything takes the standard library's distutils: BOFT asks for both


import os
import socket

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# At the sizes of these tests a second thread costs a seventh of the CPU and saves no time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# bitsandbytes hands kernels to torch.compile as it is imported, which loads the compiler: a second of CPU in
# each kernel. No test or notebook compiles.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import nbregress  # noqa: F401, I001 - before nbformat: it keeps a grammar from being compiled
import nbformat
import pytest

from support.browser import chromium, tab  # noqa: F401 - fixtures
from support.cells import Cells


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if not (host.startswith("127.") or host in ("::1", "localhost")):
                raise AssertionError(f"a test reached for the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def make_notebook(tmp_path):
    """Return a function that writes a notebook of code cells and returns its path."""

    def make(*sources, parameters='PROFILE = "tiny"\nSEED = 0', name="99_made.ipynb"):
        cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *sources)]
        cells[0].metadata["tags"] = ["parameters"]
        for number, cell in enumerate(cells):
            cell.id = f"cell-{number}"
        notebook = nbformat.v4.new_notebook(
            cells=cells,
            metadata={
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python", "file_extension": ".py"},
            },
        )
        path = tmp_path / name
        nbformat.write(notebook, path)
        return path

    return make


@pytest.fixture
def run(capsys):
    """Return a function that runs ``pefthelpers run``: exit code and all that it printed."""
    from peftroom import cli

    def call(*arguments, command="run"):
        code = cli.main([command, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


@pytest.fixture(scope="session")
def llama():
    """Return a function that builds a small random Llama, the same for the same seed."""

    def build(seed=0, **changes):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        sizes = {
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
        }
        return LlamaForCausalLM(LlamaConfig(**(sizes | changes))).eval()

    return build


@pytest.fixture(scope="session")
def word_tokenizer():
    """Return a tokenizer of the words w0 to w60."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *[f"w{i}" for i in range(61)]]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def cells():
    """Return a function that opens a notebook of the collection."""
    return Cells
