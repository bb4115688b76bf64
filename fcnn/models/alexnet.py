"""AlexNet."""

from __future__ import annotations

from typing import Any

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import AdaptiveAvgPool, Conv, Dense, Dropout, Flatten, LocalResponseNorm, MaxPool


def alexnet(classes: int = 1000, *, variant: str = "paper") -> Serial:
    """Krizhevsky's network for ImageNet.

    - "paper": with the two groups of the original, one per GPU: in the second, fourth and fifth convolutions each
      feature sees half of the maps below. Local response normalisation follows the first two convolutions.
    - "torchvision": without groups and without normalisation, and with fewer maps, as in Krizhevsky's second paper. Any
      image of at least 63 x 63 pixels is pooled to 6 x 6 positions before the dense layers.

    Args:
        classes: number of outputs.
        variant: "paper" or "torchvision".

    Shapes:
        x (batch, 227, 227, 3), in torchvision's variant (batch, 224, 224, 3), to (batch, classes).

    Returns:
        The network.

    Raises:
        ValueError: an unknown variant.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks",
        2012, section 3.5 and figure 2; initial values: section 5. The paper states 224 x 224 pixels, but its layer
        sizes require 227. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

    Example:
        >>> alexnet().out_shape((227, 227, 3)), alexnet(10, variant="torchvision").out_shape((224, 224, 3))
        ((1000,), (10,))
    """
    if variant == "torchvision":
        return _torchvision(classes)
    if variant != "paper":
        raise ValueError(f'alexnet: variant {variant!r} is unknown; use "paper" or "torchvision"')
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


def _torchvision(classes: int) -> Serial:
    return serial(
        Conv(64, 11, stride=4, padding=2), jax.nn.relu, MaxPool(3, stride=2),
        Conv(192, 5, padding=2), jax.nn.relu, MaxPool(3, stride=2),
        Conv(384, 3, padding=1), jax.nn.relu,
        Conv(256, 3, padding=1), jax.nn.relu,
        Conv(256, 3, padding=1), jax.nn.relu, MaxPool(3, stride=2),
        AdaptiveAvgPool(6), Flatten(),
        Dropout(0.5), Dense(4096), jax.nn.relu,
        Dropout(0.5), Dense(4096), jax.nn.relu,
        Dense(classes),
    )  # fmt: skip
