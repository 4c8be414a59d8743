"""Prefix tuning, trained through a projection."""

from peft import PrefixTuningConfig

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
projection = {"prefix_projection": True, "encoder_hidden_size": 512}
checkpointing = False  # peft refuses it for a prefix
config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=30, **projection)
# Li and Liang (2021) through such a projection; a small model wants more, see notebook 04.
learning_rate = 5e-5
