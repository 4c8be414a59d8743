"""(IA)³, learned factors."""

from peft import IA3Config

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
config = IA3Config(task_type="CAUSAL_LM")
# Hugging Face's run on Llama-3.2-3B (PEFT, method_comparison/MetaMathQA, 2026) took this rate.
learning_rate = 1e-3
