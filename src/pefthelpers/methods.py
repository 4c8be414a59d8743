"""The methods of the comparison as PEFT configurations, the same for every study that compares them.

Rank, alpha and numbers of virtual tokens are those of notebooks 02 to 06. Where a method has a size
to choose, it is chosen so that the trained parameters come near LoRA's on all linear layers.
"""

from pefthelpers.models import folder_of
from pefthelpers.profiles import settings

# What a reader sees, in the order of every table.
LABELS = {
    "full": "full",
    "lora": "LoRA all-linear",
    "lora_qv": "LoRA q, v",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "qlora": "QLoRA",
    "houlsby": "Houlsby",
    "pfeiffer": "Pfeiffer",
    "ia3": "(IA)³",
    "ln": "LN tuning",
    "prefix": "prefix",
    "prompt": "prompt",
}
TASK_TYPES = {"decoder": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "encoder": "SEQ_CLS"}
LINEAR = {
    "decoder": "all-linear",
    "seq2seq": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
    "encoder": ["query", "key", "value", "dense"],
}
QUERY_VALUE = {
    "decoder": ["q_proj", "v_proj"],
    "seq2seq": ["q", "v"],
    "encoder": ["query", "value"],
}
NORMS = {"decoder": None, "seq2seq": None, "encoder": ["LayerNorm"]}  # None: peft knows them
REDUCTION = {
    "decoder": {"houlsby": 6, "pfeiffer": 3},
    "seq2seq": {"houlsby": 4, "pfeiffer": 2},
    "encoder": {"houlsby": 16, "pfeiffer": 16},
}
VIRTUAL_TOKENS = {"decoder": 8, "seq2seq": 30, "encoder": 20}


def config(method: str, role: str):
    """Return a method's PEFT configuration, None for full fine-tuning.

    Args:
        method: a key of ``LABELS``. ``qlora`` is LoRA on a base that was loaded in 4 bits.
        role: ``decoder``, ``seq2seq`` or ``encoder``.
    """
    import peft  # here, as it brings torch: who reads LABELS alone does not wait for it

    from peftbottleneck import BottleneckConfig

    task = {"task_type": TASK_TYPES[role]}
    virtual = task | {"num_virtual_tokens": VIRTUAL_TOKENS[role]}
    if method == "full":
        return None
    if method in ("houlsby", "pfeiffer"):
        factor = REDUCTION[role][method]
        return BottleneckConfig(**task, placement=method, reduction_factor=factor)
    if method == "ia3":
        return peft.IA3Config(**task)
    if method == "ln":
        return peft.LNTuningConfig(**task, target_modules=NORMS[role])
    if method == "prefix":
        return peft.PrefixTuningConfig(**virtual, **_projection(role))
    if method == "prompt":
        folder = str(folder_of(role, settings(role)))
        start = {"prompt_tuning_init": "SAMPLE_VOCAB", "tokenizer_name_or_path": folder}
        return peft.PromptTuningConfig(**virtual, **start)
    targets = QUERY_VALUE[role] if method == "lora_qv" else LINEAR[role]
    variant = {"use_rslora": method == "rslora", "use_dora": method == "dora"}
    return peft.LoraConfig(**task, r=8, lora_alpha=16, target_modules=targets, **variant)


def _projection(role: str) -> dict:
    """Return the options of the kitchen's prefixes, trained through a projection; see notebook 04."""
    width = {"decoder": 192, "seq2seq": 128}.get(role)
    return {"prefix_projection": True, "encoder_hidden_size": width} if width else {}
