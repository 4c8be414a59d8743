"""The memory of a fine-tuning step, by formula: pure Python, no torch, no weights, no GPU."""

from pefthelpers.memory.configs import ModelConfig, load_config, model_names
from pefthelpers.memory.counts import Parameters, parameters
from pefthelpers.memory.estimate import GIB, Estimate, estimate
from pefthelpers.memory.methods import describe, method
from pefthelpers.memory.settings import Setting
from pefthelpers.memory.table import fits, table

__all__ = [
    "GIB",
    "Estimate",
    "ModelConfig",
    "Parameters",
    "Setting",
    "describe",
    "estimate",
    "fits",
    "load_config",
    "method",
    "model_names",
    "parameters",
    "table",
]
