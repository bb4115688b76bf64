"""Depthwise convolution as multiplications and additions of shifted copies of the input.

Every feature sees one channel, so that there is nothing for a matrix product to sum over.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp

from .geometry import Geometry
from .patches import views


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, 1, channels * multiplier)."""
    features, channels = kernel.shape[-1], x.shape[-1]
    weights = kernel.reshape(-1, channels, features // channels)
    shares = [
        view * weight[:, 0] if features == channels else view[..., None] * weight
        for view, weight in zip(views(x, kernel.shape[:-2], geometry), weights, strict=True)
    ]
    y = reduce(add, shares)
    return y.reshape(*y.shape[: x.ndim - 1], features)


def kernel_gradient(x: jax.Array, g: jax.Array, geometry: Geometry, kernel: tuple[int, ...]) -> jax.Array:
    """The gradient of the kernel: for each of its samples, the sum over positions of x there times g."""
    channels, features = x.shape[-1], g.shape[-1]
    shares = g.reshape(*g.shape[:-1], channels, features // channels)
    axes = tuple(range(x.ndim - 1))
    rows = [(view[..., None] * shares).sum(axes) for view in views(x, kernel, geometry)]
    return jnp.stack(rows).reshape(*kernel, 1, features)
