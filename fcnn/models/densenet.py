"""DenseNet: every layer sees the features of all layers before it."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import branches, serial
from ..compose.serial import Serial
from ..layers import AvgPool, BatchNorm, Conv, Dense, GlobalAvgPool, MaxPool

#: layers in each of the four stages, features of the stem, and growth rate, by depth (table 1)
TABLE = {
    121: ((6, 12, 24, 16), 64, 32),
    161: ((6, 12, 36, 24), 96, 48),
    169: ((6, 12, 32, 32), 64, 32),
    201: ((6, 12, 48, 32), 64, 32),
}
#: a 1x1 convolution brings what a layer sees to so many times the growth rate
BOTTLENECK = 4


def densenet(depth: int = 121, classes: int = 1000) -> Serial:
    r"""Huang's network: the output of a layer is put beside its input.

    .. math:: x_l = [x_{l - 1}, f_l(x_{l - 1})]

    f gives few features (the growth rate k): normalisation, ReLU and a 1x1 convolution to 4 k, then the same with a 3x3
    convolution to k. Between two stages a 1x1 convolution halves the channels, and average pooling the resolution.

    Args:
        depth: 121, 161, 169 or 201.
        classes: number of outputs.

    Shapes:
        x (batch, height, width, 3) to (batch, classes); at least 32 x 32 pixels, 224 x 224 in the paper.

    Returns:
        The network, of parts ``stem``, ``stage1`` to ``stage4`` and ``head``.

    Raises:
        ValueError: another depth.

    Source:
        Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks", 2017, table 1
        (DenseNet-BC, whose transitions halve the channels).

    Example:
        >>> densenet(121)["stage1"].out_shape((56, 56, 64))
        (28, 28, 128)
    """
    if depth not in TABLE:
        raise ValueError(f"densenet: depth {depth!r} is not one of {', '.join(map(str, TABLE))}")
    layers, channels, growth = TABLE[depth]
    stem = serial(_conv(channels, 7, stride=2), BatchNorm(), jax.nn.relu, MaxPool(3, stride=2, padding=1))
    stages = {}
    for number, count in enumerate(layers, 1):
        channels += count * growth
        parts: list[Any] = [_layer(growth)] * count
        if number < len(layers):
            channels //= 2
            parts += [BatchNorm(), jax.nn.relu, _conv(channels, 1), AvgPool(2)]
        else:
            parts += [BatchNorm(), jax.nn.relu]
        stages[f"stage{number}"] = serial(*parts)
    return serial(stem=stem, **stages, head=serial(GlobalAvgPool(), Dense(classes)))


def _conv(features: int, kernel: int, stride: int = 1) -> Conv:
    return Conv(features, kernel, stride=stride, padding=kernel // 2, bias=False)


def same(x: jax.Array) -> jax.Array:
    """The input itself."""
    return x


def _layer(growth: int) -> Any:
    new = serial(
        BatchNorm(), jax.nn.relu, _conv(BOTTLENECK * growth, 1),
        BatchNorm(), jax.nn.relu, _conv(growth, 3),
    )  # fmt: skip
    return branches(old=same, new=new)
