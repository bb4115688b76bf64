"""Network in network: a small MLP slides over the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import AvgPool, Conv, Dropout, GlobalAvgPool, MaxPool


def network_in_network(classes: int = 10) -> Serial:
    """Lin's network for CIFAR: each convolution is followed by two 1x1 convolutions, an MLP at every position.

    The last MLP has a map for each class, and the average of the map is the score: there is no dense layer over the
    whole image to overfit.

    Args:
        classes: number of outputs.

    Shapes:
        x (batch, 32, 32, 3) to (batch, classes).

    Returns:
        The network, of parts ``mlp1``, ``mlp2``, ``mlp3`` and ``pool``.

    Source:
        Lin, Chen and Yan, "Network in network", 2014, section 3 and figure 2; widths as in the authors' files.

    Example:
        >>> network_in_network().out_shape((32, 32, 3))
        (10,)
    """
    return serial(
        mlp1=serial(*_mlp(5, 192, 160, 96), MaxPool(3, stride=2, ceil_mode=True), Dropout(0.5)),
        mlp2=serial(*_mlp(5, 192, 192, 192), AvgPool(3, stride=2, ceil_mode=True), Dropout(0.5)),
        mlp3=serial(*_mlp(3, 192, 192, classes)),
        pool=GlobalAvgPool(),
    )


def _mlp(kernel: int, *features: int) -> Iterator[Any]:
    for n, size in zip(features, (kernel, 1, 1), strict=True):
        yield Conv(n, size, padding="SAME", kernel_init=("normal", 0.05))
        yield jax.nn.relu
