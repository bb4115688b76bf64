r"""Convolution with large kernels by Fourier transforms, whose cost does not grow with the kernel.

.. math:: y = F^{-1} \left( F x \cdot \overline{F w} \right)

summed over channels: a small matrix product for every frequency. Circular correlation agrees with the linear one at all
positions whose windows lie inside the (padded) data. The rounding error of every output is proportional to the largest
sample of the example, even one outside its window; ``locality`` keeps that small.

Source:
    Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs", 2014.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...geometry import Shape
from .conv_geometry import Geometry
from .patches import padded


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, channels, features), stride 1, one group."""
    rank, sizes = geometry.rank, kernel.shape[:-2]
    out = geometry.out(x.shape[1:-1], sizes)
    lengths = period(x.shape[1:-1], sizes, geometry)
    spectrum = jnp.fft.rfftn(padded(x, geometry), lengths, axes=tuple(range(1, rank + 1)))
    weights = jnp.conj(jnp.fft.rfftn(kernel, lengths, axes=tuple(range(rank))))
    product = jnp.einsum("n...c,...co->n...o", spectrum, weights)
    y = jnp.fft.irfftn(product, lengths, axes=tuple(range(1, rank + 1)))
    return y[(slice(None), *(slice(0, n) for n in out))]


def period(space: Shape, kernel: Shape, geometry: Geometry) -> Shape:
    """The lengths of the transforms for x with this space."""
    axes = zip(space, geometry.pads, kernel, strict=True)
    return tuple(next_fast(max(n + lo + hi, k)) for n, (lo, hi), k in axes)


def next_fast(size: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5, for which transforms are fast.

    Example:
        >>> [next_fast(n) for n in (7, 31, 64, 67)]
        [8, 32, 64, 72]
    """
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1
