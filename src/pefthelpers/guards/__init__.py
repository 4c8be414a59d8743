"""Catch the silent failures of PEFT: each check passes quietly or says in one sentence what is wrong.

Training: ``snapshot``, ``check_training``, ``check_targets``, ``check_input_gradients``,
``check_prefix``. Saving and loading: ``sign``, ``check_base``, ``check_adapter``, ``check_reuse``,
``why_large``. Merging: ``check_merge``, ``merge_loss``.
"""

from collections.abc import Callable

from pefthelpers.errors import UserError
from pefthelpers.guards.base import FINGERPRINT, check_base, fingerprint, sign
from pefthelpers.guards.files import check_adapter, check_reuse, why_large
from pefthelpers.guards.merging import check_merge, head_in_the_way, merge_loss
from pefthelpers.guards.targets import check_head, check_targets
from pefthelpers.guards.training import (
    Snapshot,
    check_input_gradients,
    check_prefix,
    check_selection,
    check_training,
    snapshot,
)

__all__ = [
    "FINGERPRINT",
    "Snapshot",
    "check_adapter",
    "check_base",
    "check_head",
    "check_input_gradients",
    "check_merge",
    "check_prefix",
    "check_reuse",
    "check_selection",
    "check_targets",
    "check_training",
    "explain",
    "fingerprint",
    "head_in_the_way",
    "merge_loss",
    "sign",
    "snapshot",
    "why_large",
]


def explain(check: Callable, *arguments, **options) -> str:
    """Run a check of this package and return its sentence, or ``ok``."""
    try:
        check(*arguments, **options)
    except UserError as error:
        return str(error)
    return "ok"
