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

from .. import facts
from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..geometry import Shape
from ..layer import Layer
from ..layers import BatchNorm, Dense, Dropout, Flatten, InstanceNorm, LayerNorm, StochasticDepth
from ..layers.function import Function
from . import compositions, positions, sliding
from .fields import AtPositions, Between, Cropped, OverlappingBatchNorm
from .lattice import Lattice
from .rules import RULES, rewritten, same
from .value import FIELD, Part, Rewritten, Value, Way


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


def by_facts(layer: Layer, value: Value, way: Way) -> Part:
    """What becomes of a layer by what it states of itself; of one that states nothing, by its operations."""
    stated = facts.locality(layer, value.shape)
    if stated is None or (way.train and type(layer).forward_train is not Layer.forward_train):
        return positions.other(layer, value, way)  # what is stated is about a layer in use
    if isinstance(stated, facts.EachPosition):
        return positions.part_wise(layer, value, way) if stated.vectors else Part(layer, value)
    if isinstance(stated, facts.SlidingWindow):
        return sliding.sliding(layer, value, way)
    if isinstance(stated, facts.SpreadWindow):
        return positions.whole_space("pads the window, and makes values between the samples")(layer, value, way)
    if isinstance(stated, facts.Resampled):
        return positions.whole_space(stated.reason)(layer, value, way)
    return sliding.whole(layer, value, way)


#: what becomes of layers that see a window in a way of their own, and of compositions; :mod:`fcnn.scan.layer` adds its
#: own
RULES.update(
    {
        Layer: by_facts,  # any that is not among the following
        Flatten: sliding.flatten,
        Dense: sliding.dense,
        LayerNorm: positions.layer_norm,
        Dropout: positions.dropout,
        StochasticDepth: positions.stochastic_depth,
        **dict.fromkeys((BatchNorm, OverlappingBatchNorm), positions.batch_norm),
        InstanceNorm: positions.instance_norm,
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
