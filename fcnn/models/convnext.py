"""ConvNeXt: a residual network with the choices of vision transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from ..compose import residual, serial
from ..compose.serial import Serial
from ..layer import Layer
from ..layers import Conv, Dense, GlobalAvgPool, LayerNorm, ScaleChannels, StochasticDepth

#: blocks and features of the four stages, and the rate of stochastic depth of the last block (section 3 and table 5)
SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768), 0.1),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768), 0.4),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024), 0.5),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536), 0.5),
}


def convnext(size: str = "tiny", classes: int = 1000) -> Serial:
    r"""Liu's network of depthwise 7x7 convolutions and layers that look at single positions.

    .. math:: y = x + \gamma \, W_2 \operatorname{gelu}(W_1 \operatorname{norm}(d * x))

    d is a 7x7 kernel for each channel, :math:`W_1` expands the channels fourfold, and gamma is a learned factor for
    each channel that begins at 1e-6. The images are cut into patches of 4 x 4 pixels; between two stages a 2x2
    convolution halves the resolution. There is layer normalisation over the channels, and one activation in a block.

    Args:
        size: "tiny", "small", "base" or "large".
        classes: number of outputs.

    Shapes:
        x (batch, height, width, 3) to (batch, classes); 224 x 224 pixels in the paper.

    Returns:
        The network, of parts ``stem``, ``stage1`` to ``stage4`` and ``head``.

    Raises:
        ValueError: an unknown size.

    Source:
        Liu et al., "A ConvNet for the 2020s", 2022, figure 4 and table 9; the rates as in torchvision.

    Example:
        >>> convnext("tiny").out_shape((224, 224, 3))
        (1000,)
    """
    if size not in SIZES:
        raise ValueError(f"convnext: size {size!r} is unknown; use one of {', '.join(map(repr, SIZES))}")
    counts, widths, most = SIZES[size]
    init: dict[str, Any] = {"kernel_init": ("truncated_normal", 0.02)}
    stages, done = {}, 0
    for number, (count, features) in enumerate(zip(counts, widths, strict=True), 1):
        parts: list[Any] = [] if number == 1 else [_norm(), Conv(features, 2, stride=2, **init)]
        for _ in range(count):
            parts.append(_block(features, most * done / (sum(counts) - 1), init))
            done += 1
        stages[f"stage{number}"] = serial(*parts)
    stem = serial(Conv(widths[0], 4, stride=4, **init), _norm())
    return serial(stem=stem, **stages, head=serial(GlobalAvgPool(), _norm(), Dense(classes, **init)))


def convnext_tiny(classes: int = 1000) -> Serial:
    """The smallest network of the paper, of ResNet-50's size.

    Args:
        classes: number of outputs.

    Returns:
        ``convnext("tiny", classes)``.

    Source:
        Liu et al., "A ConvNet for the 2020s", 2022.

    Example:
        >>> convnext_tiny(10) == convnext("tiny", 10)
        True
    """
    return convnext("tiny", classes)


def _norm() -> LayerNorm:
    return LayerNorm(epsilon=1e-6)


def _block(features: int, drop: float, init: dict[str, Any]) -> Layer:
    return residual(
        serial(
            Conv(features, 7, padding=3, groups=features, **init), _norm(),
            Dense(4 * features, **init), partial(jax.nn.gelu, approximate=False), Dense(features, **init),
            ScaleChannels(1e-6), *([StochasticDepth(drop)] if drop else []),
        )
    )  # fmt: skip
