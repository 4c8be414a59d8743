"""What transformers, PEFT and torch refuse while a model is built or run, in one sentence each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from peftmemory.configs import ModelConfig
from peftmemory.errors import EstimateError


@contextmanager
def in_one_sentence(who: str, config: ModelConfig) -> Iterator[None]:
    """Turn any error of a library into an ``EstimateError`` that begins with who refuses.

    Raises:
        EstimateError: the library's first sentence, with the way out where one is known.
    """
    try:
        yield
    except EstimateError:
        raise
    except Exception as error:
        text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
        if "scaled_dot_product_attention" in text or "does not support an attention impl" in text:
            raise EstimateError(
                f"transformers has no fused attention for {config.model_type}: take"
                " attention='eager', on the command line --attention eager."
            ) from error
        if "target_modules" in text and "specify" in text.lower():
            raise EstimateError(
                f"PEFT has no default targets for {config.model_type}: name them, or take"
                " all-linear (--targets all-linear)."
            ) from error
        if "'tuple' object has no attribute" in text:
            raise EstimateError(
                f"{config.name} has a linear map that returns a tuple, such as a router, and the"
                " method would wrap it: name targets such as q_proj,v_proj instead of all-linear."
            ) from error
        if any(words in text for words in ("meta tensor", "data-independent", "aten.")):
            raise EstimateError(
                f"{who} reads values of {config.name}'s weights, and a trace has none: put the"
                " method on a small model of the family and count it there."
            ) from error
        first = text.split(". ")[0].rstrip(".")[:300]
        raise EstimateError(f"{who} refuses this on {config.name}: {first}.") from error


def check_positions(model: nn.Module, config: ModelConfig, seq: int) -> None:
    """Refuse more tokens than a model has learned positions for; torch would not say it here.

    Raises:
        EstimateError: the sentence names the longest length.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int) or seq <= limit:
        return
    learned = [name for name, each in model.named_modules() if isinstance(each, nn.Embedding)]
    if any(re.search(r"position|\bwpe\b", name) for name in learned):
        raise EstimateError(
            f"{config.name} has learned {limit} positions: choose a length of at most {limit}."
        )


def check_targets(model: nn.Module, config: ModelConfig, targets: object) -> None:
    """Refuse names of which one fits no module: PEFT adapts the others and says nothing.

    Raises:
        EstimateError: the sentence names what does not fit and what there is.
    """
    if not isinstance(targets, list | set | tuple):
        return
    names = [name for name, _ in model.named_modules()]
    fits = lambda target: any(f".{name}".endswith(f".{target}") for name in names)
    if missing := sorted(target for target in targets if not fits(target)):
        linear = {n.rpartition(".")[2] for n, m in model.named_modules() if is_linear(m)}
        raise EstimateError(
            f"{config.name} has no module {', '.join(missing)}: it has {', '.join(sorted(linear))}."
        )


def check_rank(model: nn.Module, config: ModelConfig, rank: object) -> None:
    """Refuse a rank above every width of the model: it would take minutes to trace nonsense.

    Raises:
        EstimateError: the sentence names the highest rank there is room for.
    """
    widths = [min(m.weight.shape) for m in model.modules() if is_linear(m)]
    if isinstance(rank, int) and widths and rank > max(widths):
        raise EstimateError(
            f"r={rank} is more than {config.name} has room for: choose a rank of at most"
            f" {max(widths)}."
        )


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is what transformers and PEFT take for a linear map."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)
