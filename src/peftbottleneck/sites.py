"""Where adapters go: for each architecture the modules to wrap, and AdapterHub's names for them.

Houlsby et al. (2019, section 2.1) put one adapter after each of a block's two sub-layers, before
the residual sum and the norm. Pfeiffer et al. (2021, AdapterFusion) keep only the second one
and move it behind the residual sum.

A sub-layer that ends in a dropout is wrapped there, so that the adapter sees the same values as in
the paper's code and in AdapterHub while training too; one without dropout, at its last linear map.
Encoder-decoders get no adapter after cross-attention, which is AdapterHub's default as well.
"""

from typing import NamedTuple

from peftbottleneck.errors import AdapterError
from peftbottleneck.layer import AfterParts


class Architecture(NamedTuple):
    """The adapter sites of one family of models.

    Attributes:
        houlsby: Pattern that matches the whole name of every module to wrap.
        pfeiffer: The same for the other placement.
        hub: End of a wrapped module's name -> what AdapterHub writes there instead.
    """

    houlsby: str
    pfeiffer: str
    hub: dict[str, str]


# AdapterHub's names of a block's two sites.
_ATTENTION = "attention_adapters.adapters"
_OUTPUT = "output_adapters.adapters"

_BERT = Architecture(
    houlsby=r".*\blayer\.\d+\.(attention\.)?output\.dropout",
    pfeiffer=r".*\blayer\.\d+\.output\.LayerNorm",
    hub={"output.dropout": "output.adapters", "output.LayerNorm": "output.adapters"},
)
_DISTILBERT = Architecture(
    houlsby=r".*\blayer\.\d+\.(attention\.out_lin|ffn\.dropout)",
    pfeiffer=r".*\blayer\.\d+\.output_layer_norm",
    hub={"attention.out_lin": _ATTENTION, "ffn.dropout": _OUTPUT, "output_layer_norm": _OUTPUT},
)
_LLAMA = Architecture(
    houlsby=r".*\blayers\.\d+\.(self_attn\.o_proj|mlp\.down_proj)",
    pfeiffer=r".*\blayers\.\d+",
    hub={"self_attn.o_proj": _ATTENTION, "mlp.down_proj": _OUTPUT, "": _OUTPUT},
)
_GPT2 = Architecture(
    houlsby=r"(.*\.)?h\.\d+\.(attn\.resid_dropout|mlp\.dropout)",
    pfeiffer=r"(.*\.)?h\.\d+",
    hub={"attn.resid_dropout": _ATTENTION, "mlp.dropout": _OUTPUT, "": _OUTPUT},
)
_T5 = Architecture(
    houlsby=r"(.*\.)?(encoder\.block\.\d+\.layer\.[01]|decoder\.block\.\d+\.layer\.[02])\.dropout",
    pfeiffer=r"(.*\.)?(encoder\.block\.\d+\.layer\.1|decoder\.block\.\d+\.layer\.2)",
    hub={"dropout": "adapters", "": "adapters"},
)

ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(["bert", "roberta", "xlm-roberta", "electra"], _BERT),
    "distilbert": _DISTILBERT,
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "smollm3"], _LLAMA),
    "gpt2": _GPT2,
    **dict.fromkeys(["t5", "mt5"], _T5),
}


def architecture(model_type: str) -> Architecture:
    """Return the adapter sites of a model, by its ``config.model_type``.

    Raises:
        AdapterError: nobody wrote down the sites of this architecture.
    """
    if model_type not in ARCHITECTURES:
        raise AdapterError(
            f"No adapter sites are known for the architecture {model_type!r}: name the modules to "
            f"adapt in target_modules, or use one of {', '.join(sorted(ARCHITECTURES))}."
        )
    return ARCHITECTURES[model_type]


def hub_site(model_type: str, site: str) -> str:
    """Return AdapterHub's name of a wrapped module, such as ``layer.0.output.adapters``.

    Args:
        model_type: The base model's ``config.model_type``.
        site: The module's name here, such as ``layer.0.output.dropout``.

    Raises:
        AdapterError: the module is not one of the architecture's own sites.
    """
    endings = architecture(model_type).hub
    site = site.removesuffix(f".{AfterParts.CHILD}")
    for ending in sorted(endings, key=len, reverse=True):
        if ending and site.endswith(f".{ending}"):
            return site.removesuffix(ending) + endings[ending]
    if "" in endings and site.rpartition(".")[2].isdigit():
        return f"{site}.{endings['']}"
    raise AdapterError(
        f"AdapterHub has no adapter at {site!r}: only the default target_modules can be converted."
    )
