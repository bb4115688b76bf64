"""Convolution and its two gradients by XLA's own operation, in the layout of its fast paths.

XLA:CPU converts other layouts to this one only at the top level of a program. In the body of a loop it computes them
unconverted, with plain loops. JAX's own gradients use other layouts, so both gradients are written here as convolutions
that already have the fast layout.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ...geometry import Pads, Shape, extent
from ...symbolic_sizes import assumed, symbolic
from .conv_geometry import Geometry

_AXES = "DHW"
#: XLA:CPU passes most 2-D convolutions to YNNPACK, which takes twice as long as Eigen's convolution with many channels
#: and few features
_SLOW_CHANNELS, _SLOW_FEATURES = 16, 64


def forward(x: jax.Array, kernel: jax.Array, geometry: Geometry, *, avoid_ynnpack: bool = False) -> jax.Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, channels // groups, features)."""
    x, pads, crop = _around_the_swap(x, kernel, geometry)
    stride, input_dilation, dilation = geometry.stride, geometry.input_dilation, geometry.dilation
    if avoid_ynnpack and not crop and _slow_in_ynnpack(x, kernel, geometry):
        # double all distances along the first axis: the same products, in a form that YNNPACK does not accept
        stride, dilation, input_dilation = ((2 * a[0], *a[1:]) for a in (stride, dilation, input_dilation))
        pads = ((2 * pads[0][0], 2 * pads[0][1]), *pads[1:])
    if any(symbolic(n) for pair in pads for n in pair):  # XLA's convolution takes no symbolic padding
        widths = [(*pair, u - 1) for pair, u in zip(pads, input_dilation, strict=True)]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *widths, (0, 0, 0)])
        pads, input_dilation = ((0, 0),) * geometry.rank, (1,) * geometry.rank
    axes = _AXES[-geometry.rank :]
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=pads,
        lhs_dilation=input_dilation,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=geometry.groups,
    )
    return y[(slice(None), *crop)] if crop else y


def turned(kernel: jax.Array, groups: int) -> jax.Array:
    """The kernel (*kernel, channels // groups, features) flipped, as (*kernel, features // groups, channels)."""
    *sizes, channels, features = kernel.shape
    rank = len(sizes)
    kernel = jnp.flip(kernel, tuple(range(rank)))
    if groups == 1:
        return kernel.swapaxes(-1, -2)
    kernel = kernel.reshape(*sizes, channels, groups, features // groups)
    return jnp.moveaxis(kernel, rank, rank + 2).swapaxes(rank, rank + 1).reshape(*sizes, features // groups, -1)


def kernel_gradient(
    x: jax.Array, g: jax.Array, geometry: Geometry, kernel: Shape, *, avoid_ynnpack: bool = False
) -> jax.Array:
    """The gradient of a kernel of one group: x with channels as batch, cross-correlated with g, batch as channels."""
    space = x.shape[1:-1]
    pads = []
    axes = zip(space, geometry.out(space, kernel), geometry.spans(kernel), geometry.pads, strict=True)
    for (n, out, span, (lo, _)), s, u in zip(axes, geometry.stride, geometry.input_dilation, strict=True):
        pads.append((lo, span - 1 + extent(out, s) - lo - extent(n, u)))
    swapped = Geometry(
        geometry.dilation, tuple(pads), geometry.stride, 1, geometry.input_dilation, (1,) * geometry.rank
    )
    last = geometry.rank + 1
    by_channel = jnp.moveaxis(x, (0, last), (last, 0))  # (channels, *space, batch)
    windows = jnp.moveaxis(g, 0, geometry.rank)  # (*out, batch, features)
    return jnp.moveaxis(forward(by_channel, windows, swapped, avoid_ynnpack=avoid_ynnpack), 0, geometry.rank)


def _slow_in_ynnpack(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> bool:
    channels, features = assumed(x.shape[-1], _SLOW_CHANNELS), assumed(kernel.shape[-1], _SLOW_FEATURES)
    few = channels >= _SLOW_CHANNELS and features <= _SLOW_FEATURES
    return geometry.rank == 2 and few and geometry.input_dilation == (1, 1) and x.dtype == jnp.float32


def _around_the_swap(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> tuple[jax.Array, Pads, list[slice]]:
    """Rewrite padding that would make XLA:CPU abort the process.

    The pass that swaps the operands of a convolution (jaxlib 0.10.2) mistakes an axis with kernel 2, stride 2 and
    padding 1 for an axis of groups, whatever its size; if it then swaps, a failed check aborts the process. The same
    holds for the gradient and for the transposed convolution. Padding x beforehand, or padding more and cropping the
    result, hides such axes from XLA.
    """
    pads, crop, cropped = geometry.pads, [slice(None)] * geometry.rank, False
    for axis in range(geometry.rank):
        if kernel.shape[axis] != 2 or geometry.dilation[axis] != 1:
            continue
        spread = geometry.input_dilation[axis]
        if spread == 1 and geometry.stride[axis] == 2 and pads[axis][0] == 1:
            widths = [(0, 0, 0)] * x.ndim
            widths[axis + 1] = (*pads[axis], 0)
            x = lax.pad(x, jnp.zeros((), x.dtype), widths)
            pads = (*pads[:axis], (0, 0), *pads[axis + 1 :])
        elif spread == 2 and geometry.stride[axis] == 1 and tuple(pads[axis]) == (0, 0):
            pads = (*pads[:axis], (1, 1), *pads[axis + 1 :])
            crop[axis] = slice(1, -1)
            cropped = True
    return x, pads, crop if cropped else []
