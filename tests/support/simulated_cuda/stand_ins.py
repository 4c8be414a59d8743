"""The hub's models without the hub: right architecture, two layers, random weights, a real tokenizer.

They lie in a folder laid out as the hub's own cache, so every way to name one finds it, offline.
``python -m support.simulated_cuda.stand_ins FOLDER`` fills it with all that ``profiles.yaml`` names.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers

from pefthelpers import data, models
from pefthelpers.profiles import PROFILES
from peftmemory.configs import model_names, read_sheet
from peftruns.sheet import MODELS, RUNS, revision_of

# Widths that keep what is special: Qwen3's heads are wider than its hidden size divided by their number,
# key heads are shared, blocks of 64 fit. Only keys that a model's own configuration has are taken.
SMALL = {
    "llama": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "head_dim": 32,
    },
    "qwen3": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 2,
        "head_dim": 128,
    },
    "roberta": {"hidden_size": 192, "intermediate_size": 384, "num_attention_heads": 4},
    "t5": {"d_model": 128, "d_ff": 256, "num_heads": 4, "d_kv": 32, "num_decoder_layers": 2},
}
DEPTH = {"num_hidden_layers": 2, "num_layers": 2, "max_window_layers": 2, "num_key_value_heads": 1}
LEFT_OUT = ("layer_types", "torch_dtype", "dtype", "quantization_config", "architectures")
REVISION = "0" * 40
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def hub_models() -> Iterator[tuple[str, str]]:
    """Yield role and name of every hub model of the ``gpu`` profile and of the article's runs."""
    of_profile = {(role, r.model) for role, r in PROFILES["gpu"].items() if r.source == "hub"}
    of_article = {(run["role"], name) for run in RUNS.values() for name in run["models"]}
    yield from sorted(of_profile | of_article)


def configuration(name: str, tokenizer) -> transformers.PretrainedConfig:
    """Return a hub model's configuration, made small, for a tokenizer."""
    found = (each for each in model_names() if each in name.lower())
    sheet = MODELS[name]["shape"] if name in MODELS else next(found)
    raw = dict(read_sheet(sheet)["config"])
    small = SMALL[raw["model_type"]] | {key: n for key, n in DEPTH.items() if key in raw}
    ids = {
        f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "eos", "bos")
    }
    kept = {key: value for key, value in (raw | small | ids).items() if key not in LEFT_OUT}
    kind = transformers.CONFIG_MAPPING[kept.pop("model_type")]
    return kind(**{**kept, "vocab_size": max(len(tokenizer), 64 * (len(tokenizer) // 64 + 1))})


def tokenizer_of(role: str):
    """Return a role's tokenizer: MiniLM's for an encoder, else byte pairs of the pizza card's texts."""
    if role == "encoder":
        return transformers.AutoTokenizer.from_pretrained(
            models.folder_of("encoder", PROFILES["tiny"]["encoder"])
        )
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    tokens = Tokenizer(BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    pad, end = ("<pad>", "</s>") if role == "seq2seq" else ("<|endoftext|>", "<|im_end|>")
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[pad, end, "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokens.train_from_iterator((e.prompt + " " + e.answer for e in data.pizza().train), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token=pad, eos_token=end
    )
    tokenizer.chat_template = CHAT if role == "decoder" else None
    return tokenizer


def build(role: str, name: str, cache: Path) -> None:
    """Write a model and its tokenizer where the hub's cache would have them."""
    repository = cache / f"models--{name.replace('/', '--')}"
    revision = revision_of(name) or REVISION
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    tokenizer = tokenizer_of(role)
    torch.manual_seed(0)
    kind = getattr(transformers, models.CLASSES[role])
    model = kind.from_config(configuration(name, tokenizer), dtype=torch.float32)
    for folder in {repository / "snapshots" / revision}:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def fill(cache: Path) -> None:
    """Build every hub model of the ``gpu`` profile and of the article's runs."""
    for role, name in hub_models():
        build(role, name, cache)


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
    print(json.dumps([name for _, name in hub_models()]))
