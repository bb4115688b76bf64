"""Purely functional convolutional networks on JAX.

A parameter is a value, and sharing it is using it twice.
"""

from . import ops
from .analysis import capture, summary
from .compose import branches, graph, repeat, residual, serial
from .layer import Layer, Parameter
from .layers import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocallyConnected,
    LocalResponseNorm,
    LpPool,
    Maxout,
    MaxPool,
)
