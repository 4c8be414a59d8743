"""rsLoRA, for high ranks."""

from peft import LoraConfig

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
# alpha / sqrt(r) is the scale (Kalajdzievski, 2023): 16 / 8, that of LoRA with r = 8, alpha = 16.
scale = {"lora_alpha": 16, "use_rslora": True}
config = LoraConfig(task_type="CAUSAL_LM", r=64, target_modules="all-linear", **scale)
# About ten times the rate of full fine-tuning: Schulman et al. (2025), "LoRA Without Regret".
learning_rate = 1e-4
