"""From a network for one window to a network that computes it at every position.

Each part is rewritten according to what it does to a window. A part that slides a window of its own (convolution,
pooling) slides over the whole field instead, with the dilation of the field. ``Flatten`` with the dense layer after it,
and layers over the whole window, become a convolution or pooling whose kernel is the remaining window. Pointwise parts
are unchanged. Anything else raises an error with the layer's name and the reason.

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
from .activation_layout import FIELD, ActivationLayout, Part, RewriteOptions, Rewritten
from .fields import AtPositions, Between, Cropped, OverlappingBatchNorm
from .rules import RULES, rewritten, same
from .sample_grid import SampleGrid


@functools.lru_cache(maxsize=256)
def rewrite(net: Layer, shape: Shape, grid: SampleGrid, extent: Shape, options: RewriteOptions) -> Rewritten:
    """Rewrite a network for one window.

    Args:
        net: the network.
        shape: its input shape, (*window, channels).
        grid: where the samples of the windows lie.
        extent: samples of the image along each axis.
        options: how positions share their work.

    Raises:
        ValueError: if a part cannot be computed for all positions together; the message names it and says why.
    """
    part = rewritten(net, ActivationLayout(FIELD, grid, shape, extent), options)
    return Rewritten(part.layer if part.layer is not None else Function(same), part.layout, part.kernels, options)


def by_facts(layer: Layer, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Rewrite a layer by the facts it states, or, if it states none, by its operations."""
    stated = facts.locality(layer, layout.shape)
    if stated is None or (options.train and type(layer).forward_train is not Layer.forward_train):
        return positions.other(layer, layout, options)  # the stated facts describe inference
    if isinstance(stated, facts.EachPosition):
        return positions.part_wise(layer, layout, options) if stated.vectors else Part(layer, layout)
    if isinstance(stated, facts.SlidingWindow):
        return sliding.sliding(layer, layout, options)
    if isinstance(stated, facts.SpreadWindow):
        return positions.whole_space("pads the window, and computes values between the samples")(layer, layout, options)
    if isinstance(stated, facts.Resampled):
        return positions.whole_space(stated.reason)(layer, layout, options)
    return sliding.whole(layer, layout, options)


#: rules for layers that treat a window in a special way, and for compositions; :mod:`fcnn.scan.layer` adds its own
RULES.update(
    {
        Layer: by_facts,  # any layer not listed below
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
