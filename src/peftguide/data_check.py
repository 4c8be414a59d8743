"""A recipe's check of the reader's data as a command: the same functions, without any training."""

from typing import Any

from peftguide import memory_need, own_data
from pefthelpers.errors import UserError


def findings(
    data: str, held_out: str | None, task: str, model: str | None = None, length: int = 1024
) -> list[str]:
    """Return what a recipe would say of a data file before it trains, a sentence each.

    Args:
        data: the JSONL file to train on.
        held_out: a second one to evaluate on; None parts a tenth from the first.
        task: ``chat``, ``summarise`` or ``classify``.
        model: a name on the hub or a folder, whose tokenizer counts; None counts no tokens.
        length: tokens that an example may have.

    Raises:
        UserError: the data cannot be used, or the model's tokenizer cannot be had.
    """
    if task not in own_data.COLUMNS:
        raise UserError(f"There is no task {task!r}: take one of {', '.join(own_data.COLUMNS)}.")
    said: list[str] = []
    try:
        train, held = own_data.split(data, held_out, task, 0, said)
        if model is None:
            return [*said, "No tokens are counted without a model: name it with --model."]
        form = "decoder" if task == "chat" else memory_need.role_of(model) or "decoder"
        form = "encoder" if task == "classify" else form
        return said + in_tokens(train + held, form, model, length)
    except SystemExit as problem:  # a recipe's way to end
        raise UserError(str(problem)) from None


def in_tokens(pairs: list[tuple], role: str, model: str, length: int) -> list[str]:
    """Return what the model's tokenizer finds: what is too long, what does not end."""
    tokenizer, limit = tokenizer_of(model)
    said = [] if length <= limit else [f"{model} reads {limit} tokens: lower the length, {length}."]
    end = tokenizer.eos_token
    if role != "decoder":
        count = [len(tokenizer(text, truncation=False)["input_ids"]) for text, _ in pairs]
        said += own_data.lengths_said(count, length, "Texts", "cut")
        if role == "encoder":
            return said
        last = [tokenizer(answer)["input_ids"][-1:] for _, answer in pairs]
        return said + own_data.ends_said([ids == [tokenizer.eos_token_id] for ids in last], end)
    if tokenizer.chat_template is None:
        said += ["The tokenizer has no chat template: a recipe sets a plain one."]
        tokenizer.chat_template = own_data.PLAIN_TEMPLATE
    coded = [own_data.coded_pair(pair, tokenizer) for pair in pairs]
    then = "left out, as a cut answer teaches to stop anywhere"
    said += own_data.lengths_said([each["length"] for each in coded], length, "Examples", then)
    return said + own_data.ends_said([each["ended"] for each in coded], end)


def tokenizer_of(model: str) -> tuple[Any, int]:
    """Return a model's tokenizer and the most tokens that the model reads.

    Raises:
        UserError: they cannot be had.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer, about = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The tokenizer of {model} cannot be had: give a folder with the model's files, or a name "
            "on the hub while there is a network (and a token where it is gated)."
        ) from error
    positions = getattr(about, "max_position_embeddings", None) or tokenizer.model_max_length
    return tokenizer, min(tokenizer.model_max_length, positions)
