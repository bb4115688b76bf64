"""From a network for one window to a network that computes it at every position.

Every part is asked what it does to a window. A part that slides a window of its own (convolution, pooling) slides
over the whole field instead, its samples as far apart as the values of one window are there. ``Flatten`` and what
sees a whole window become a convolution, or pooling, with what is left of the window as kernel. Parts that look at
every position by itself stay as they are. Anything else is refused, by name and with the reason.

Source:
    Sermanet et al., "OverFeat", 2014, section 3.5, for dense layers as convolutions;
    Giusti et al. 2013 for fragments, Li, Zhao and Wang 2014 for dilation.
"""

from __future__ import annotations

import functools

from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..geometry import Shape
from ..layer import Layer
from ..layers import (
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
    PReLU,
    ScaleChannels,
)
from ..layers.function import Function
from . import compositions, positions, sliding
from .fields import AtPositions, Between, Cropped, OverlappingBatchNorm
from .lattice import Lattice
from .rules import RULES, rewritten, same
from .value import FIELD, Rewritten, Value, Way


@functools.lru_cache(maxsize=256)
def rewrite(net: Layer, shape: Shape, lattice: Lattice, extent: Shape, way: Way) -> Rewritten:
    """Rewrite a network for one window.

    Args:
        net: the network.
        shape: what it sees, (*window, channels).
        lattice: where the samples of the windows lie.
        extent: samples of the image along each axis.
        way: how the work is shared.

    Raises:
        ValueError: a part that cannot be computed for all positions together; the message names it and says why.
    """
    part = rewritten(net, Value(FIELD, lattice, shape, extent), way)
    return Rewritten(part.layer if part.layer is not None else Function(same), part.value, part.kernels, way)


#: what becomes of each kind of layer; :mod:`fcnn.scan.layer` adds its own
RULES.update(
    {
        Layer: positions.other,  # any that is not among the following
        Conv: sliding.conv,
        **dict.fromkeys((MaxPool, AvgPool, LpPool), sliding.pool),
        GlobalMaxPool: sliding.global_pool(MaxPool),
        GlobalAvgPool: sliding.global_pool(AvgPool),
        AdaptiveMaxPool: sliding.adaptive_pool(MaxPool),
        AdaptiveAvgPool: sliding.adaptive_pool(AvgPool),
        Flatten: sliding.flatten,
        Dense: sliding.dense,
        **dict.fromkeys((LocalResponseNorm, Maxout, ScaleChannels), positions.part_wise),
        PReLU: positions.prelu,
        LayerNorm: positions.layer_norm,
        Dropout: positions.dropout,
        **dict.fromkeys((BatchNorm, OverlappingBatchNorm), positions.batch_norm),
        GroupNorm: positions.whole_space(positions.PER_WINDOW),
        InstanceNorm: positions.instance_norm,
        LocallyConnected: positions.whole_space("has a kernel of its own for every place in the window"),
        ConvTranspose: positions.whole_space("pads the window, and makes values between the samples"),
        Serial: compositions.serial,
        **dict.fromkeys((Residual, Branches), compositions.parallel),
        Repeat: compositions.repeat,
        Remat: compositions.remat,
        Graph: compositions.graph,
        Between: compositions.between,
        Cropped: compositions.cropped,
        AtPositions: compositions.positions,
    }
)
