"""Convolution as one matrix product: the samples of every window (patches, im2col) times the kernel."""

from __future__ import annotations

from itertools import product
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from ...geometry import Shape
from ..noinline import noinline
from .conv_geometry import Geometry

#: with fewer channels than this, the runs to copy for every sample of every patch are too short
LONG_RUN = 16


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, channels // groups, features).

    Groups are the batch of a batched product. A kernel of one sample needs no patches.
    """
    depth, features = kernel.shape[-2:]
    groups = geometry.groups
    seen = views(x, kernel.shape[:-2], geometry)  # for every kernel sample (batch, *out, channels)
    lead = seen[0].shape[:-1]
    if groups == 1:
        wide = seen[0] if len(seen) == 1 else jnp.concatenate(seen, -1)  # (batch, *out, samples * channels)
        return lax.dot_general(wide, kernel.reshape(-1, features), (((wide.ndim - 1,), (0,)), ((), ())))
    parts = [view.reshape(-1, groups, depth) for view in seen]
    wide = parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)  # (batch * out, groups, samples * depth)
    weights = kernel.reshape(len(seen) * depth, groups, features // groups)
    y = lax.dot_general(wide, weights, (((2,), (0,)), ((1,), (1,))))  # (groups, batch * out, features // groups)
    return y.swapaxes(0, 1).reshape(*lead, features)


def kernel_gradient(x: jax.Array, g: jax.Array, geometry: Geometry, kernel: Shape) -> jax.Array:
    """The gradient of a kernel of one group over few channels, on the CPU: the inputs at every kernel sample times g.

    Channels come first and positions last, so that the inputs at a kernel sample are one long run of memory, not one
    short run for each position.
    """
    rank = geometry.rank
    by_channel = noinline(lambda x: padded(x, geometry).transpose(rank + 1, *range(rank + 1)), x)

    def side_by_side(x: jax.Array) -> jax.Array:
        out = geometry.out(by_channel_space, kernel)
        found = []
        for offset in product(*map(range, kernel)):
            starts = [j * d for j, d in zip(offset, geometry.dilation, strict=True)]
            limits = [a + (n - 1) * s + 1 for a, n, s in zip(starts, out, geometry.stride, strict=True)]
            found.append(lax.slice(x, (0, 0, *starts), (*x.shape[:2], *limits), (1, 1, *geometry.stride)))
        return jnp.concatenate(found).reshape(prod(kernel) * x.shape[0], -1)

    by_channel_space = x.shape[1:-1]
    rows = lax.dot_general(noinline(side_by_side, by_channel), g.reshape(-1, g.shape[-1]), (((1,), (0,)), ((), ())))
    return rows.reshape(*kernel, x.shape[-1], g.shape[-1])


def views(x: jax.Array, kernel: Shape, geometry: Geometry) -> list[jax.Array]:
    """For every sample of the kernel, its inputs at all positions: strided slices of the padded x."""
    return views_of_padded(padded(x, geometry), kernel, geometry, geometry.out(x.shape[1:-1], kernel))


def views_of_padded(x: jax.Array, kernel: Shape, geometry: Geometry, out: Shape) -> list[jax.Array]:
    """:func:`views` of x that is already padded."""
    found = []
    for offset in product(*map(range, kernel)):
        starts = [j * d for j, d in zip(offset, geometry.dilation, strict=True)]
        limits = [a + (n - 1) * s + 1 for a, n, s in zip(starts, out, geometry.stride, strict=True)]
        found.append(lax.slice(x, (0, *starts, 0), (x.shape[0], *limits, x.shape[-1]), (1, *geometry.stride, 1)))
    return found


def padded(x: jax.Array, geometry: Geometry) -> jax.Array:
    """X with its padding, and with the zeros of the input dilation between its samples."""
    spread = zip(geometry.pads, geometry.input_dilation, strict=True)
    widths = [(0, 0, 0), *((lo, hi, u - 1) for (lo, hi), u in spread), (0, 0, 0)]
    return x if widths == [(0, 0, 0)] * x.ndim else lax.pad(x, jnp.zeros((), x.dtype), widths)
