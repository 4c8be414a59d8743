"""The tracer against real steps, against the closed form, and its refusals."""

import pytest
from peft import (
    AdamssConfig,
    BOFTConfig,
    LoHaConfig,
    LoraConfig,
    OSFConfig,
    VBLoRAConfig,
    VeraConfig,
)

import peftbottleneck  # noqa: F401 - makes adapters known to PEFT
import peftmemory
from peftmemory.activations import Layer
from peftmemory.configs import read_sheet
from peftmemory.constants import liger_rows
from peftmemory.errors import EstimateError
from peftmemory.model_states import nf4_bytes
from peftmemory.predict import predict
from peftmemory.temporaries import LINES, line_of
from peftmemory.tracing import trace_step
from studies.memory_measure import measure_step

TOY = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
ALL = peftmemory.method("lora", r=8, target_modules="all-linear")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("full", {"precision": "fp32", "autocast": True}),
        ("full", {"accumulation": True}),
        ("full", {"optimizer": "adamw_torch_fused"}),
        (ALL, {"padding": True}),
        (ALL, {"precision": "nf4"}),
        (ALL, {"precision": "nf4", "double_quant": False}),
        (peftmemory.method("dora"), {}),
        (peftmemory.method("prefix", num_virtual_tokens=10), {}),
        (peftmemory.method("prompt", num_virtual_tokens=10), {}),
        ("ia3", {}),
        ("ln", {}),
        ("houlsby", {}),
        ("pfeiffer", {}),
    ],
)
def test_a_trace_equals_the_allocators_record_of_the_real_step(method, options):
    trace = trace_step(TOY, method, batch=2, seq=64, **options)
    measured = measure_step(TOY, method, batch=2, seq=64, **options)
    assert trace.peak == pytest.approx(measured, rel=0.002)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("full", {"precision": "fp32", "autocast": True, "accumulation": True}),
        ("full", {"optimizer": "adamw_8bit"}),
        (ALL, {}),
        (ALL, {"checkpointing": True}),
        (ALL, {"precision": "nf4"}),
        (peftmemory.method("prefix", num_virtual_tokens=10), {}),
        ("ia3", {}),
        ("houlsby", {}),
    ],
)
def test_the_closed_form_follows_the_trace(method, options):
    trace = trace_step(TOY, method, batch=4, seq=64, **options)
    found = peftmemory.estimate(TOY, method, batch=4, seq=64, **options)
    # A layer's temporaries, the one part that is fitted, weigh far more in a toy than in a model.
    assert found.peak == pytest.approx(trace.peak, rel=0.03)
    assert found.trainable == trace.trainable


DEEP = {**TOY, "num_hidden_layers": 8, "vocab_size": 2048}
CKPT = {"checkpointing": True}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {"loss": "liger"}),
        (ALL, {"loss": "liger"}),
        ("full", {"loss": "liger", **CKPT}),
        (ALL, {"loss": "liger", **CKPT}),
        (ALL, {"recompute": "selective", **CKPT}),
        ("full", {"recompute": "selective", "loss": "chunked", **CKPT}),
        (ALL, {"recompute": "offloaded", "loss": "chunked", **CKPT}),
        ("full", {"recompute": "offloaded", "loss": "chunked", **CKPT}),
        (ALL, {"packing": True}),
        (ALL, {"packing": True, "attention": "flash_attention_2"}),
        (ALL, {"padding": True, "attention": "flash_attention_2"}),
    ],
)
def test_losses_masks_and_kinds_of_checkpointing_follow_the_trace(method, options):
    step = {"batch": 4, "seq": 256, "optimizer": "adamw_torch_fused", **options}
    trace = trace_step(DEEP, method, **step)
    assert peftmemory.estimate(DEEP, method, **step).peak == pytest.approx(trace.peak, rel=0.03)


def test_each_kind_of_checkpointing_keeps_less_than_the_one_before():
    step = {"batch": 4, "seq": 512, "loss": "chunked"}
    kinds = [{}, {**CKPT, "recompute": "selective"}, CKPT, {**CKPT, "recompute": "offloaded"}]
    for ask in (peftmemory.estimate, trace_step):
        peaks = [ask(DEEP, ALL, **step, **kind).peak for kind in kinds]
        assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == len(kinds)


def test_ligers_chunk_is_the_one_its_authors_give_as_an_example():
    assert liger_rows(4 * 4096, 4096, 32000) == 2048  # their comment: 8 parts of 2,048 tokens


@pytest.mark.parametrize("name", LINES)
def test_each_line_of_temporaries_decides_its_traced_case(name):
    line = LINES[name]
    model = {**read_sheet("llama-3.2-1b")["config"], "num_hidden_layers": 2}
    options = {"checkpointing": True, "loss": "chunked", "optimizer": "adamw_torch_fused"}
    step = {"batch": 8, "seq": 1024, **options, **line.options}
    setting = peftmemory.StepSetting(**step)
    layer = Layer(peftmemory.load_config(model), peftmemory.read_method(line.method), setting)
    assert line_of(layer) == name
    found, trace = (ask(model, line.method, **step) for ask in (peftmemory.estimate, trace_step))
    assert found.peak_moment in ("backward, last layer", "backward, first layer")
    rel = 0.03 if line.method == "full" else 0.001
    assert found.peak == pytest.approx(trace.peak, rel=rel)


def test_a_tracer_draws_no_adapter_on_the_cpu(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "torch.nn.init.kaiming_uniform_", lambda t, **_: drawn.append(t.device.type)
    )
    for autocast_adapter_dtype in (True, False):
        drawn.clear()
        trace_step(TOY, ALL, batch=1, seq=8, autocast_adapter_dtype=autocast_adapter_dtype)
        assert {"meta"} <= set(drawn) and ("cpu" in drawn) is not autocast_adapter_dtype


def test_a_real_peft_configuration_is_traced_with_its_own_code():
    light = trace_step(TOY, peftmemory.method("lora", r=8), batch=2, seq=32)
    real = trace_step(TOY, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]), batch=2, seq=32)
    assert light.moments == real.moments
    vera = trace_step(TOY, VeraConfig(r=8, target_modules=["q_proj"]), batch=2, seq=32)
    assert vera.method == "Vera" and vera.peak > 0


@pytest.mark.parametrize("model", ["t5", "roberta"])
def test_other_families_are_traced(model):
    shapes = {
        "t5": {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4},
        "roberta": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "max_position_embeddings": 64, "type_vocab_size": 1},
    }
    special = {"t5": {"decoder_start_token_id": 0}, "roberta": {"pad_token_id": 1}}
    raw = {"model_type": model, "vocab_size": 200, **shapes[model], **special[model]}
    assert trace_step(raw, "lora", batch=2, seq=16).trainable > 0


def test_kinds_and_moments_of_a_full_step():
    trace = trace_step(TOY, batch=2, seq=64)
    base = peftmemory.parameters(TOY).base
    after = trace.moments["optimizer"]
    assert after["gradients"] == 2 * base
    assert after["optimizer_states"] == pytest.approx(4 * base, rel=1e-3)
    assert after["temporaries"] == 2 * base  # the foreach variant's
    # Weights, two moments of each and a batch are there between two steps.
    assert 6 * base < trace.at_rest < 6.1 * base
    assert trace.to_dict()["peak_moment"] == trace.peak_moment


def test_a_billion_parameters_are_traced_in_seconds():
    trace = trace_step("llama-3.2-1b", "lora", batch=1, seq=512, checkpointing=True)
    assert trace.moments["forward"]["frozen_weights"] == pytest.approx(2 * 1_235_814_400, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("full", {"batch": 0}, "batch must be a whole number"),
        ("prefix", {"checkpointing": True}, "turn one of the two off"),
        (LoraConfig(r=200, target_modules=["q_proj"]), {}, "choose a rank of at most 128"),
        (LoraConfig(target_modules=["query"]), {}, "has no module query"),
        (VeraConfig(target_modules=["q_proj", "v_porj"]), {}, "has no module v_porj: it has"),
        (AdamssConfig(target_modules=["q_proj"]), {}, "PEFT reads values of llama's weights"),
        ("full", {"head": "image-classifier"}, "no image-classifier of the family 'llama'"),
        ("full", {"precision": "nf4"}, "4-bit weights cannot be trained"),
        ("full", {"packing": True, "head": "classifier"}, "Rows of a classifier are not packed"),
    ],
)
def test_what_cannot_be_traced_is_said_in_one_sentence(method, options, expected):
    with pytest.raises(EstimateError, match=expected):
        trace_step(TOY, method, **{"batch": 1, "seq": 8, **options})


def test_pefts_own_refusal_becomes_one_sentence():
    odd = BOFTConfig(target_modules=["q_proj"], boft_block_size=7, boft_block_num=0)
    with pytest.raises(EstimateError, match="PEFT refuses this on llama: ") as error:
        trace_step(TOY, odd, batch=1, seq=8)
    assert "\n" not in str(error.value)


def test_a_model_too_big_to_run_is_refused():
    with pytest.raises(EstimateError, match="trace it with trace_step instead"):
        measure_step("llama-2-7b", batch=1, seq=8)


BERT = {"model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
BERT |= {"num_attention_heads": 4, "vocab_size": 200, "max_position_embeddings": 64}
BERT |= {"type_vocab_size": 1, "pad_token_id": 0}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPT2 |= {"vocab_size": 200}
VIT = {"model_type": "vit", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
VIT |= {"num_attention_heads": 4, "image_size": 32, "patch_size": 16}


def test_encoders_of_one_shape_classify_and_the_head_is_said():
    step = {"batch": 4, "seq": 32, "precision": "fp32"}
    bert, roberta = (
        trace_step({**BERT, "model_type": family}, "lora", **step) for family in ("bert", "roberta")
    )
    for kind in ("activations", "frozen_weights"):  # RoBERTa's trained head has a matrix more
        assert bert.kinds[kind] == roberta.kinds[kind]
    assert bert.notes[0].startswith("Traced as BertForSequenceClassification: ")
    words = trace_step(BERT, "lora", head="masked-lm", **step)
    assert "BertForMaskedLM" in words.notes[0] and words.kinds["logits"] > 0


def test_images_are_classified():
    assert "ViTForImageClassification" in trace_step(VIT, batch=2, seq=1).notes[0]


def test_attention_dropout_costs_nothing_under_a_fused_kernel():
    peaks = [
        trace_step({**BERT, "attention_probs_dropout_prob": p}, batch=4, seq=64).peak
        for p in (0.0, 0.1)
    ]
    assert peaks[0] == peaks[1]


def test_conv1d_is_put_in_4_bits_as_transformers_does():
    frozen = {
        precision: trace_step(GPT2, "lora", batch=1, seq=8, precision=precision).moments
        for precision in ("bf16", "nf4")
    }
    shapes = [64 * width for width in (3 * 64, 64, 4 * 64, 4 * 64)]
    saved = 2 * sum(2 * size - nf4_bytes(size, double_quant=True) for size in shapes)
    found = [frozen[each]["forward"]["frozen_weights"] for each in ("bf16", "nf4")]
    assert found[0] - found[1] == pytest.approx(saved, rel=1e-3)


def test_experts_that_4_bits_leave_alone_are_said():
    mixtral = {**TOY, "model_type": "mixtral", "num_local_experts": 4, "vocab_size": 64}
    found = trace_step(mixtral, ALL, batch=1, seq=8, precision="nf4")
    assert any("experts stand in 3-D tensors" in note for note in found.notes)
    assert not any("4 bits" in note for note in trace_step(TOY, ALL, batch=1, seq=8).notes)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ALL, {"precision": "nf4", "prepare_kbit": True}),
        (ALL, {"precision": "fp16"}),
        ("full", {}),
    ],
)
def test_eager_attention_under_checkpointing_follows_the_trace(method, options):
    step = {"batch": 1, "seq": 1024, "attention": "eager", "checkpointing": True, **options}
    trace = trace_step(TOY, method, **step)
    found = peftmemory.estimate(TOY, method, **step)
    assert found.peak_moment.endswith("layer")  # the scores decide, not the loss
    assert found.peak == pytest.approx(trace.peak, rel=0.01)


@pytest.mark.parametrize("options", [{}, {"checkpointing": True}])
def test_outputs_that_the_trainer_frees_are_not_in_its_backward_pass(options):
    wide = {**TOY, "vocab_size": 8192}
    kept, freed = (
        trace_step(wide, ALL, batch=2, seq=64, free_outputs=free, **options).peak
        for free in (False, True)
    )
    assert kept - freed == pytest.approx(2 * 2 * 64 * 8192, rel=0.02)
    found = peftmemory.estimate(wide, ALL, batch=2, seq=64, free_outputs=True, **options)
    assert found.peak == pytest.approx(freed, rel=0.02)


@pytest.mark.parametrize("kind", [LoHaConfig, VBLoRAConfig])
def test_methods_that_ask_for_values_in_the_step_are_traced(kind):
    sizes = {"vector_length": 32} if kind is VBLoRAConfig else {}
    found = trace_step(TOY, kind(target_modules=["q_proj"], **sizes), batch=2, seq=16)
    assert found.trainable > 0 and found.moments["optimizer"]["gradients"] > 0


def test_a_base_decomposed_by_osf_is_counted_with_its_buffers():
    found = trace_step(TOY, OSFConfig(target_modules=["q_proj"]), batch=1, seq=8)
    assert found.trainable > 0 and any("OSF decomposes" in note for note in found.notes)


def test_more_tokens_than_learned_positions_are_refused():
    with pytest.raises(EstimateError, match="learned 64 positions: choose a length of at most 64"):
        trace_step(GPT2, batch=1, seq=65)


def test_a_question_without_a_formula_is_traced_and_says_why():
    found = predict(GPT2, "lora", batch=1, seq=8)
    assert found.traced and "not gpt2: traced." in found.notes[0]
    assert not predict(TOY, "lora", batch=1, seq=8).traced
    some = LoraConfig(target_modules=r".*layers\.0\..*q_proj", r=4)
    assert predict(TOY, some, batch=1, seq=8).trainable == 4 * 256


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulation": True}, {"checkpointing": True}, {"precision": "fp32", "autocast": True}],
)
def test_a_tied_embeddings_gradients_are_summed_in_a_third_tensor(options):
    tied = {**TOY, "vocab_size": 20_000, "tie_word_embeddings": True}
    step = {"batch": 1, "seq": 16, "optimizer": "adamw_torch_fused", **options}
    measured = measure_step(tied, **step)
    assert trace_step(tied, **step).peak == pytest.approx(measured, rel=1e-4)
    assert peftmemory.estimate(tied, **step).peak == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize("method", ["full", ALL])
def test_grouped_heads_in_fp32_have_no_fused_kernel(method):
    step = {"batch": 1, "seq": 640, "precision": "fp32", "optimizer": "adamw_torch_fused"}
    kept = []
    for options in ({}, {"padding": True}):
        trace = trace_step(TOY, method, **step, **options)
        found = peftmemory.estimate(TOY, method, **step, **options)
        assert found.peak == pytest.approx(trace.peak, rel=0.01)
        kept.append(trace.moments["forward"]["activations"])
    scores, mask = 4 * 3 * 4 * 640**2, 4 * 3 * 640**2  # three layers of four heads, in fp32
    assert kept[0] - kept[1] == pytest.approx(scores - mask, rel=0.1)


def test_grouped_heads_in_fp32_meet_what_an_h200_allocated():
    lora = peftmemory.method("lora", r=16, target_modules="all-linear")
    step = {"batch": 2, "seq": 1024, "precision": "fp32", "optimizer": "adamw_torch_fused"}
    found = peftmemory.estimate("llama-3.2-1b", lora, **step)
    assert found.peak == pytest.approx(20_101_359_616, rel=0.01)  # gpu_peaks_h200.json
