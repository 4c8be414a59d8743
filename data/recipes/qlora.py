"""QLoRA, LoRA on a base in 4 bits."""

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, **nf4)
load = {"dtype": "auto", "quantization_config": four_bit}
config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
# Dettmers et al. (2023), the script of their 65B model; a rate as for LoRA in 16 bits.
learning_rate = 1e-4
