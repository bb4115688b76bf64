"""A network for connectomics, that is run at every pixel."""

from __future__ import annotations

import jax

from ..compose import serial
from ..compose.serial import Serial
from ..layers import Conv, Dense, Flatten, MaxPool


def connectomics(classes: int = 2) -> Serial:
    """A classifier of the pixel at the centre of its patch, which tells whether it is part of a membrane.

    It sees 75 x 75 pixels of four neighbouring sections of brain tissue. For a map of a whole section it is run at
    every pixel: ``fcnn.Scan(connectomics(), 75)``, which shares the work between neighbouring patches.

    Args:
        classes: number of outputs.

    Shapes:
        x (batch, 75, 75, 4) to (batch, classes).

    Returns:
        The network.

    Source:
        Ciresan, Giusti, Gambardella and Schmidhuber, "Deep neural networks segment neuronal membranes in electron
        microscopy images", 2012, for the task; the layers are those that a lecture on scanning networks draws.

    Example:
        >>> net = connectomics()
        >>> net.out_shape((75, 75, 4)), fcnn.Scan(net, 75).out_shape((100, 100, 4))
        ((2,), (26, 26, 2))
    """
    relu = jax.nn.relu
    return serial(
        Conv(64, 3), relu, Conv(48, 3), relu, MaxPool(2),
        Conv(48, 3), relu, Conv(48, 3), relu, MaxPool(2),
        Flatten(), Dense(200), relu, Dense(classes),
    )  # fmt: skip
