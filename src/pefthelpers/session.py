"""Start a notebook: quiet libraries, seeds, and one line that says what it runs on."""

import logging
import os
import platform
import random
import sys
import warnings
from importlib.metadata import version

STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes")
# What peft says without cause in these notebooks: of files on a hub that is out of reach, of one configuration
# used for two models, of arguments that a prompt does not take, of what is done already.
SILENCED = (
    "Could not find a config file",
    "Unable to fetch remote file",
    "The PEFT config's `base_model_name_or_path` was renamed",
    "(Position|Token type) ids are not supported",
    "(Already unmerged|All adapters are already merged)",
    "fan_in_fan_out is set to",
    "Unsupported layer type",  # LN tuning says it of every RMSNorm
)


def in_live_notebook() -> bool:
    """Tell whether somebody watches: papermill and CI set ``PEFTHELPERS_HEADLESS``."""
    return "ipykernel" in sys.modules and not os.environ.get("PEFTHELPERS_HEADLESS")


def quiet() -> None:
    """Silence what a reader cannot act on, and headless the progress bars too.

    Of peft that is what ``SILENCED`` names: missing keys, tied weights, a second wrapping, a merge into
    4 bits stay visible; so does torch's word on checkpointing without a gradient. Deprecation and
    future warnings that point at a notebook's own line stay visible too: the runner reports them.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    for module in ("transformers", "trl", "torch", "accelerate", "bitsandbytes"):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"peft(\.|$)")
    for message in SILENCED:
        warnings.filterwarnings("ignore", message, module=r"peft(\.|$)")
    warnings.filterwarnings("default", "None of the inputs have requires_grad")
    # That weights are offloaded, which a device_map has asked for.
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    if not in_live_notebook():
        import datasets

        transformers.logging.disable_progress_bar()
        datasets.disable_progress_bars()


def start(seed: int) -> str:
    """Seed every generator and return one line that names the machine and the stack.

    Args:
        seed: for Python, NumPy and torch.
    """
    import torch
    import transformers

    quiet()
    random.seed(seed)
    transformers.set_seed(seed)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    stack = ", ".join(f"{name} {version(name)}" for name in STACK)
    return f"Python {platform.python_version()} on {device}, {torch.get_num_threads()} threads; {stack}"
