"""Bottleneck adapters (Houlsby et al., 2019; Pfeiffer et al., 2021) as a PEFT method.

Importing this package makes the method known to ``peft``; after that everything goes through
``peft``'s own calls::

    from peft import get_peft_model
    from peftbottleneck import BottleneckConfig

    model = get_peft_model(base, BottleneckConfig(placement="houlsby", reduction_factor=16))

``from_adapterhub`` and ``to_adapterhub`` read and write the files of AdapterHub's library.
"""

from peftbottleneck.adapterhub import from_adapterhub, to_adapterhub
from peftbottleneck.config import BottleneckConfig
from peftbottleneck.layer import BottleneckLayer
from peftbottleneck.model import BottleneckModel
from peftbottleneck.registration import register

register()

__all__ = [
    "BottleneckConfig",
    "BottleneckLayer",
    "BottleneckModel",
    "from_adapterhub",
    "register",
    "to_adapterhub",
]
