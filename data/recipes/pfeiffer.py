"""Pfeiffer adapters, one a layer: train a few steps, save, reload, ask."""

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from pefthelpers.bottleneck import BottleneckConfig  # makes the method known to peft

# --- configuration
MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
config = BottleneckConfig(task_type="CAUSAL_LM", placement="pfeiffer", reduction_factor=32)
# Pfeiffer et al. (2021), "AdapterFusion", took this rate.
learning_rate = 1e-4
# --- end of configuration

PAIR = {
    "prompt": "question : what goes on a marinara ? answer :",
    "completion": " comanda marinara .",
}
gpu, folder = torch.cuda.is_available(), "tuned-pfeiffer"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
base = AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto")
steps = {"max_steps": 4, "save_strategy": "no", "report_to": "none"}
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
