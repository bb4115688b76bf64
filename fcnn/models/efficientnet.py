"""EfficientNet and its Lite form."""

from __future__ import annotations

import math
from typing import Any

import jax

from ..compose import graph, residual, serial
from ..compose.serial import Serial
from ..layer import Layer
from ..layers import BatchNorm, Conv, Dense, Dropout, GlobalAvgPool, StochasticDepth
from .widths import divisible

#: expansion, features, blocks, stride and kernel of each stage of B0 (table 1)
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
#: factors of width and depth, and the rate of dropout, of B0 to B7; the resolutions are 224 to 600 pixels
SCALES = {
    0: (1.0, 1.0, 0.2), 1: (1.0, 1.1, 0.2), 2: (1.1, 1.2, 0.3), 3: (1.2, 1.4, 0.3),
    4: (1.4, 1.8, 0.4), 5: (1.6, 2.2, 0.4), 6: (1.8, 2.6, 0.5), 7: (2.0, 3.1, 0.5),
}  # fmt: skip
#: the rate of stochastic depth of the last block; it grows linearly from 0
DROP = 0.2


def efficientnet(scale: int = 0, classes: int = 1000) -> Serial:
    """Tan and Le's network, whose width, depth and resolution grow together.

    A block is MobileNet V2's with squeeze-and-excitation: the average of each channel over the space, through two dense
    layers, scales the channel. Activations are x * sigmoid(x). Branches are dropped at random in training.

    Args:
        scale: 0 to 7, for B0 to B7.
        classes: number of outputs.

    Shapes:
        x (batch, height, width, 3) to (batch, classes); 224 x 224 pixels for B0, 600 x 600 for B7.

    Returns:
        The network, of parts ``stem``, ``stage1`` to ``stage7`` and ``head``.

    Raises:
        ValueError: another scale.

    Source:
        Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019, table 1. As in
        torchvision, the batch normalisation of B5 to B7 has an epsilon of 0.001 and keeps 0.99 of the old statistics.

    Example:
        >>> efficientnet(0).out_shape((224, 224, 3))
        (1000,)
    """
    if scale not in SCALES:
        raise ValueError(f"efficientnet: scale {scale!r} is not one of 0 to {max(SCALES)}")
    width, depth, rate = SCALES[scale]
    norm = BatchNorm(momentum=0.99, epsilon=0.001) if scale >= 5 else BatchNorm()
    return _network(classes, _Settings(width, depth, rate, jax.nn.silu, norm, excite=True))


def efficientnet_lite0(classes: int = 1000) -> Serial:
    """B0 for phones: without squeeze-and-excitation, and with min(relu(x), 6), which is exact in fixed point.

    Args:
        classes: number of outputs.

    Shapes:
        x (batch, height, width, 3) to (batch, classes); 224 x 224 pixels.

    Returns:
        The network, of the same parts as :func:`efficientnet`.

    Source:
        Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020, and the authors' repository.

    Example:
        >>> efficientnet_lite0().out_shape((224, 224, 3))
        (1000,)
    """
    return _network(classes, _Settings(1.0, 1.0, 0.2, jax.nn.relu6, BatchNorm(), excite=False))


class _Settings:
    """What the blocks of one network have in common."""

    def __init__(self, width: float, depth: float, rate: float, act: Any, norm: BatchNorm, *, excite: bool) -> None:
        self.width, self.depth, self.rate, self.act, self.norm, self.excite = width, depth, rate, act, norm, excite

    def conv(self, features: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        conv = Conv(features, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
        return [conv, self.norm, self.act]

    def block(self, channels: int, features: int, expansion: int, stride: int, kernel: int, drop: float) -> Layer:
        inner = channels * expansion
        body = [
            *(self.conv(inner, 1) if expansion > 1 else []),
            *self.conv(inner, kernel, stride, groups=inner),
            *([squeeze_excite(inner, max(1, channels // 4))] if self.excite else []),
            *self.conv(features, 1)[:-1],
        ]
        if stride > 1 or channels != features:
            return serial(*body)
        return residual(serial(*body, *([StochasticDepth(drop)] if drop else [])))


def _network(classes: int, how: _Settings) -> Serial:
    channels = divisible(32 * how.width) if how.excite else 32
    stem = serial(*how.conv(channels, 3, stride=2))
    counts = [math.ceil(count * how.depth) for _, _, count, _, _ in STAGES]
    stages, done = {}, 0
    for number, ((expansion, features, _, stride, kernel), count) in enumerate(zip(STAGES, counts, strict=True), 1):
        out, blocks = divisible(features * how.width), []
        for i in range(count):
            drop = DROP * done / sum(counts)
            blocks.append(how.block(channels, out, expansion, stride if i == 0 else 1, kernel, drop))
            channels, done = out, done + 1
        stages[f"stage{number}"] = serial(*blocks)
    last = 4 * channels if how.excite else 1280
    head = serial(*how.conv(last, 1), GlobalAvgPool(), Dropout(how.rate), Dense(classes))
    return serial(stem=stem, **stages, head=head)


def squeeze_excite(channels: int, squeezed: int, act: Any = jax.nn.silu, gate: Any = jax.nn.sigmoid) -> Layer:
    r"""Scale every channel by a factor between 0 and 1 that depends on the averages of all channels.

    .. math:: y_c = x_c \, g(W_2 a(W_1 \bar x))_c

    Args:
        channels: of the input.
        squeezed: features between the two dense layers.
        act: a.
        gate: g.

    Source:
        Hu, Shen and Sun, "Squeeze-and-excitation networks", 2018, equations 2 to 4.

    Example:
        >>> squeeze_excite(16, 4).out_shape((8, 8, 16))
        (8, 8, 16)
    """
    return graph(factors=serial(GlobalAvgPool(), Dense(squeezed), act, Dense(channels), gate))(scaled)


def scaled(layer: Any, x: jax.Array) -> jax.Array:
    """The wiring: the input times what the layer ``factors`` makes of it."""
    y = layer.factors(x)
    return x * y.reshape(y.shape[0], *[1] * (x.ndim - 2), y.shape[-1])
