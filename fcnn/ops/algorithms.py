"""The one place that decides how a convolution is computed.

Every convolution of the library, plain, transposed, in a layer or on plain arrays, ends in :func:`convolve`
with its geometry already resolved to integers.
"""

from __future__ import annotations

import jax
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
    axes = _AXES[-len(stride) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=pads,
        lhs_dilation=input_dilation,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )
