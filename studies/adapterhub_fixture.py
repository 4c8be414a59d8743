"""Make the files that tie our bottleneck adapters to AdapterHub's library, and check the way back.

AdapterHub's library (``adapters``) runs on transformers 4 only, so three steps in two environments:

    .venv-adapterhub/bin/python studies/adapterhub_fixture.py make  FIXTURE
    .venv/bin/python            studies/adapterhub_fixture.py back  FIXTURE OUT
    .venv-adapterhub/bin/python studies/adapterhub_fixture.py check FIXTURE OUT

``make`` writes tiny random models, an adapter of each placement and what AdapterHub computes with
them; ``back`` reads the adapters here, computes the same, and writes them again in AdapterHub's
format; ``check`` computes in AdapterHub with the first files and with those that came back, compares
and writes OUT/equality.json. Both libraries compute on the machine at hand: the stored outputs are
those of another processor, which rounds otherwise in the last bits.
"""

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

PLACEMENTS = {"houlsby": "DoubleSeqBnConfig", "pfeiffer": "SeqBnConfig"}
# Houlsby computes the same sums in the same order; Pfeiffer adds three terms in another order.
TOLERANCE = {"houlsby": 1e-6, "pfeiffer": 2e-6}
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
    """Read every adapter of the fixture, compute, write it again; run with our package."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    from peftbottleneck import from_adapterhub, to_adapterhub

    for kind in MODELS:
        for placement in PLACEMENTS:
            if kind in HEADS:
                load = AutoModelForSequenceClassification.from_pretrained
                base = load(fixture / kind, num_labels=LABELS)
            else:
                # AdapterHub's T5 has an attention of its own; the eager one is the closest.
                options = {"attn_implementation": "eager"} if kind == "t5" else {}
                base = AutoModel.from_pretrained(fixture / kind, **options)
            model = from_adapterhub(base, fixture / kind / placement, adapter_name="again")
            to_adapterhub(model, out / kind / placement, adapter_name="again")
            save_file(outputs(base, kind), out / kind / placement / "outputs.safetensors")


def hub_outputs(base: Path, adapter: Path, kind: str) -> dict[str, torch.Tensor]:
    """Return what AdapterHub computes with an adapter's files."""
    from adapters import AutoAdapterModel

    model = AutoAdapterModel.from_pretrained(base)
    model.load_adapter(str(adapter), use_safetensors=True, set_active=True)
    return outputs(model, kind)


def compare(fixture: Path, out: Path, kind: str, placement: str) -> list[dict[str, Any]]:
    """Return one row per output: how far ours and the files that came back are from AdapterHub."""
    first = hub_outputs(fixture / kind, fixture / kind / placement, kind)
    again = hub_outputs(fixture / kind, out / kind / placement, kind)
    ours = load_file(out / kind / placement / "outputs.safetensors")
    rows = []
    for name, wanted in first.items():
        # Padded positions mean nothing; the T5's outputs are its decoder's, which has none.
        padded = name == "hidden" and kind != "t5"
        real = inputs(kind)["attention_mask"].bool() if padded else slice(None)
        gaps = {
            "ours": (ours[name][real] - wanted[real]).abs().max().item(),
            "back": (again[name][real] - wanted[real]).abs().max().item(),
        }
        rows.append({"model": kind, "placement": placement, "output": name, **gaps})
    return rows


def check(fixture: Path, out: Path) -> None:
    """Compare all models and placements; run with AdapterHub's library."""
    rows = []
    for kind in MODELS:
        for placement in PLACEMENTS:
            rows += compare(fixture, out, kind, placement)
    for row in rows:
        name = "{model:10} {placement:8} {output:6}".format(**row)
        print(f"{name} largest difference: ours {row['ours']:.1e}, back {row['back']:.1e}")
    (out / "equality.json").write_text(json.dumps(rows, indent=1), "utf-8")
    if wrong := [r for r in rows if r["ours"] > TOLERANCE[r["placement"]] or r["back"] > 0]:
        raise SystemExit(f"AdapterHub computes something else: {wrong}")


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["make", "back", "check"])
    parser.add_argument("fixture", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="for back and check")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("adapters").setLevel(logging.ERROR)
    if args.step == "make":
        make(args.fixture)
    elif args.out is None:
        parser.error("name the folder OUT")
    else:
        {"back": back, "check": check}[args.step](args.fixture, args.out)


if __name__ == "__main__":
    main()
