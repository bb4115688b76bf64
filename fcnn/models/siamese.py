"""A siamese network: one trunk that looks at two images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..compose import graph, serial
from ..compose.parts import lift
from ..layer import Layer
from ..layers import Conv, Dense, Flatten, MaxPool


def siamese(trunk: Any = None) -> Layer:
    r"""Bromley's idea: do two images show the same? One network turns both into vectors, whose distance tells.

    .. math:: y = \lVert f(a) - f(b) \rVert

    The trunk is one layer used twice, so its params have one entry, and its gradient is the sum over both uses. Train
    it with a contrastive loss, of the distance and a label that says whether the two belong together.

    Args:
        trunk: f, from an image to a vector; None: a small network for 28 x 28 pixels, to 32 numbers.

    Shapes:
        a and b (batch, height, width, channels) to (batch,).

    Returns:
        A network of two inputs, with the part ``trunk``.

    Source:
        Bromley et al., "Signature verification using a siamese time delay neural network", 1994; Hadsell, Chopra and
        LeCun, "Dimensionality reduction by learning an invariant mapping", 2006, for the loss.

    Example:
        >>> net = siamese()
        >>> net.out_shape((28, 28, 1), (28, 28, 1))
        ()
    """
    if trunk is None:
        trunk = serial(
            Conv(16, 5), jax.nn.relu, MaxPool(2),
            Conv(32, 5), jax.nn.relu, MaxPool(2),
            Flatten(), Dense(64), jax.nn.relu, Dense(32),
        )  # fmt: skip
    return graph(trunk=lift(trunk))(distance)


def distance(layer: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    """The wiring: the distance of the two vectors; its gradient is 0 where they are equal."""
    square = jnp.square(layer.trunk(a) - layer.trunk(b)).sum(-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)
