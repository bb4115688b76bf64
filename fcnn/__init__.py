"""Purely functional convolutional networks on JAX.

A parameter is a value, and sharing it is using it twice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import elsewhere, ops
from .compose import branches, graph, remat, repeat, residual, serial
from .layer import Layer
from .layers import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Conv,
    ConvTranspose,
    Crop,
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
    MaxUnpool,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    PReLU,
    Resize,
    ScaleChannels,
    StochasticDepth,
)
from .layout import LayoutWarning
from .types import Parameter
from .version import __version__

if TYPE_CHECKING:
    from . import analysis, data, draw, interop, models, reference, scan, testing, training
    from .analysis import capture, check_gradients, fold, summary
    from .scan import Scan, fully_convolutional, scan_tiles
    from .tracing import trace
    from .training import evaluate, fit, predict

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
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LayoutWarning",
    "LocalResponseNorm",
    "LocallyConnected",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "Maxout",
    "PReLU",
    "Pad",
    "Parameter",
    "PixelShuffle",
    "PixelUnshuffle",
    "Resize",
    "ScaleChannels",
    "Scan",
    "StochasticDepth",
    "__version__",
    "analysis",
    "branches",
    "capture",
    "check_gradients",
    "data",
    "draw",
    "evaluate",
    "fit",
    "fold",
    "fully_convolutional",
    "graph",
    "interop",
    "models",
    "ops",
    "predict",
    "reference",
    "remat",
    "repeat",
    "residual",
    "scan",
    "scan_tiles",
    "serial",
    "summary",
    "testing",
    "trace",
    "training",
]


#: loaded on first access, and the module that each name comes from; most programs use only some of these
_LATER = {
    **dict.fromkeys(("analysis", "data", "draw", "interop", "models", "reference", "scan", "testing", "training"), ""),
    **dict.fromkeys(("capture", "check_gradients", "fold", "summary"), ".analysis"),
    **dict.fromkeys(("evaluate", "fit", "predict"), ".training"),
    **dict.fromkeys(("Scan", "fully_convolutional", "scan_tiles"), ".scan"),
    "trace": ".tracing",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        said = elsewhere.name(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f"; {said}" if said else ""))
    home = _LATER[name]
    found = getattr(import_module(home, __name__), name) if home else import_module(f".{name}", __name__)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
