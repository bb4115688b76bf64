"""MobileNet V2."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import residual, serial
from ..compose.serial import Serial
from ..layer import Layer
from ..layers import BatchNorm, Conv, Dense, Dropout, GlobalAvgPool
from .widths import divisible

#: expansion, features, blocks and stride of each stage (table 2)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(classes: int = 1000, *, width: float = 1.0) -> Serial:
    """Sandler's network for phones: inverted residual blocks with linear bottlenecks.

    A block expands its few channels sixfold by a 1x1 convolution, sees the neighbourhood by a depthwise 3x3
    convolution, and projects to few channels by another 1x1 convolution, after which there is no activation. The
    shortcuts join the narrow ends. Activations are min(relu(x), 6), which keep their precision in fixed point.

    Args:
        classes: number of outputs.
        width: factor of all features, which are rounded to multiples of 8.

    Shapes:
        x (batch, height, width, 3) to (batch, classes); at least 32 x 32 pixels, 224 x 224 in the paper.

    Returns:
        The network, of parts ``stem``, ``stage1`` to ``stage7`` and ``head``.

    Raises:
        ValueError: a width that is not above 0.

    Source:
        Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018, tables 1 and 2.

    Example:
        >>> mobilenet_v2().out_shape((224, 224, 3))
        (1000,)
    """
    if not width > 0:
        raise ValueError(f"mobilenet_v2: width is {width!r}, it must be above 0")
    channels = divisible(32 * width)
    stem = serial(*_conv(channels, 3, stride=2))
    stages = {}
    for number, (expansion, features, count, stride) in enumerate(STAGES, 1):
        out = divisible(features * width)
        first, others = _block(channels, out, expansion, stride), _block(out, out, expansion, 1)
        stages[f"stage{number}"] = serial(first, *[others] * (count - 1))
        channels = out
    last = divisible(1280 * max(1.0, width))
    dense = Dense(classes, kernel_init=("normal", 0.01))
    return serial(stem=stem, **stages, head=serial(*_conv(last, 1), GlobalAvgPool(), Dropout(0.2), dense))


def _conv(features: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
    conv = Conv(features, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, BatchNorm(), jax.nn.relu6]


def _block(channels: int, features: int, expansion: int, stride: int) -> Layer:
    inner = channels * expansion
    body = serial(
        *(_conv(inner, 1) if expansion > 1 else []),
        *_conv(inner, 3, stride, groups=inner),
        *_conv(features, 1)[:-1],
    )
    return residual(body) if stride == 1 and channels == features else body
