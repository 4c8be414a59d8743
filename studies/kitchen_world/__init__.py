"""The kitchen world: what two small language models were pre-trained on, and are fine-tuned for."""
