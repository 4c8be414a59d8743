"""Helpers for the notebook collection on parameter-efficient fine-tuning (PEFT).

Importing this package is cheap on purpose: it imports no torch. Import the module you need, as in
``from pefthelpers import models``.
"""

import logging

# On processors with AVX512-BF16 bitsandbytes asks, as it is imported, for optional kernels that come
# from a model hub; without them it takes its own path, so a reader has nothing to do.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
