"""Full fine-tuning, mixed precision."""

import torch

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
load = {"dtype": torch.float32}  # mixed precision: float32 weights, bf16 arithmetic
config = None  # every weight is trained: nothing to configure
# Hugging Face's run on Llama-3.2-3B (PEFT, method_comparison/MetaMathQA, 2026) took this rate.
learning_rate = 1e-5
