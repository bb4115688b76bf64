"""A convolution as several that XLA:CPU computes fast: one for each group, or two-dimensional ones instead of 3-D.

XLA:CPU computes grouped and three-dimensional convolutions with plain loops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from ...geometry import Shape
from .conv_geometry import Geometry

#: computes the result of (x, kernel), or the kernel gradient of (x, g), for a simpler geometry
_Compute = Callable[[jax.Array, jax.Array, Geometry], jax.Array]


def by_group(compute: _Compute, x: jax.Array, other: jax.Array, geometry: Geometry) -> jax.Array:
    """Compute every group separately: its channels of x, and its features of the kernel or of the output gradient."""
    one, groups = replace(geometry, groups=1), geometry.groups
    pairs = zip(jnp.split(x, groups, -1), jnp.split(other, groups, -1), strict=True)
    return jnp.concatenate([compute(a, b, one) for a, b in pairs], -1)


def forward_by_depth(compute: _Compute, x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolve x (batch, depth, height, width, channels) in 2-D: slices of x become channels for each result slice."""
    wide, flat = _beside(x, kernel.shape[:-2], geometry)
    sizes, features = kernel.shape[1:3], kernel.shape[-1]
    y = compute(wide, jnp.moveaxis(kernel, 0, 2).reshape(*sizes, wide.shape[-1], features), flat)
    depth = geometry.out(x.shape[1:-1], kernel.shape[:-2])[0]
    return y.reshape(x.shape[0], depth, *y.shape[1:])


def kernel_by_depth(compute: _Compute, x: jax.Array, g: jax.Array, geometry: Geometry, kernel: Shape) -> jax.Array:
    """The kernel gradient in the same way."""
    wide, flat = _beside(x, kernel, geometry)
    share = compute(wide, g.reshape(g.shape[0] * g.shape[1], *g.shape[2:]), flat)
    return jnp.moveaxis(share.reshape(*kernel[1:], kernel[0], x.shape[-1], g.shape[-1]), 2, 0)


def _beside(x: jax.Array, kernel: Shape, geometry: Geometry) -> tuple[jax.Array, Geometry]:
    """The slices that each slice of the result depends on, concatenated as channels, and the geometry in 2-D."""
    out = geometry.out(x.shape[1:-1], kernel)[0]
    widths = [(0, 0, 0), (*geometry.pads[0], geometry.input_dilation[0] - 1), *[(0, 0, 0)] * 3]
    x = lax.pad(x, jnp.zeros((), x.dtype), widths)
    step, places = geometry.stride[0], [j * geometry.dilation[0] for j in range(kernel[0])]
    seen = [lax.slice_in_dim(x, a, a + (out - 1) * step + 1, step, 1) for a in places]
    wide = jnp.concatenate(seen, -1)
    flat = Geometry(
        geometry.stride[1:], geometry.pads[1:], geometry.dilation[1:], 1, geometry.input_dilation[1:], (1, 1)
    )
    return wide.reshape(x.shape[0] * out, *wide.shape[2:]), flat
