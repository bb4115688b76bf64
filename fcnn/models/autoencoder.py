"""A convolutional autoencoder with tied weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .. import ops
from ..compose import graph
from ..layer import Layer
from ..layers import Conv


def autoencoder(features: int = 16, deeper: int = 32) -> Layer:
    r"""Two convolutions and back, the way back with the same kernels.

    .. math:: h = f(k_2 * f(k_1 * x)), \qquad \hat x = k_1^\top f(k_2^\top h)

    Each kernel has one entry in the params and is used twice: as a convolution with stride 2, and as its transpose.
    The gradient is the sum over both uses. The way back has no biases.

    Args:
        features: of the first convolution.
        deeper: of the second.

    Shapes:
        x (batch, height, width, channels) to the same; height and width are multiples of 4.

    Returns:
        The network, of parts ``first`` and ``second``. Train it with ``loss=optax.losses.squared_error`` and x as its
        own target.

    Source:
        Masci, Meier, Ciresan and Schmidhuber, "Stacked convolutional auto-encoders for hierarchical feature
        extraction", 2011.

    Example:
        >>> net = autoencoder()
        >>> params = net.init(jax.random.key(0), (28, 28, 1))
        >>> net.out_shape((28, 28, 1)), sorted(params)
        ((28, 28, 1), ['first', 'second'])
    """
    conv: dict[str, Any] = {"stride": 2, "padding": 1}
    return graph(first=Conv(features, 4, **conv), second=Conv(deeper, 4, **conv))(there_and_back)


def there_and_back(layer: Any, x: jax.Array) -> jax.Array:
    """The wiring: the transposed kernels are read from the params of the layers."""
    h = jnp.tanh(layer.second(jnp.tanh(layer.first(x))))
    y = jnp.tanh(transposed(h, layer.params["second"]["kernel"]))
    return transposed(y, layer.params["first"]["kernel"])


def transposed(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transpose of the convolution of 4 samples with stride 2 and padding 1: from its outputs to its inputs."""
    return ops.conv_transpose(y, kernel.swapaxes(-1, -2), stride=2, padding=1)
