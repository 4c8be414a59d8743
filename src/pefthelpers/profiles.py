"""One table: which model, precision and sizes a role has under a profile.

A notebook asks for a role (``decoder``, ``seq2seq``, ``encoder``) under a profile; nothing else in it
changes when it moves from a CPU-only CI machine (``tiny``) to a real model (``laptop``, ``gpu``).
"""

from dataclasses import dataclass, field

from pefthelpers.errors import UserError

ROLES = ("decoder", "seq2seq", "encoder")


@dataclass(frozen=True)
class Settings:
    """What a role is under a profile.

    Attributes:
        model: the name a reader sees; for hub models also the hub's name.
        source: ``data``, ``package``, ``laptop`` (fetched once) or ``hub``.
        dtype: torch dtype name of the frozen weights.
        steps: optimiser steps of the notebook's main run.
        batch_size: examples per step of the main run.
        test_examples: how many test examples the main run generates for.
        learning_rates: by method, chosen on validation (see data/results/).
    """

    model: str
    source: str
    dtype: str = "float32"
    steps: int = 100
    batch_size: int = 16
    test_examples: int = 200
    learning_rates: dict[str, float] = field(default_factory=dict)


# Chosen on validation by studies/encoder_study.py, at 188 steps. With an eighth of the steps the
# rate above does as well on validation and learns sooner.
ENCODER_RATES = {"full": 1e-4, "lora": 1e-3, "houlsby": 1e-3, "pfeiffer": 1e-3}
SHORT_ENCODER_RATES = {"full": 3e-4, "lora": 3e-3, "houlsby": 3e-3, "pfeiffer": 3e-3}

PROFILES: dict[str, dict[str, Settings]] = {
    "tiny": {
        "decoder": Settings(
            model="kitchen/decoder",
            source="data",
            learning_rates={
                "lora": 5e-3,
                "full": 3e-4,
                "prefix": 1e-3,
                "text_prefix": 1e-1,
                "prompt": 1e-1,
            },
        ),
        "seq2seq": Settings(
            model="kitchen/seq2seq",
            source="data",
            learning_rates={"lora": 5e-3, "full": 1e-3, "prefix": 1e-2},
        ),
        "encoder": Settings(
            model="all-MiniLM-L6-v2",
            source="package",
            steps=24,
            learning_rates=SHORT_ENCODER_RATES,
        ),
    },
    "laptop": {
        "decoder": Settings(
            model="SmolLM2-135M-Instruct",
            source="laptop",
            steps=36,
            batch_size=4,
            test_examples=24,
            learning_rates={"lora": 4e-3, "full": 5e-5, "text_prefix": 2e-2},
        ),
        "seq2seq": Settings(
            model="google-t5/t5-small", source="hub", learning_rates={"lora": 1e-3, "full": 1e-4}
        ),
        "encoder": Settings(
            model="all-MiniLM-L6-v2",
            source="package",
            steps=188,
            test_examples=2006,
            learning_rates=ENCODER_RATES,
        ),
    },
    "gpu": {
        "decoder": Settings(
            model="Qwen/Qwen3-0.6B", source="hub", dtype="bfloat16", learning_rates={"lora": 2e-4}
        ),
        "seq2seq": Settings(model="google-t5/t5-base", source="hub", learning_rates={"lora": 1e-3}),
        "encoder": Settings(
            model="FacebookAI/roberta-base",
            source="hub",
            steps=188,
            test_examples=2006,
            learning_rates={"lora": 5e-4, "houlsby": 5e-4, "pfeiffer": 5e-4},
        ),
    },
}


def settings(role: str, profile: str = "tiny") -> Settings:
    """Return the settings of a role under a profile.

    Raises:
        UserError: no such profile or role; the sentence lists those there are.
    """
    if profile not in PROFILES:
        raise UserError(f"Unknown profile {profile!r}: choose one of {', '.join(PROFILES)}.")
    if role not in ROLES:
        raise UserError(f"Unknown role {role!r}: choose one of {', '.join(ROLES)}.")
    return PROFILES[profile][role]
