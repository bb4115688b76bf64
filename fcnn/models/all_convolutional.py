"""The all-convolutional net: strides in the place of pooling."""

from __future__ import annotations

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import Conv, Dropout, GlobalAvgPool


def all_convolutional(classes: int = 10) -> Serial:
    """Springenberg's network for CIFAR (All-CNN-C): convolutions, ReLU and one average at the end, nothing else.

    Pooling is replaced by 3x3 convolutions of stride 2, so every layer learns what it keeps. Dropout falls on the input
    and after each convolution with a stride. With ten classes it has 1.4 million parameters.

    Args:
        classes: number of outputs.

    Shapes:
        x (batch, 32, 32, 3) to (batch, classes).

    Returns:
        The network, of parts ``dropout``, ``stage1``, ``stage2`` and ``head``.

    Source:
        Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity: the all convolutional net", 2015,
        tables 1 and 2.

    Example:
        >>> params = all_convolutional().init(jax.random.key(0), (32, 32, 3))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        1369738
    """
    relu = jax.nn.relu
    return serial(
        dropout=Dropout(0.2),
        stage1=serial(
            Conv(96, 3, padding="SAME"), relu, Conv(96, 3, padding="SAME"), relu,
            Conv(96, 3, stride=2, padding="SAME"), relu, Dropout(0.5),
        ),
        stage2=serial(
            Conv(192, 3, padding="SAME"), relu, Conv(192, 3, padding="SAME"), relu,
            Conv(192, 3, stride=2, padding="SAME"), relu, Dropout(0.5),
        ),
        head=serial(
            Conv(192, 3, padding="SAME"), relu, Conv(192, 1), relu, Conv(classes, 1), relu, GlobalAvgPool(),
        ),
    )  # fmt: skip
