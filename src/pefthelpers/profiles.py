"""One table, ``profiles.yaml``: which model, precision and sizes a role has under a profile.

A notebook asks for a role (``decoder``, ``seq2seq``, ``encoder``) under a profile; nothing else in it
changes when it moves from a CPU-only CI machine (``tiny``) to a real model (``laptop``, ``gpu``).
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

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


TABLE = yaml.safe_load(Path(__file__).with_name("profiles.yaml").read_text(encoding="utf-8"))
PROFILES: dict[str, dict[str, Settings]] = {
    profile: {role: Settings(**fields) for role, fields in roles.items()}
    for profile, roles in TABLE.items()
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
