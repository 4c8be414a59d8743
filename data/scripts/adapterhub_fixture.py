"""Make the files that tie our bottleneck adapters to AdapterHub's library, and check the way back.

AdapterHub's library (``adapters``) runs on transformers 4 only, so three steps in two environments:

    .venv-adapterhub/bin/python data/scripts/adapterhub_fixture.py make  FIXTURE
    .venv/bin/python            data/scripts/adapterhub_fixture.py back  FIXTURE OUT
    .venv-adapterhub/bin/python data/scripts/adapterhub_fixture.py check FIXTURE OUT

``make`` writes tiny random models, an adapter of each placement and what AdapterHub computes with
them; ``back`` reads the adapters here and writes them again in AdapterHub's format; ``check`` loads
those in AdapterHub, compares the outputs and writes OUT/equality.json.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file

PLACEMENTS = {"houlsby": "DoubleSeqBnConfig", "pfeiffer": "SeqBnConfig"}
LABELS = 3
COMMON = {"vocab_size": 32, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
MODELS: dict[str, dict[str, Any]] = {
    "bert": {**COMMON, **SIZES},
    "roberta": {**COMMON, **SIZES, "type_vocab_size": 1},
    "distilbert": {
        **COMMON,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
        "max_position_embeddings": 20,
    },
    "llama": {**COMMON, **SIZES, "num_key_value_heads": 1},
    "gpt2": {**COMMON, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24, "n_positions": 20},
    "t5": {
        **COMMON,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": 1,
    },
}
# The heads that transformers' own classification models have, as AdapterHub describes them.
HEADS: dict[str, dict[str, dict[str, Any]]] = {
    "bert": {"houlsby": {"layers": 2}, "pfeiffer": {"layers": 1, "use_pooler": True}},
    "roberta": {"houlsby": {"layers": 2}, "pfeiffer": {"layers": 2}},
    "distilbert": {p: {"layers": 2, "activation_function": "relu"} for p in PLACEMENTS},
}


def randomise(model: torch.nn.Module, *, seed: int, std: float, only: str = "") -> None:
    """Add noise to every parameter whose name holds ``only``: no zero or one hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if only in name:
            parameter.data += std * torch.randn(parameter.shape, generator=generator)


def inputs(kind: str) -> dict[str, torch.Tensor]:
    """Return token ids of shape (3, 9) with one padded row, and their mask."""
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.randint(3, COMMON["vocab_size"], (3, 9), generator=generator)
    input_ids[1, 6:] = COMMON["pad_token_id"]
    batch = {"input_ids": input_ids, "attention_mask": (input_ids != 1).long()}
    if kind == "t5":
        batch["decoder_input_ids"] = input_ids[:, :5].flip(1).contiguous()
    return batch


@torch.no_grad()
def outputs(model: torch.nn.Module, kind: str) -> dict[str, torch.Tensor]:
    """Return the body's last hidden states, shape (3, seq, 16), and the head's logits, (3, 3)."""
    batch = inputs(kind)
    model.eval()
    found = {"hidden": model.base_model(**batch).last_hidden_state.clone()}
    if kind in HEADS:
        found["logits"] = model(**batch).logits
    return found


def make(fixture: Path) -> None:
    """Write models, adapters and reference outputs; run with AdapterHub's library."""
    import adapters
    from transformers import AutoConfig, AutoModel

    fixture.mkdir(parents=True, exist_ok=True)
    os.chdir(fixture)  # AdapterHub writes the base model's path into its files
    for kind, options in MODELS.items():
        torch.manual_seed(7)
        body = AutoModel.from_config(AutoConfig.for_model(kind, **options))
        randomise(body, seed=7, std=0.1)
        body.save_pretrained(kind)
        reference = {}
        for placement, config in PLACEMENTS.items():
            model = adapters.AutoAdapterModel.from_pretrained(kind)
            model.add_adapter("task", config=getattr(adapters, config)(reduction_factor=4))
            if kind in HEADS:
                model.add_classification_head("task", num_labels=LABELS, **HEADS[kind][placement])
            randomise(model, seed=8, std=0.3, only=".adapters.")
            randomise(model, seed=9, std=0.3, only="heads.")
            model.set_active_adapters("task")
            model.save_adapter(f"{kind}/{placement}", "task", use_safetensors=True)
            found = outputs(model, kind)
            reference.update({f"{placement}.{name}": value for name, value in found.items()})
        save_file(reference, f"{kind}/reference.safetensors")


def back(fixture: Path, out: Path) -> None:
    """Read every adapter of the fixture and write it again; run with our package."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    from pefthelpers.bottleneck import from_adapterhub, to_adapterhub

    for kind in MODELS:
        for placement in PLACEMENTS:
            if kind in HEADS:
                load = AutoModelForSequenceClassification.from_pretrained
                base = load(fixture / kind, num_labels=LABELS)
            else:
                base = AutoModel.from_pretrained(fixture / kind)
            model = from_adapterhub(base, fixture / kind / placement, adapter_name="again")
            to_adapterhub(model, out / kind / placement, adapter_name="again")


def check(fixture: Path, out: Path) -> None:
    """Load what ``back`` wrote and compare; run with AdapterHub's library."""
    from adapters import AutoAdapterModel

    rows = []
    for kind in MODELS:
        reference = load_file(fixture / kind / "reference.safetensors")
        mask = inputs(kind)["attention_mask"].bool()
        for placement in PLACEMENTS:
            model = AutoAdapterModel.from_pretrained(fixture / kind)
            folder = str(out / kind / placement)
            model.load_adapter(folder, use_safetensors=True, set_active=True)
            for name, value in outputs(model, kind).items():
                wanted = reference[f"{placement}.{name}"]
                if name == "hidden" and kind != "t5":  # padded positions mean nothing
                    value, wanted = value[mask], wanted[mask]
                gap = (value - wanted).abs().max().item()
                rows.append({"model": kind, "placement": placement, "output": name, "gap": gap})
                print(f"{kind:10} {placement:8} {name:6} largest difference {gap:.1e}")
    (out / "equality.json").write_text(json.dumps(rows, indent=1))
    if worst := [row for row in rows if row["gap"] > 1e-6]:
        raise SystemExit(f"AdapterHub computes something else: {worst}")


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["make", "back", "check"])
    parser.add_argument("fixture", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="for back and check")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.step == "make":
        make(args.fixture)
    elif args.out is None:
        parser.error("name the folder OUT")
    else:
        {"back": back, "check": check}[args.step](args.fixture, args.out)


if __name__ == "__main__":
    main()
