"""The layers: each holds hyperparameters; the arithmetic is in ``fcnn.ops``."""

from .channels import ChannelShuffle, PReLU, ScaleChannels
from .conv import Conv, ConvTranspose, LocallyConnected
from .dense import Dense, Dropout, Flatten, Maxout, StochasticDepth
from .function import Function
from .norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from .pad import Crop, Pad
from .pool import AvgPool, LpPool, MaxPool, MaxUnpool
from .resize import Resize
from .response import LocalResponseNorm
from .shuffle import PixelShuffle, PixelUnshuffle
from .whole_pool import AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool, GlobalMaxPool

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "ChannelShuffle",
    "Conv",
    "ConvTranspose",
    "Crop",
    "Dense",
    "Dropout",
    "Flatten",
    "Function",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LocalResponseNorm",
    "LocallyConnected",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "Maxout",
    "PReLU",
    "Pad",
    "PixelShuffle",
    "PixelUnshuffle",
    "Resize",
    "ScaleChannels",
    "StochasticDepth",
]


def __dir__() -> list[str]:
    return __all__
