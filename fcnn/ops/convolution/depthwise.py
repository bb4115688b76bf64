"""Depthwise convolution as multiplications and additions of shifted copies of the input.

Every feature depends on one channel, so a matrix product would have nothing to sum over.
"""

from __future__ import annotations

from functools import partial, reduce
from math import prod
from operator import add

import jax
import jax.numpy as jnp

from ...geometry import Shape
from ...symbolic_sizes import symbolic
from ..dtypes import beside
from ..noinline import noinline
from .conv_geometry import Geometry
from .patches import padded, views, views_of_padded

#: number of parts of the batch whose products are added elementwise before they are summed: a sum in registers
_PARTS = 8


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry, *, cpu: bool = False) -> jax.Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, 1, channels * multiplier)."""
    features, channels = kernel.shape[-1], x.shape[-1]
    weights = kernel.reshape(-1, channels, features // channels)
    shares = [
        view * beside(weight[:, 0], view) if features == channels else view[..., None] * beside(weight, view[..., None])
        for view, weight in zip(_views(x, kernel.shape[:-2], geometry, cpu), weights, strict=True)
    ]
    y = reduce(add, shares)
    return y.reshape(*y.shape[: x.ndim - 1], features)


def kernel_gradient(x: jax.Array, g: jax.Array, geometry: Geometry, kernel: Shape, *, cpu: bool = False) -> jax.Array:
    """The gradient of the kernel: for each of its samples, the sum over positions of x there times g."""
    channels, features = x.shape[-1], g.shape[-1]
    axes = tuple(range(x.ndim - 1))
    if cpu and features == channels and not symbolic(x.shape[0]):
        wide, out = noinline(partial(padded, geometry=geometry), x), g.shape[1:-1]

        def share(number: int) -> jax.Array:
            parts = noinline(lambda x, g: _product(views_of_padded(x, kernel, geometry, out)[number], g), wide, g)
            return noinline(lambda parts: reduce(add, list(parts)), parts).sum(axes[:-1])

        rows = [share(number) for number in range(prod(kernel))]
    else:
        shares = g.reshape(*g.shape[:-1], channels, features // channels)
        rows = [(view[..., None] * shares).sum(axes) for view in _views(x, kernel, geometry, cpu)]
    return jnp.stack(rows).reshape(*kernel, 1, features)


def _views(x: jax.Array, kernel: Shape, geometry: Geometry, cpu: bool) -> list[jax.Array]:
    """The views of x; on the CPU x is padded first, or every view would test every border for every number."""
    if not cpu:
        return views(x, kernel, geometry)
    wide = noinline(partial(padded, geometry=geometry), x)
    return views_of_padded(wide, kernel, geometry, geometry.out(x.shape[1:-1], kernel))


def _product(x: jax.Array, g: jax.Array) -> jax.Array:
    """X times g, summed over the parts of the batch."""
    size = -(-x.shape[0] // _PARTS)
    starts = range(0, x.shape[0], size)
    products = [x[a : a + size] * g[a : a + size] for a in starts]
    last = products[-1]
    if last.shape[0] < size:
        products[-1] = jnp.pad(last, ((0, size - last.shape[0]), *[(0, 0)] * (x.ndim - 1)))
    return reduce(add, products)
