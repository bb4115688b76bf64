"""Purely functional convolutional networks on JAX.

A parameter is a value, and sharing it is using it twice.
"""

from typing import TYPE_CHECKING, Any

from . import analysis, data, draw, interop, models, ops, training
from .analysis import capture, check_gradients, summary
from .compose import branches, graph, remat, repeat, residual, serial
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

if TYPE_CHECKING:
    from . import reference

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
    "remat",
    "repeat",
    "residual",
    "serial",
    "summary",
    "training",
]


def __getattr__(name: str) -> Any:
    """Load the reference when somebody asks for it: NumPy and text, which most programs never use."""
    if name == "reference":
        import importlib

        return importlib.import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
