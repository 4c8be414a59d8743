"""Catch the silent failures of PEFT: each check passes quietly or says in one sentence what is wrong.

Training: ``snapshot``, ``check_training``, ``check_targets``, ``check_head``, ``check_prefix``; in 4 bits
``check_input_gradients``, ``keep_input_gradients``, ``refuse_widths``. Saving and loading: ``sign``,
``check_base``, ``check_adapter``, ``check_reuse``, ``why_large``. Merging: ``check_merge``, ``merge_effect``.
"""

from collections.abc import Callable

from peftguards.base import FINGERPRINT, check_base, fingerprint, sign
from peftguards.errors import GuardError
from peftguards.files import check_adapter, check_reuse, why_large
from peftguards.merging import check_merge, merge_effect
from peftguards.prefix import check_prefix
from peftguards.quantised import check_input_gradients, keep_input_gradients, refuse_widths
from peftguards.targets import check_head, check_targets
from peftguards.training import check_training, snapshot

__all__ = [
    "FINGERPRINT",
    "GuardError",
    "check_adapter",
    "check_base",
    "check_head",
    "check_input_gradients",
    "check_merge",
    "check_prefix",
    "check_reuse",
    "check_targets",
    "check_training",
    "explain",
    "fingerprint",
    "keep_input_gradients",
    "merge_effect",
    "refuse_widths",
    "sign",
    "snapshot",
    "why_large",
]


def explain(check: Callable, *arguments, **options) -> str:
    """Run a check of this package and return its sentence, or ``ok``."""
    try:
        check(*arguments, **options)
    except GuardError as error:
        return str(error)
    return "ok"
