"""Bottleneck adapters under training: checkpointing, low precision, transformers' and TRL's trainers."""

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import Trainer, TrainingArguments

from peftbottleneck import BottleneckConfig
from peftguards import keep_input_gradients
from pefthelpers.data import Labelled
from pefthelpers.training import fit
from support.bottleneck_models import TASK_TYPES, batch, logits, tiny, train_weights

KINDS = ("bert", "roberta", "distilbert", "llama", "qwen3", "gpt2", "t5")
both = pytest.mark.parametrize("placement", ("houlsby", "pfeiffer"))
ON_CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True}


def adapted(kind, placement="houlsby", base=None, **changes):
    config = BottleneckConfig(
        task_type=TASK_TYPES[kind], placement=placement, reduction_factor=8, **changes
    )
    return get_peft_model(base or tiny(kind), config)


def gradients(model, kind):
    model.zero_grad()
    model(**batch(kind)).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
@both
def test_training_moves_the_adapter_and_nothing_else(kind, placement):
    model = adapted(kind, placement).train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(**batch(kind)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    now = dict(model.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in frozen.items())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@both
def test_gradient_checkpointing_gives_the_same_gradients(kind, placement, reentrant):
    model = train_weights(adapted(kind, placement))
    for module in model.modules():  # transformers checkpoints in training mode only
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    model.train()
    plain = gradients(model, kind)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    checkpointed = gradients(model, kind)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, atol=1e-6, rtol=1e-5)


@both
@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_a_bf16_base_gets_fp32_adapters(kind, placement, tmp_path):
    model = adapted(kind, placement, tiny(kind).to(torch.bfloat16))
    added = {p.dtype for name, p in model.named_parameters() if "bottleneck_" in name}
    assert added == {torch.float32}
    train_weights(model)
    assert logits(model, kind).dtype == torch.bfloat16
    assert all(value.isfinite().all() for value in gradients(model, kind).values())
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny(kind).to(torch.bfloat16), tmp_path)
    assert torch.equal(logits(again, kind), logits(model, kind))


@both
@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_an_nf4_base(kind, placement, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    sizes = {"hidden_size": 64, "intermediate_size": 64}
    source = tiny(kind, **sizes)
    source.save_pretrained(tmp_path / "base")
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["classifier", "lm_head"],  # a head to train cannot be packed
    )
    base = type(source).from_pretrained(tmp_path / "base", quantization_config=four_bit)
    keep_input_gradients(base)
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    assert any(isinstance(m, bitsandbytes.nn.Linear4bit) for m in base.modules())
    before = logits(base.eval(), kind)
    model = adapted(kind, placement, base)
    assert torch.equal(logits(model, kind), before)
    train_weights(model)
    assert all(value.any() for value in gradients(model, kind).values())
    assert not torch.allclose(logits(model, kind), before)
    assert torch.equal(logits(model.unload(), kind), before)


@both
def test_transformers_trainer_saves_and_takes_the_best(placement, tmp_path):
    rows = [
        {"input_ids": [5 + label] * 6, "attention_mask": [1] * 6, "labels": label}
        for label in (0, 1)
    ]
    arguments = TrainingArguments(
        tmp_path,
        max_steps=20,
        learning_rate=2e-2,
        per_device_train_batch_size=2,
        eval_strategy="steps",
        eval_steps=5,
        save_steps=5,
        load_best_model_at_end=True,
        logging_strategy="no",
        **ON_CPU,
    )
    model = adapted("roberta", placement)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=Dataset.from_list(rows * 8),
        eval_dataset=Dataset.from_list(rows),
    )
    first = trainer.evaluate()["eval_loss"]
    trainer.train()
    best = trainer.state.best_metric
    assert best < first
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best, abs=1e-6)
    again = PeftModel.from_pretrained(tiny("roberta"), trainer.state.best_model_checkpoint)
    torch.testing.assert_close(logits(again, "roberta"), logits(model.eval(), "roberta"))


@both
def test_trl_sft_trainer(placement, tmp_path, llama, word_tokenizer):
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        tmp_path,
        max_steps=6,
        learning_rate=2e-2,
        per_device_train_batch_size=4,
        max_length=16,
        save_strategy="no",
        logging_steps=1,
        gradient_checkpointing=True,
        **ON_CPU,
    )
    trainer = SFTTrainer(
        llama(),
        arguments,
        train_dataset=Dataset.from_dict({"text": ["w1 w2 w3 w4 w5 w6"] * 16}),
        processing_class=word_tokenizer,
        peft_config=BottleneckConfig(placement=placement, reduction_factor=8),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.2
    trainer.save_model(tmp_path / "saved")
    assert PeftModel.from_pretrained(llama(), tmp_path / "saved").active_adapter == "default"


def test_trl_dpo_trainer_takes_the_base_as_its_reference(tmp_path, llama, word_tokenizer):
    from trl import DPOConfig, DPOTrainer

    pairs = {"prompt": ["w1 w2"] * 8, "chosen": [" w3 w4"] * 8, "rejected": [" w5 w6"] * 8}
    arguments = DPOConfig(
        tmp_path,
        max_steps=4,
        learning_rate=2e-2,
        per_device_train_batch_size=4,
        save_strategy="no",
        logging_steps=1,
        **ON_CPU,
    )
    trainer = DPOTrainer(
        llama(),
        args=arguments,
        train_dataset=Dataset.from_dict(pairs),
        processing_class=word_tokenizer,
        peft_config=BottleneckConfig(reduction_factor=8),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # the adapter starts as the reference
    assert losses[-1] < losses[0] - 0.05


def test_seq2seq_trainer_generates_with_the_adapter(tmp_path):
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

    row = {"input_ids": [5, 6, 7, 2], "attention_mask": [1] * 4, "labels": [9, 10, 2]}
    arguments = Seq2SeqTrainingArguments(
        tmp_path,
        max_steps=30,
        learning_rate=5e-2,
        predict_with_generate=True,
        generation_max_length=4,
        save_strategy="no",
        logging_strategy="no",
        **ON_CPU,
    )
    data = Dataset.from_list([row] * 8)
    trainer = Seq2SeqTrainer(adapted("t5"), arguments, train_dataset=data, eval_dataset=data)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.5
    assert trainer.predict(data).predictions.shape[0] == 8


@both
def test_the_real_minilm(placement, tmp_path):
    from pefthelpers import classification

    base, tokenizer = classification.load()
    rows = [Labelled("a warm and funny film", 1), Labelled("dull from start to end", 0)] * 8
    rows = classification.encode(tokenizer, rows)
    before = classification.evaluate(base, rows).loss
    config = BottleneckConfig(task_type="SEQ_CLS", placement=placement)
    model = get_peft_model(base, config)
    assert classification.evaluate(model, rows).loss == before
    losses = classification.fit(model, rows, learning_rate=3e-3, steps=6, batch_size=4)
    assert losses[-1] < losses[0]
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(classification.load(seed=1)[0], tmp_path)
    trained = classification.evaluate(model, rows).loss
    assert classification.evaluate(again, rows).loss == trained
    with model.disable_adapter():
        assert classification.evaluate(model, rows).loss == before


def test_our_own_training_loop(llama, word_tokenizer):
    from pefthelpers.data import Example

    config = BottleneckConfig(task_type="CAUSAL_LM", reduction_factor=8)
    model = get_peft_model(llama(), config)
    examples = [Example("w1 w2", "w3"), Example("w4 w5", "w6")]
    losses = fit(model, word_tokenizer, examples, learning_rate=1e-2, steps=15)
    assert losses[-1] < losses[0]
