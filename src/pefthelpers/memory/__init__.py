"""The memory of a fine-tuning step, by formula: pure Python, no torch, no weights, no GPU."""

from pefthelpers.memory.advice import CARDS_GIB, Advice, advise, fits, largest_fitting
from pefthelpers.memory.configs import ModelConfig, load_config, model_names
from pefthelpers.memory.counts import Parameters, parameters
from pefthelpers.memory.estimate import Estimate, estimate
from pefthelpers.memory.methods import describe, method, read_method
from pefthelpers.memory.moments import GIB
from pefthelpers.memory.settings import Setting
from pefthelpers.memory.table import table

__all__ = [
    "CARDS_GIB",
    "GIB",
    "Advice",
    "Estimate",
    "ModelConfig",
    "Parameters",
    "Setting",
    "advise",
    "describe",
    "estimate",
    "fits",
    "largest_fitting",
    "load_config",
    "method",
    "model_names",
    "parameters",
    "read_method",
    "table",
]
