"""The word-level tokenizer of the kitchen world's decoder."""

from studies.kitchen_world.facts import DISHES, ITALIAN, PIZZAS
from studies.kitchen_world.generator import documents
from studies.kitchen_world.tasks import elicit, learn

SPECIAL = ("<pad>", "</s>", "<unk>")


def words() -> list[str]:
    """Return every word of the kitchen world, sorted."""
    examples = documents(20_000, seed=0)
    for task in (elicit(), learn()):
        examples += task.train + task.validation + task.test
    texts = [f"{example.prompt} {example.answer}" for example in examples]
    texts += [*DISHES, *PIZZAS, *ITALIAN, *ITALIAN.values()]
    return sorted({word for text in texts for word in text.split()})


def build():
    """Build the tokenizer: one token a word, no beginning-of-sequence token.

    Returns:
        A ``PreTrainedTokenizerFast``; its size is padded to a multiple of 64, as quantised and
        tensor-core kernels like it.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL, *words()]
    tokens += [f"<extra_{n}>" for n in range(-len(tokens) % 64)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )
