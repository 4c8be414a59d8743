"""Helpers for the notebook collection on parameter-efficient fine-tuning (PEFT).

Importing this package is cheap on purpose: it imports no torch. Import the module you need, as in
``from pefthelpers import models``.
"""

__version__ = "0.1.0"
