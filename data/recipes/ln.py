"""LN tuning, the norms alone."""

from peft import LNTuningConfig

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
config = LNTuningConfig(task_type="CAUSAL_LM")
# Hugging Face's run on Llama-3.2-3B (PEFT, method_comparison/MetaMathQA, 2026) took this rate.
learning_rate = 1e-4
