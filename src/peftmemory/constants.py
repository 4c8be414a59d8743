"""Numbers that libraries and papers fix, each stated once: block sizes, thresholds, tiles."""

GIB = 1024**3

# NF4 as bitsandbytes stores it (Dettmers et al., 2023, section 3).
NF4_BLOCK = 64  # weights per constant
NF4_SECOND_BLOCK = 256  # constants per second-level constant, with double quantisation
NF4_CODES = 16  # values of 4 bits: the table that each layer holds

# 8-bit AdamW (Dettmers et al., 2022, section 2.1) and the table of an 8-bit code.
ADAM_BLOCK = 256  # elements per constant
ADAM_SMALLEST = 4096  # bitsandbytes keeps the states of smaller tensors in fp32
BYTE_CODES = 256
PAGED_SMALLEST = 100_000  # elements: bitsandbytes pages the states of no smaller tensor

# The chunked loss's one tile of logits (TRL 1.16: kernels/chunked_logprob.py, trainer/utils.py).
TILE_TOKENS = 4096
TILE_WIDTH = 32768

OFFLOAD_STASH = 5  # saved tensors that TRL's OffloadActivations leaves on the card


def liger_rows(rows: int, hidden_size: int, vocab_size: int) -> int:
    """Return the tokens of a chunk of Liger's fused loss: logits no larger than hidden states.

    The next power of two (ops/fused_linear_cross_entropy.py, Liger-Kernel of August 2026).
    """
    chunk = -(-rows // -(-vocab_size // hidden_size))
    return min(rows, 1 << (chunk - 1).bit_length())
