"""DCGAN: a generator and a discriminator."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..compose import serial
from ..compose.serial import Serial
from ..layers import BatchNorm, Conv, ConvTranspose, Flatten

_INIT: dict[str, Any] = {"kernel_init": ("normal", 0.02), "bias": False}


def dcgan_generator(channels: int = 3, *, width: int = 64) -> Serial:
    """Radford's generator: from a vector of noise to an image, by transposed convolutions that double the resolution.

    Args:
        channels: of the image.
        width: features of the last but one layer; those before have two, four and eight times as many.

    Shapes:
        x (batch, 1, 1, noise), 100 numbers in the paper, to (batch, 64, 64, channels) between -1 and 1.

    Returns:
        The network.

    Source:
        Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
        networks", 2016, figure 1 and section 3; as in PyTorch's example, the first layer is a transposed convolution.

    Example:
        >>> dcgan_generator().out_shape((1, 1, 100))
        (64, 64, 3)
    """
    parts: list[Any] = [ConvTranspose(8 * width, 4, **_INIT), BatchNorm(), jax.nn.relu]
    for features in (4 * width, 2 * width, width):
        parts += [ConvTranspose(features, 4, stride=2, padding=1, **_INIT), BatchNorm(), jax.nn.relu]
    return serial(*parts, ConvTranspose(channels, 4, stride=2, padding=1, **_INIT), jnp.tanh)


def dcgan_discriminator(*, width: int = 64) -> Serial:
    """Radford's discriminator: is the image real? Strided convolutions and leaky ReLU; no pooling, no dense layer.

    Args:
        width: features of the first layer; those after it have two, four and eight times as many.

    Shapes:
        x (batch, 64, 64, channels) to (batch, 1), a score before the sigmoid.

    Returns:
        The network.

    Source:
        Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
        networks", 2016, section 3.

    Example:
        >>> dcgan_discriminator().out_shape((64, 64, 3))
        (1,)
    """
    leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)
    parts: list[Any] = [Conv(width, 4, stride=2, padding=1, **_INIT), leaky]
    for features in (2 * width, 4 * width, 8 * width):
        parts += [Conv(features, 4, stride=2, padding=1, **_INIT), BatchNorm(), leaky]
    return serial(*parts, Conv(1, 4, **_INIT), Flatten())
