"""The memory of a fine-tuning step, by formula: pure Python, no torch, no weights, no GPU."""

from peftmemory.advice import CARDS_GIB, Advice, advise, fits, largest_fitting
from peftmemory.cards import CARDS
from peftmemory.configs import ModelConfig, load_config, model_names
from peftmemory.constants import GIB
from peftmemory.estimate import estimate
from peftmemory.methods import EVERYWHERE, describe, method, read_method
from peftmemory.phases import Estimate
from peftmemory.settings import StepSetting
from peftmemory.trained import Parameters, parameters

__all__ = [
    "CARDS",
    "CARDS_GIB",
    "EVERYWHERE",
    "GIB",
    "Advice",
    "Estimate",
    "ModelConfig",
    "Parameters",
    "StepSetting",
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
]
