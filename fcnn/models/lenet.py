"""LeNet-5."""

from __future__ import annotations

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..geometry import Padding
from ..layers import Conv, Dense, Flatten, MaxPool


def lenet5(classes: int = 10, *, padding: Padding = "SAME") -> Serial:
    """LeCun's network for digits in its modern form: ReLU, max pooling, and every map sees all maps below.

    The third convolution covers the whole remaining 5 x 5 map and so acts as a dense layer, for 32 x 32 pixels and
    ``padding="VALID"``, or 28 x 28 and "SAME". With 10 classes the network has 61,706 parameters.

    Args:
        classes: number of outputs.
        padding: padding of the first convolution.

    Shapes:
        x (batch, 28, 28, channels) with "SAME", (batch, 32, 32, channels) with "VALID", to (batch, classes).

    Returns:
        The network.

    Source:
        LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998,
        section II.B and figure 2. There the second convolution is sparse, subsampling is trainable and
        activations are scaled tanh.

    Example:
        >>> params = lenet5().init(jax.random.key(0), (28, 28, 1))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        61706
    """
    return serial(
        Conv(6, 5, padding=padding), jax.nn.relu, MaxPool(2),
        Conv(16, 5), jax.nn.relu, MaxPool(2),
        Conv(120, 5), jax.nn.relu, Flatten(),
        Dense(84), jax.nn.relu,
        Dense(classes),
    )  # fmt: skip
