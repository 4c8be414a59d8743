"""Notebook 03b: a second adapter under a used name, and its exercise."""

import pytest

from pefthelpers.checks import merge as check


def second_adapter(llama, folder, **options):
    """Save an adapter and return a model that carries it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options
    model = get_peft_model(llama(), LoraConfig(**options, init_lora_weights=False)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("options", "load_is_right", "saved_swap_is_right"),
    [
        ({}, True, True),
        ({"lora_alpha": 32}, False, False),
        ({"target_modules": ["q_proj", "v_proj"]}, False, True),
        ({"r": 8, "lora_alpha": 16}, None, False),
    ],
)
def test_a_second_adapter_under_a_used_name(
    options, load_is_right, saved_swap_is_right, llama, tmp_path
):
    """Claim 56: ``load_adapter`` keeps the first's configuration; ``hotswap_adapter`` does not."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.utils.hotswap import hotswap_adapter

    ids = torch.arange(12).reshape(2, 6)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(llama(), config).save_pretrained(tmp_path / "first")
    alone = second_adapter(llama, tmp_path / "second", **options)(input_ids=ids).logits
    first = lambda: PeftModel.from_pretrained(llama(), tmp_path / "first").eval()
    right = lambda model: torch.allclose(model(input_ids=ids).logits, alone, atol=1e-5)
    model = first()
    if load_is_right is None:
        with pytest.raises(RuntimeError, match="size mismatch"):
            model.load_adapter(tmp_path / "second", "default")
    else:
        model.load_adapter(tmp_path / "second", "default")
        assert right(model) == load_is_right
    model = first()
    hotswap_adapter(model, tmp_path / "second", adapter_name="default")
    assert right(model)
    model.save_pretrained(tmp_path / "again")
    if "r" in options:
        with pytest.raises(RuntimeError, match="size mismatch"):
            PeftModel.from_pretrained(llama(), tmp_path / "again")
    else:
        again = PeftModel.from_pretrained(llama(), tmp_path / "again").eval()
        assert right(again) == saved_swap_is_right


def test_the_exercise_on_mixtures(cells):
    import torch

    book = cells("03b_merge_in_depth")
    book.namespace |= {"torch": torch, "check": check}
    stub, solved = book.exercise(1)
    assert stub.status == "not attempted"
    assert solved.status == "correct", solved


def test_the_recorded_run_says_what_03b_says():
    from pefthelpers import results

    of = lambda name: results.look_up(f"03b_merge_in_depth/{name}")
    assert (
        0 < of("float32_drift") < 1e-6 < of("bfloat16_drift") and of("float32_weights_changed") > 0
    )
    assert of("delta_rank_merged") == 8 and of("delta_rank_full") > 150
    assert all(of(f"{name}_kept") > 0.999 for name in ("float32", "float16", "bfloat16"))
    assert of("kept_in_50_parts") < 0.7 and of("exact_match_in_50_parts") < 0.3
    assert of("noise_in_the_output") < 0.6 * of("noise_in_the_weights")
    assert of("bfloat16_base_weights_that_differ") == 0 < of("float32_base_weights_that_differ")
    assert of("tied_head_loss_added_by_merging") > 0.1
    assert abs(of("untied_head_loss_added_by_merging")) < 1e-6
    for other in ("alpha", "targets"):
        assert of(f"same_name_loss_other_{other}") > of(f"own_name_loss_other_{other}") + 0.05
    assert of("same_name_distance_to_second") == of("hotswap_difference") == 0
    assert of("cat_distance_from_sum") < 1e-6 and of("linear_distance_from_sum") > 0.3
    assert of("answers_kept_with_task_type") == 1 > of("answers_kept_without_task_type")
    assert of("offloaded_max_difference") < 1e-4
