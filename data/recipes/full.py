"""Full fine-tuning, mixed precision: train a few steps, save, reload, ask."""

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

# --- configuration
MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
config = None  # every weight is trained: nothing to configure
# Hugging Face's run on Llama-3.2-3B (PEFT, method_comparison/MetaMathQA, 2026) took this rate.
learning_rate = 1e-5
# --- end of configuration

PAIR = {
    "prompt": "question : what goes on a marinara ? answer :",
    "completion": " comanda marinara .",
}
gpu, folder = torch.cuda.is_available(), "tuned-full"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
steps = {"max_steps": 4, "save_strategy": "no", "report_to": "none"}
arguments = SFTConfig(folder, learning_rate=learning_rate, bf16=gpu, use_cpu=not gpu, **steps)
data = Dataset.from_list([PAIR] * 8)
options = {"train_dataset": data, "processing_class": tokenizer}
trainer = SFTTrainer(base, arguments, **options)
trainer.train()
trainer.save_model()

tuned = trainer.model.eval()
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(tuned.device)
question = tokenizer(PAIR["prompt"], return_tensors="pt").to(tuned.device)
with torch.no_grad():
    torch.testing.assert_close(model.eval()(**question).logits, tuned(**question).logits)
print(tokenizer.decode(model.generate(**question, max_new_tokens=16)[0]))
