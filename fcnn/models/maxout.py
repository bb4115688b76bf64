"""A maxout network."""

from __future__ import annotations

from typing import Any

from ..compose import serial
from ..compose.serial import Serial
from ..layers import Conv, Dense, Dropout, Flatten, Maxout, MaxPool

#: maps before the maximum, kernel, and window and stride of the pooling, of the three layers
CONVOLUTIONS = ((96, 8, 4, 2), (96, 8, 4, 2), (48, 5, 2, 2))
#: maps, or units of the dense layer, that a maximum is taken over
PIECES = 2


def maxout(classes: int = 10) -> Serial:
    """Goodfellow's network: each unit is the largest of several linear ones, so it learns its own activation.

    A maximum of linear functions can be any convex one: a ReLU, an absolute value, a parabola in pieces. Dropout
    averages such networks well, since between the corners they are linear.

    Args:
        classes: number of outputs.

    Shapes:
        x (batch, 28, 28, 1) to (batch, classes).

    Returns:
        The network.

    Source:
        Goodfellow et al., "Maxout networks", 2013, section 5.1, the convolutional network for MNIST: three
        convolutional maxout layers and a densely connected one; widths as in the authors' files.

    Example:
        >>> maxout().out_shape((28, 28, 1))
        (10,)
    """
    parts: list[Any] = [Dropout(0.2)]
    for maps, kernel, window, stride in CONVOLUTIONS:
        padding = 3 if kernel == 5 else 4
        parts += [Conv(maps, kernel, padding=padding if parts[1:] else 0), Maxout(PIECES)]
        parts += [MaxPool(window, stride=stride), Dropout(0.5)]
    return serial(*parts, Flatten(), Dense(classes))
