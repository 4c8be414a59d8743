"""Prefix tuning, trained through a projection: train a few steps, save, reload, ask."""

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, PrefixTuningConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

# --- configuration
MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
projection = {"prefix_projection": True, "encoder_hidden_size": 512}
config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=30, **projection)
# Li and Liang (2021) through such a projection; a small model wants more, see notebook 04.
learning_rate = 5e-5
# --- end of configuration

PAIR = {
    "prompt": "question : what goes on a marinara ? answer :",
    "completion": " comanda marinara .",
}
gpu, folder = torch.cuda.is_available(), "tuned-prefix"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
base = AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto")
steps = {
    "max_steps": 4,
    "save_strategy": "no",
    "report_to": "none",
    "gradient_checkpointing": False,
}
arguments = SFTConfig(folder, learning_rate=learning_rate, bf16=gpu, use_cpu=not gpu, **steps)
data = Dataset.from_list([PAIR] * 8)
options = {"train_dataset": data, "processing_class": tokenizer}
trainer = SFTTrainer(base, arguments, peft_config=config, **options)
trainer.train()
trainer.save_model()

tuned = trainer.model.eval()
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype="auto").to(tuned.device)
question = tokenizer(PAIR["prompt"], return_tensors="pt").to(tuned.device)
with torch.no_grad():
    torch.testing.assert_close(model.eval()(**question).logits, tuned(**question).logits)
print(tokenizer.decode(model.generate(**question, max_new_tokens=16)[0]))
