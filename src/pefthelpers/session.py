"""Start a notebook: quiet libraries, seeds, and one line that says what it runs on."""

import logging
import os
import platform
import random
import re
import sys
import warnings
from importlib.metadata import version

STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes")
# What libraries say to a notebook's reader without cause, by the module that says it: warnings, and beside them lines of
# their logs. Everything else is shown: missing keys, tied weights, a checkpoint that was not found.
WARNED = {
    "transformers": (
        "`(is_)?gradient_checkpointing(_enable)?` is deprecated",  # trl's and peft's calls
    ),
    "torch": (
        "torch.utils.checkpoint: the use_reentrant parameter",  # as above
        "`torch.jit.script_method` is deprecated",
        "'pin_memory' argument is set as true but no accelerator",  # a Trainer's default, on a CPU
    ),
    "bitsandbytes": ("Paged optimizers are not supported on CPU",),  # 06 says it
    # Of files on a hub that is out of reach, of one configuration used for two models, of arguments that a prompt
    # does not take, of what is done already; LN tuning says the last of every RMSNorm.
    "peft": (
        "Could not find a config file",
        "Unable to fetch remote file",
        "The PEFT config's `base_model_name_or_path` was renamed",
        "(Position|Token type) ids are not supported",
        "(Already unmerged|All adapters are already merged)",
        "fan_in_fan_out is set to",
        "Unsupported layer type",
    ),
}


class Named(logging.Filter):
    """Lets pass what none of some messages names."""

    def __init__(self, *messages: str) -> None:
        """Take the messages as regular expressions of their beginnings."""
        super().__init__()
        self.messages = [re.compile(message) for message in messages]

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to show a line."""
        said = re.sub(r"\x1b\[\d*m", "", record.getMessage())
        return not any(message.match(said) for message in self.messages)


LOGGED = {
    "transformers": Named(
        "The modules are dequantized in",  # asked for
        "The new embeddings will be initialized from",  # the default of a resize
        "Both `max_new_tokens` .* and `max_length`",  # a Trainer's evaluation: its own two defaults
        "`use_cache=True` is incompatible with gradient",  # and is switched off
        "Caching is incompatible with gradient",
        # That a head alone is not in the base's file: each fine-tuning of a classifier starts so.
        r"\w+ForSequenceClassification LOAD REPORT.*\n.*\n[-+]+\n((score|classifier)[\w.]* +\| MISSING.*\n)+\n",
    ),
    # A device_map asked for it.
    "accelerate.big_modeling": Named("Some parameters are on the meta device"),
}


def in_live_notebook() -> bool:
    """Tell whether somebody watches: papermill and CI set ``PEFTHELPERS_HEADLESS``."""
    return "ipykernel" in sys.modules and not os.environ.get("PEFTHELPERS_HEADLESS")


def quiet() -> None:
    """Silence what ``WARNED`` and ``LOGGED`` name, and headless the progress bars too.

    Deprecation and future warnings of the libraries' own lines are Python's to hide; those that point at a
    notebook's line stay visible: the runner reports them.
    """
    import transformers

    transformers.logging.set_verbosity_warning()
    for module, messages in WARNED.items():
        for message in messages:
            warnings.filterwarnings("ignore", message, module=rf"{module}(\.|$)")
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"peft(\.|$)")
    for name, named in LOGGED.items():
        logger = logging.getLogger(name)
        # The handlers too: a logger's own filter is not asked for its children's lines.
        for place in (logger, *logger.handlers):
            place.addFilter(named)
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
