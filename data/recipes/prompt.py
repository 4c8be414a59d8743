"""Prompt tuning, started from words."""

from peft import PromptTuningConfig

MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
words = {"prompt_tuning_init": "SAMPLE_VOCAB", "tokenizer_name_or_path": MODEL}
config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=30, **words)
# Hugging Face's run on Llama-3.2-3B (PEFT, method_comparison/MetaMathQA, 2026) took this rate.
learning_rate = 1e-3
