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


PROFILES: dict[str, dict[str, Settings]] = {
    "tiny": {
        "decoder": Settings(
            model="kitchen/decoder",  # data/kitchen/decoder
            source="data",
            learning_rates={
                "lora": 5e-3,  # kitchen_gates, ELICIT; 2e-3 and 1e-2 learn it too
                "full": 3e-4,  # kitchen_gates, ELICIT; 1e-4 learns less, 1e-3 forgets more
                "prefix": 1e-3,  # kitchen_gates, ELICIT, with a projection
                "text_prefix": 1e-1,  # prefix_study, start "cue": without a projection
                "prompt": 1e-1,  # kitchen_gates, ELICIT
            },
        ),
        "seq2seq": Settings(
            model="kitchen/seq2seq",  # data/kitchen/seq2seq
            source="data",
            learning_rates={
                "lora": 2e-3,  # seq2seq_gates, ELICIT, the lowest of three
                "full": 3e-4,  # seq2seq_gates, ELICIT, the lowest of three
                "prefix": 1e-2,  # prefix_study and seq2seq_gates, with a projection
            },
        ),
        "encoder": Settings(
            model="all-MiniLM-L6-v2",
            source="package",
            steps=24,  # of encoder_study's 188: a notebook in minutes
            # The rate above encoder_study's: at so few steps as good on validation, and sooner there.
            learning_rates={"full": 3e-4, "lora": 3e-3, "houlsby": 3e-3, "pfeiffer": 3e-3},
        ),
    },
    "laptop": {
        "decoder": Settings(
            model="SmolLM2-135M-Instruct",
            source="laptop",
            steps=36,  # laptop_style_study: enough for the style
            batch_size=4,  # laptop_style_study: real chat examples on a CPU are slow
            test_examples=24,  # each answer is generated, which takes seconds
            learning_rates={
                "lora": 4e-3,  # laptop_style_study, and qlora_study at 24 steps
                "full": 5e-5,  # milder than the 2e-4 of qlora_study at 24 steps
                "text_prefix": 2e-2,  # laptop_prefix_study
            },
        ),
        "seq2seq": Settings(
            model="google-t5/t5-small",
            source="hub",
            learning_rates={"lora": 1e-3, "full": 1e-4},  # not searched: no hub where this was made
        ),
        "encoder": Settings(
            model="all-MiniLM-L6-v2",
            source="package",
            steps=188,  # encoder_study: 3,008 of the 7,234 sentences
            test_examples=2006,  # the whole test split
            # encoder_study, each method's best on validation.
            learning_rates={"full": 1e-4, "lora": 1e-3, "houlsby": 1e-3, "pfeiffer": 1e-3},
        ),
    },
    "gpu": {  # built and traced on fake tensors, never trained here: usual rates, not searched
        "decoder": Settings(
            model="Qwen/Qwen3-0.6B",
            source="hub",
            dtype="bfloat16",  # half of float32's bytes, and its range
            learning_rates={"lora": 2e-4},
        ),
        "seq2seq": Settings(model="google-t5/t5-base", source="hub", learning_rates={"lora": 1e-3}),
        "encoder": Settings(
            model="FacebookAI/roberta-base",
            source="hub",
            steps=188,  # as on the laptop
            test_examples=2006,  # the whole test split
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
