"""AlexNet."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import Conv, Dense, Dropout, Flatten, LocalResponseNorm, MaxPool


def alexnet(classes: int = 1000) -> Serial:
    """Krizhevsky's network for ImageNet, with the two groups of the original, one per GPU.

    In the second, fourth and fifth convolutions each feature sees half of the maps below, as in the paper.

    Args:
        classes: number of outputs.

    Shapes:
        x (batch, 227, 227, 3) to (batch, classes).

    Returns:
        The network.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks",
        2012, section 3.5 and figure 2; initial values: section 5. The paper states 224 x 224 pixels, but its layer
        sizes require 227.

    Example:
        >>> alexnet().out_shape((227, 227, 3))
        (1000,)
    """
    weights: dict[str, Any] = {"kernel_init": ("normal", 0.01)}
    ones: dict[str, Any] = {**weights, "bias_init": "ones"}
    return serial(
        Conv(96, 11, stride=4, **weights), jax.nn.relu, LocalResponseNorm(), MaxPool(3, stride=2),
        Conv(256, 5, padding="SAME", groups=2, **ones), jax.nn.relu, LocalResponseNorm(), MaxPool(3, stride=2),
        Conv(384, 3, padding="SAME", **weights), jax.nn.relu,
        Conv(384, 3, padding="SAME", groups=2, **ones), jax.nn.relu,
        Conv(256, 3, padding="SAME", groups=2, **ones), jax.nn.relu, MaxPool(3, stride=2),
        Flatten(),
        Dense(4096, **ones), jax.nn.relu, Dropout(0.5),
        Dense(4096, **ones), jax.nn.relu, Dropout(0.5),
        Dense(classes, **weights),
    )  # fmt: skip
