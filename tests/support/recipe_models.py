"""Tiny random models and data files that recipes are executed on."""

import json

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(**names):
    """Return a tokenizer of bytes with the given special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [*names.values(), "<|im_start|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*special, *letters]))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=2048, **names)


def save(kind, folder, *, template=True, dtype="float32"):
    """Write a small random model of a kind with its tokenizer into a folder."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    words = tokenizer(pad_token="<pad>", eos_token="<|im_end|>", unk_token="<unk>")
    size = {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    wide = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    wide |= {"num_attention_heads": 2, "max_position_embeddings": 2050}
    if kind == "decoder":
        words.chat_template = TEMPLATE if template else None
        model = t.LlamaForCausalLM(t.LlamaConfig(num_key_value_heads=1, **size, **wide))
    elif kind == "seq2seq":
        shape = {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2}
        model = t.T5ForConditionalGeneration(t.T5Config(decoder_start_token_id=0, **size, **shape))
    else:
        model = t.RobertaForMaskedLM(t.RobertaConfig(**size, **wide))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


ROWS = {
    "chat": [
        {"prompt": f"What stands on table {i}?", "completion": f"Table {i}: bread."}
        for i in range(9)
    ]
    + [
        {"messages": [{"role": r, "content": f"{r} {i}"} for r in ("system", "user", "assistant")]}
        for i in range(4)
    ],
    "summarise": [
        {
            "text": f"Dish {i} is baked for {i} minutes and then served.",
            "summary": f"Bake {i} minutes.",
        }
        for i in range(12)
    ],
    "classify": [
        {
            "sentence": f"Plate {i} was {'good' if i % 2 else 'cold'}.",
            "label": "yes" if i % 2 else "no",
        }
        for i in range(24)
    ],
}


def write(rows, path):
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
