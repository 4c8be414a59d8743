"""What the documents may name before it is there."""

# Companions that are written at the same time as the pages that link them; each leaves this list when it has come.
AWAITED = {
    "01b_memory_in_depth",
    "02b_lora_in_depth",
    "03b_merge_in_depth",
    "04b_prefix_in_depth",
    "05c_adapters_in_depth",
    "06b_qlora_in_depth",
    "07b_claims_ledger",
}
