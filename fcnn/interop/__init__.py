"""File formats of other frameworks."""

from .comparison import Comparison, compare
from .equinox_weights import from_equinox
from .exported import export
from .flax_weights import from_flax
from .keras_weights import from_keras
from .onnx_activations import onnx_activations
from .onnx_format import to_onnx
from .onnx_import import from_onnx
from .torch_activations import torch_activations
from .torch_weights import from_torch, to_torch
from .weights import load_weights, read_metadata, save_weights

__all__ = [
    "Comparison",
    "compare",
    "export",
    "from_equinox",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_torch",
    "load_weights",
    "onnx_activations",
    "read_metadata",
    "save_weights",
    "to_onnx",
    "to_torch",
    "torch_activations",
]


def __dir__() -> list[str]:
    return __all__
