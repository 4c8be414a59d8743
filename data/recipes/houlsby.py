"""Houlsby adapters, two a layer."""

from peftbottleneck import BottleneckConfig  # makes the method known to peft

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
config = BottleneckConfig(task_type="CAUSAL_LM", placement="houlsby", reduction_factor=64)
# The middle of the three rates that Houlsby et al. (2019, section 3.2) tried.
learning_rate = 3e-4
