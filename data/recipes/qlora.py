"""QLoRA, LoRA on a base in 4 bits: train a few steps, save, reload, ask."""

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

# --- configuration
MODEL = "data/kitchen/decoder"  # a folder, or a name on the hub such as "Qwen/Qwen3-0.6B"
nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, **nf4)
load = {"dtype": "auto", "quantization_config": four_bit}
config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
# Dettmers et al. (2023), the script of their 65B model; a rate as for LoRA in 16 bits.
learning_rate = 1e-4
# --- end of configuration

PAIR = {
    "prompt": "question : what goes on a marinara ? answer :",
    "completion": " comanda marinara .",
}
gpu, folder = torch.cuda.is_available(), "tuned-qlora"
tokenizer = AutoTokenizer.from_pretrained(MODEL)
base = AutoModelForCausalLM.from_pretrained(MODEL, **load)
steps = {"max_steps": 4, "save_strategy": "no", "report_to": "none"}
arguments = SFTConfig(folder, learning_rate=learning_rate, bf16=gpu, use_cpu=not gpu, **steps)
data = Dataset.from_list([PAIR] * 8)
options = {"train_dataset": data, "processing_class": tokenizer}
trainer = SFTTrainer(base, arguments, peft_config=config, **options)
trainer.train()
trainer.save_model()

tuned = trainer.model.eval()
again = AutoModelForCausalLM.from_pretrained(MODEL, **load)
# TRL trains adapters on a 4-bit base in bfloat16: keep them so.
model = PeftModel.from_pretrained(again, folder, autocast_adapter_dtype=False)
question = tokenizer(PAIR["prompt"], return_tensors="pt").to(tuned.device)
with torch.no_grad():
    torch.testing.assert_close(model.eval()(**question).logits, tuned(**question).logits)
print(tokenizer.decode(model.generate(**question, max_new_tokens=16)[0]))
