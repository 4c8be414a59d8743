"""Which class of transformers a model is traced as: with a head, chosen or the family's usual one."""

from typing import Any, NamedTuple

import torch

from peftmemory.configs import ModelConfig
from peftmemory.errors import EstimateError
from peftmemory.settings import StepSetting


class Head(NamedTuple):
    """The ending of ``AutoModelFor…``, PEFT's task type, the name of transformers' table."""

    auto: str
    task: str | None
    table: str


HEADS = {
    "causal-lm": Head("CausalLM", "CAUSAL_LM", "CAUSAL_LM"),
    "seq2seq-lm": Head("Seq2SeqLM", "SEQ_2_SEQ_LM", "SEQ_TO_SEQ_CAUSAL_LM"),
    "classifier": Head("SequenceClassification", "SEQ_CLS", "SEQUENCE_CLASSIFICATION"),
    "token-classifier": Head("TokenClassification", "TOKEN_CLS", "TOKEN_CLASSIFICATION"),
    "masked-lm": Head("MaskedLM", None, "MASKED_LM"),
    "image-classifier": Head("ImageClassification", None, "IMAGE_CLASSIFICATION"),
    "image-text-lm": Head("ImageTextToText", "CAUSAL_LM", "IMAGE_TEXT_TO_TEXT"),
}


def knows(head: str, model_type: str) -> bool:
    """Tell whether transformers has a class with this head for a family."""
    from transformers.models.auto import modeling_auto

    return model_type in getattr(modeling_auto, f"MODEL_FOR_{HEADS[head].table}_MAPPING_NAMES")


def head_of(config: ModelConfig, setting: StepSetting) -> str:
    """Return the head that was asked for, or the one that a family is usually tuned with.

    Encoders (families with a masked language model) classify; BART and T5 map text to text.

    Raises:
        EstimateError: transformers knows no such family, or not with this head.
    """
    family, asked = config.model_type, setting.head
    known = [head for head in HEADS if knows(head, family)]
    if not known:
        raise EstimateError(
            f"transformers has no model of the family {family!r} with a head that can be traced:"
            f" {', '.join(HEADS)}."
        )
    if asked and asked not in known:
        raise EstimateError(
            f"transformers has no {asked} of the family {family!r}: take {', '.join(known)}."
        )
    encoder = {"masked-lm", "classifier"} <= set(known)
    usual = ("seq2seq-lm", *(("classifier",) if encoder else ()), "causal-lm", *HEADS)
    return asked or next(head for head in usual if head in known)


def hf_config(config: ModelConfig, dtype: torch.dtype) -> Any:
    """Return transformers' configuration of a model, tokens that its loss needs filled in.

    Raises:
        EstimateError: transformers refuses it.
    """
    import transformers

    leave = ("model_type", "quantization_config", "auto_map", "dtype", "torch_dtype")
    raw = {key: value for key, value in config.raw.items() if key not in leave}
    found = transformers.AutoConfig.for_model(config.model_type, **raw, dtype=dtype)
    if getattr(found, "problem_type", None) is None:
        found.problem_type = "single_label_classification"  # else DeBERTa looks at the labels
    if getattr(found, "pad_token_id", None) is None:
        found.pad_token_id = 0
    if found.is_encoder_decoder and getattr(found, "decoder_start_token_id", None) is None:
        found.decoder_start_token_id = 0
    return found


def batch_of(config: ModelConfig, setting: StepSetting) -> dict[str, torch.Tensor]:
    """Return a batch of the setting's shape; with padding, the first sequence is one shorter."""
    head, batch = head_of(config, setting), setting.batch
    if head == "image-classifier":
        found = hf_config(config, torch.float32)
        side = found.image_size
        height, width = (side, side) if isinstance(side, int) else side
        pixels = torch.zeros(batch, getattr(found, "num_channels", 3), height, width)
        return {"pixel_values": pixels, "labels": torch.zeros(batch, dtype=torch.long)}
    ids = torch.zeros(batch, setting.seq, dtype=torch.long)
    inputs = {"input_ids": ids, "labels": ids}
    if head == "classifier":
        inputs["labels"] = torch.zeros(batch, dtype=torch.long)
    if setting.packing:
        if head != "causal-lm":
            raise EstimateError(f"Rows of a {head} are not packed: drop packing.")
        inputs["position_ids"] = torch.zeros_like(ids)
    if setting.padding and setting.masked:
        inputs["attention_mask"] = torch.ones_like(ids)
        inputs["attention_mask"][0, -1] = 0
    return inputs
