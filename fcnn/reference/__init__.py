"""Hand-written backpropagation in NumPy alone, with which the rest of the library is compared.

About 1,750 lines of code, not counting docstrings and comments. Nothing here uses JAX or any other part of fcnn, so
that a mistake there cannot be hidden by the same mistake here. The backward of every operation is next to its forward.

Read ``node`` first, then ``gates`` and ``dense``, then ``conv``: its definition is ten lines of plain loops, and the
gradient of a shared weight is the sum over its uses. ``shared`` expresses the same by sets of edges, ``tape`` by graphs
of values.
"""

from .activations import (
    ELU,
    GELU,
    Abs,
    Exp,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Square,
    Tanh,
)
from .borders import Crop, Pad
from .cells import AdaptiveAvgPool, AdaptiveMaxPool, GlobalAvgPool, GlobalMaxPool
from .channels import ChannelShuffle, PReLU, ScaleChannels
from .conv import Conv, conv_by_definition, conv_gradients_by_definition
from .dense import Dense, Dropout, Flatten, Maxout
from .gates import Add, Concatenate, Copy, MatMul, Max, Multiply, Transpose
from .losses import L1, L2, Hinge, SoftmaxCrossEntropy, SquaredError
from .network import Branches, Chain, Residual
from .node import Node, unbroadcast
from .norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from .pool import AvgPool, LpPool, MaxPool, MaxUnpool
from .resize import Resize
from .response import LocalResponseNorm
from .scan import Scan
from .shared import SharedLinear, WeightCounts, count_weights, scanning_sets
from .shuffle import PixelShuffle, PixelUnshuffle
from .softmax import LogSoftmax, Softmax
from .tape import Tape, Value, apply, backward
from .transposed import ConvTranspose
from .unshared import LocallyConnected
from .updates import SGD, Adam, Momentum, Nesterov

__all__ = [
    "ELU",
    "GELU",
    "L1",
    "L2",
    "SGD",
    "Abs",
    "Adam",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "Add",
    "AvgPool",
    "BatchNorm",
    "Branches",
    "Chain",
    "ChannelShuffle",
    "Concatenate",
    "Conv",
    "ConvTranspose",
    "Copy",
    "Crop",
    "Dense",
    "Dropout",
    "Exp",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "Hinge",
    "Identity",
    "InstanceNorm",
    "LayerNorm",
    "LeakyReLU",
    "LocalResponseNorm",
    "LocallyConnected",
    "LogSoftmax",
    "LpPool",
    "MatMul",
    "Max",
    "MaxPool",
    "MaxUnpool",
    "Maxout",
    "Momentum",
    "Multiply",
    "Nesterov",
    "Node",
    "PReLU",
    "Pad",
    "PixelShuffle",
    "PixelUnshuffle",
    "ReLU",
    "Residual",
    "Resize",
    "ScaleChannels",
    "Scan",
    "SharedLinear",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Square",
    "SquaredError",
    "Tanh",
    "Tape",
    "Transpose",
    "Value",
    "WeightCounts",
    "apply",
    "backward",
    "conv_by_definition",
    "conv_gradients_by_definition",
    "count_weights",
    "scanning_sets",
    "unbroadcast",
]


def __dir__() -> list[str]:
    return __all__
