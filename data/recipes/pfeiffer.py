"""Pfeiffer adapters, one a layer."""

from peftbottleneck import BottleneckConfig  # makes the method known to peft

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
config = BottleneckConfig(task_type="CAUSAL_LM", placement="pfeiffer", reduction_factor=32)
# Pfeiffer et al. (2021), "AdapterFusion", took this rate.
learning_rate = 1e-4
