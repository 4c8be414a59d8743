"""The files that AdapterHub's library wrote and what it computed: studies/adapterhub_fixture.py."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

FIXTURE = Path(__file__).parents[1] / "fixtures" / "adapterhub"
# Houlsby computes the same sums in the same order. Pfeiffer adds three terms in another order.
TOLERANCE = {"houlsby": 1e-6, "pfeiffer": 2e-6}
WITH_HEAD = ("bert", "roberta", "distilbert")


def base_model(kind, **changes):
    if kind not in WITH_HEAD:
        # AdapterHub's T5 has an attention of its own, which differs from both of transformers' in
        # the last bits, with an adapter or without (measured: 8e-7); the eager one is closer.
        changes = {"attn_implementation": "eager"} if kind == "t5" else {}
        return AutoModel.from_pretrained(FIXTURE / kind, **changes).eval()
    options = {"num_labels": 3} | changes
    return AutoModelForSequenceClassification.from_pretrained(FIXTURE / kind, **options).eval()


def inputs(kind):
    """The batch of studies/adapterhub_fixture.py."""
    ids = torch.randint(3, 32, (3, 9), generator=torch.Generator().manual_seed(3))
    ids[1, 6:] = 1
    found = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    if kind == "t5":
        found["decoder_input_ids"] = ids[:, :5].flip(1).contiguous()
    return found


@torch.no_grad()
def gap(model, kind, placement, output):
    """Largest difference from what AdapterHub computed, where the input is not padding."""
    wanted = load_file(FIXTURE / kind / "reference.safetensors")[f"{placement}.{output}"]
    batch = inputs(kind)
    if output == "logits":
        return (model(**batch).logits - wanted).abs().max().item()
    found = model.get_base_model().base_model(**batch).last_hidden_state
    if kind != "t5":
        mask = batch["attention_mask"].bool()
        found, wanted = found[mask], wanted[mask]
    return (found - wanted).abs().max().item()
