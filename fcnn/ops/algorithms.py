"""The one place that decides how a convolution is computed.

Every convolution of the library, plain, transposed, in a layer or on plain arrays, ends in :func:`convolve`
with its geometry already resolved to integers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ..geometry import Pads, Shape

_AXES = "DHW"


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Shape,
    pads: Pads,
    dilation: Shape,
    groups: int,
    input_dilation: Shape | None = None,
) -> jax.Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, channels // groups, features).

    Args:
        x: input; same dtype as the kernel.
        kernel: kernel.
        stride: step for each space axis.
        pads: zeros (before, after) for each space axis; negative numbers crop.
        dilation: distance between kernel samples for each space axis.
        groups: number of groups that channels and features are split into.
        input_dilation: distance between input samples, for transposed convolutions; None: 1.

    Returns:
        (batch, *out, features).
    """
    x, pads, crop = _around_the_swap(x, kernel, stride, pads, dilation, input_dilation)
    axes = _AXES[-len(stride) :]
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=pads,
        lhs_dilation=input_dilation,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )
    return y[(slice(None), *crop)] if crop else y


def _around_the_swap(
    x: jax.Array, kernel: jax.Array, stride: Shape, pads: Pads, dilation: Shape, input_dilation: Shape | None
) -> tuple[jax.Array, Pads, list[slice]]:
    """Write padding another way where XLA:CPU would end the process.

    The pass that swaps the operands of a convolution (jaxlib 0.10.2) takes an axis with kernel 2, stride 2 and
    padding 1 for an axis of groups, whatever its size; where it swaps, a failed check ends the process. The same
    holds for the gradient and for the transposed convolution. Padding x beforehand, or padding more and cropping
    the result, keeps such axes out of the convolution that XLA sees.
    """
    rank = len(stride)
    crop = [slice(None)] * rank
    cropped = False
    for axis in range(rank):
        if kernel.shape[axis] != 2 or dilation[axis] != 1:
            continue
        if input_dilation is None and stride[axis] == 2 and pads[axis][0] == 1:
            widths = [(0, 0, 0)] * (rank + 2)
            widths[axis + 1] = (*pads[axis], 0)
            x = lax.pad(x, jnp.zeros((), x.dtype), widths)
            pads = (*pads[:axis], (0, 0), *pads[axis + 1 :])
        elif input_dilation is not None and input_dilation[axis] == 2 and tuple(pads[axis]) == (0, 0):
            pads = (*pads[:axis], (1, 1), *pads[axis + 1 :])
            crop[axis] = slice(1, -1)
            cropped = True
    return x, pads, crop if cropped else []
