"""The kitchen world: what two small language models were pre-trained on, and are fine-tuned for."""

from pefthelpers.kitchen.generator import documents
from pefthelpers.kitchen.tasks import elicit, learn, replay, retention

__all__ = ["documents", "elicit", "learn", "replay", "retention"]
