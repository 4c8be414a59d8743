"""Make the method known to ``peft``, which has no door for methods from outside."""

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType
from peft.utils import register_peft_method

from peftbottleneck.config import NAME, SAVED_TYPE, BottleneckConfig
from peftbottleneck.model import BottleneckModel


def register() -> None:
    """Add ``PeftType.BOTTLENECK`` and register the method; calling it again changes nothing.

    ``register_peft_method`` accepts only members of the enumeration ``PeftType``, and an
    enumeration cannot be subclassed once it has members: so one member is added by hand.
    """
    name = NAME.upper()
    if name not in PeftType.__members__:  # what `enum` does when it builds the class
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = PeftType._value2member_map_[name] = member
        type.__setattr__(PeftType, name, member)
    if PeftType.BOTTLENECK not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=NAME, config_cls=BottleneckConfig, model_cls=BottleneckModel)
        PEFT_TYPE_TO_CONFIG_MAPPING[SAVED_TYPE] = BottleneckConfig
