"""VGG: very deep networks of 3x3 convolutions."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import AdaptiveAvgPool, BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool

#: convolutions in each of the five stages, by the depth of the network: columns A, B, D and E of the paper's table 1
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FEATURES = (64, 128, 256, 512, 512)


def vgg(depth: int = 16, classes: int = 1000, *, batch_norm: bool = False) -> Serial:
    """Simonyan and Zisserman's network: stages of 3x3 convolutions, each ended by 2x2 max pooling.

    Two 3x3 convolutions see as far as one of 5x5, three as far as one of 7x7, with fewer parameters and a ReLU after
    each. Depth counts the layers with weights: convolutions and the three dense layers.

    Batch normalisation came after the paper; with it, the network can be trained from random initial values, where the
    paper initialised deep networks from shallow ones. As in torchvision, images other than 224 x 224 are pooled to
    7 x 7 positions before the dense layers.

    Args:
        depth: 11, 13, 16 or 19.
        classes: number of outputs.
        batch_norm: whether a batch normalisation follows every convolution.

    Shapes:
        x (batch, height, width, 3) to (batch, classes); at least 32 x 32 pixels, 224 x 224 in the paper.

    Returns:
        The network, of parts ``stage1`` to ``stage5`` and ``head``.

    Raises:
        ValueError: another depth.

    Source:
        Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, table 1.

    Example:
        >>> vgg(16)["stage5"].out_shape((14, 14, 512))
        (7, 7, 512)
    """
    if depth not in CONVOLUTIONS:
        raise ValueError(f"vgg: depth {depth!r} is not one of {', '.join(map(str, CONVOLUTIONS))}")
    stages = {}
    for number, (count, features) in enumerate(zip(CONVOLUTIONS[depth], FEATURES, strict=True), 1):
        block: list[Any] = [Conv(features, 3, padding=1), *([BatchNorm()] if batch_norm else []), jax.nn.relu]
        stages[f"stage{number}"] = serial(*(block * count), MaxPool(2))
    head = serial(
        AdaptiveAvgPool(7), Flatten(),
        Dense(4096), jax.nn.relu, Dropout(0.5),
        Dense(4096), jax.nn.relu, Dropout(0.5),
        Dense(classes, kernel_init=("normal", 0.01)),
    )  # fmt: skip
    return serial(**stages, head=head)
