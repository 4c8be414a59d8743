"""DoRA, LoRA with a trained magnitude."""

from peft import LoraConfig

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
options = {"target_modules": "all-linear", "use_dora": True}
config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, **options)
# About ten times the rate of full fine-tuning: Schulman et al. (2025), "LoRA Without Regret".
learning_rate = 1e-4
