"""Loading: the right model, or one sentence that says what to do."""

import shutil

import pytest

import peftguards
from pefthelpers import models, paths
from pefthelpers.errors import UserError
from pefthelpers.profiles import PROFILES, ROLES, settings


@pytest.fixture
def copied_data(tmp_path, monkeypatch):
    """Point the package at a copy of the kitchen models that a test may damage."""
    source = paths.data_dir()
    shutil.copytree(source / "kitchen" / "decoder", tmp_path / "kitchen" / "decoder")
    shutil.copy(source / "SHA256SUMS", tmp_path)
    monkeypatch.setattr(models, "data_dir", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("role", ["decoder", "seq2seq"])
def test_kitchen_models_load_and_fit_the_limits(role, variant):
    from torch import nn

    model, tokenizer = models.load(role, variant=variant)
    assert not model.training and len(tokenizer) <= model.config.vocab_size
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and "lm_head" not in name:
            assert layer.in_features % 64 == 0 and layer.out_features % 32 == 0, name
    suffix = "" if variant == 1 else "_seed2"
    file = paths.data_dir() / "kitchen" / f"{role}{suffix}" / "model.safetensors"
    assert file.stat().st_size <= 12e6


def test_the_encoder_is_the_real_minilm():
    from pefthelpers.measure import count_parameters

    model, tokenizer = models.load("encoder")
    assert count_parameters(model)[1] == 22_713_216
    assert tokenizer("pizza").input_ids[0] == tokenizer.cls_token_id


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_model_file_is_named(copied_data, damage):
    file = copied_data / "kitchen" / "decoder" / "model.safetensors"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:1000] if damage == "truncated" else content[:-1] + b"\x07")
    with pytest.raises(UserError, match=r"model\.safetensors is missing, truncated or changed"):
        models.load("decoder")


def test_a_model_the_record_does_not_list_is_refused(copied_data):
    (copied_data / "SHA256SUMS").write_text("")
    with pytest.raises(UserError, match="SHA256SUMS does not list kitchen/decoder"):
        models.load("decoder")


def test_unknown_role_and_profile_are_named():
    with pytest.raises(UserError, match="Unknown role 'chef': choose one of decoder"):
        settings("chef")
    with pytest.raises(UserError, match="Unknown profile 'huge': choose one of tiny"):
        models.load("decoder", "huge")


def test_no_network_and_no_cache_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTHELPERS_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="pefthelpers fetch laptop"):
        models.load("decoder", "laptop")
    with pytest.raises(UserError, match='use PROFILE = "tiny"'):
        models.load("seq2seq", "laptop")


def test_every_profile_answers_for_every_role():
    for profile in PROFILES:
        for role in ROLES:
            rates = settings(role, profile).learning_rates.values()
            assert rates and all(type(rate) is float for rate in rates)


def test_four_bits_keep_input_gradients_after_an_evaluation():
    import torch

    model, _ = models.load("decoder", four_bit=True)
    layer = model.model.layers[0].mlp.gate_proj
    x = torch.randn(2, layer.in_features)
    with torch.no_grad():
        layer(x)  # on CPUs with AVX512-BF16 this packs the weights, unless it is switched off
    y = torch.randn(2, layer.in_features, requires_grad=True)
    layer(y).sum().backward()
    assert y.grad is not None and y.grad.abs().sum() > 0


def four_bit_layer(d_in, d_out):
    import bitsandbytes as bnb
    import torch

    weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(0))
    layer = bnb.nn.Linear4bit(
        d_in, d_out, bias=False, quant_type="nf4", compute_dtype=torch.float32
    )
    layer.load_state_dict({"weight": weight})
    return layer.to("cpu").eval(), weight


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize(("d_in", "d_out"), [(64, 64), (64, 48), (192, 36)])
def test_any_number_of_outputs_evaluates_and_passes_gradients(d_in, d_out, packs, monkeypatch):
    import bitsandbytes as bnb
    import torch

    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: packs)
    layer, weight = four_bit_layer(d_in, d_out)
    peftguards.refuse_widths(layer)
    peftguards.keep_input_gradients(layer)
    x = torch.randn(8, d_in, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = layer(x)
    assert (y - x @ weight.T).norm() / y.norm() < 0.15  # what rounding to 4 bits costs
    x.requires_grad_()
    layer(x).sum().backward()
    assert (x.grad[0] - weight.sum(0)).norm() / weight.sum(0).norm() < 0.15


@pytest.mark.parametrize("d_in", [96, 100, 160])
def test_inputs_that_are_no_multiple_of_a_block_are_refused(d_in):
    layer, _ = four_bit_layer(d_in, 64)
    with pytest.raises(
        peftguards.GuardError, match=f"has {d_in} inputs, no multiple of 64.*llm_int8_skip"
    ):
        peftguards.refuse_widths(layer)


def test_double_quantisation_is_an_option_of_load():
    model, _ = models.load("decoder", four_bit=True, double_quant=True)
    assert model.model.layers[0].mlp.up_proj.weight.quant_state.nested


LOADS = 'from pefthelpers import models\nmodels.load("decoder", PROFILE)'


def refused(capsys, *arguments):
    from nbregress import cli

    code = cli.main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    assert len((captured.out + captured.err).strip().splitlines()) == 1
    return code, captured.err


def test_a_run_with_a_corrupt_model_ends_before_it_starts(
    copied_data, capsys, make_notebook, tmp_path
):
    file = copied_data / "kitchen" / "decoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    code, text = refused(capsys, make_notebook(LOADS), "--out", tmp_path / "out")
    assert code == 2 and "missing, truncated or changed" in text
    assert not (tmp_path / "out").exists()


def test_a_run_without_cache_and_network_names_the_command(
    capsys, make_notebook, tmp_path, monkeypatch
):
    monkeypatch.setenv("PEFTHELPERS_CACHE", str(tmp_path / "cache"))
    path = make_notebook(LOADS)
    code, text = refused(capsys, path, "--profile", "laptop", "--out", tmp_path / "out")
    assert code == 2 and "pefthelpers fetch laptop" in text
    assert not (tmp_path / "out").exists()
