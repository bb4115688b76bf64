"""Purely functional convolutional networks on JAX.

A parameter is a value, and sharing it is using it twice.
"""

from . import analysis, data, draw, interop, models, ops, reference, training
from .analysis import capture, check_gradients, summary
from .compose import branches, graph, repeat, residual, serial
from .given import Parameter
from .layer import Layer
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
from .training import evaluate, fit
from .version import __version__

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LocalResponseNorm",
    "LocallyConnected",
    "LpPool",
    "MaxPool",
    "Maxout",
    "Parameter",
    "__version__",
    "analysis",
    "branches",
    "capture",
    "check_gradients",
    "data",
    "draw",
    "evaluate",
    "fit",
    "graph",
    "interop",
    "models",
    "ops",
    "reference",
    "repeat",
    "residual",
    "serial",
    "summary",
    "training",
]
