"""Locally connected: the geometry of a convolution, with separate weights at every position."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import jax.numpy as jnp

from .. import geometry
from ..errors import format_shape, layer_path
from ..geometry import Padding
from .conv import check_groups
from .dtypes import plus, together
from .windows import patches

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def locally_connected(
    x: Float[Array, "batch *space channels"],
    kernel: Float[Array, "*out_and_kernel group_channels features"],
    bias: Float[Array, "*out features"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Array, "batch *out features"]:
    r"""Apply a different kernel at every position: a convolution without weight sharing.

    .. math:: y_{n, i, o} = b_{i, o} + \sum_{j, c} x_{n,\, s i + d j - p,\, c} \; w_{i, j, c, o}

    Args:
        x: input, in 1, 2 or 3 space dimensions.
        kernel: the weights of every position.
        bias: added; one for every position and feature.
        stride: as for ``conv``.
        padding: as for ``conv``.
        dilation: as for ``conv``.
        groups: as for ``conv``.

    Shapes:
        x (batch, *space, channels), kernel (*out, *kernel, channels // groups, features), bias (*out, features).

    Returns:
        (batch, *out, features) in the common dtype of the arguments.

    Raises:
        ValueError: shapes that do not match.

    Source:
        LeCun, "Generalization and network design strategies", 1989, Net-3.

    Example:
        >>> x = jnp.ones((1, 3, 3, 1))
        >>> kernel = jnp.arange(4.0).reshape(2, 2, 1, 1, 1, 1) * jnp.ones((2, 2, 2, 2, 1, 1))
        >>> locally_connected(x, kernel).ravel().tolist()   # four positions, sixteen weights
        [0.0, 4.0, 8.0, 12.0]
    """
    with layer_path("locally_connected"):
        x, kernel, bias = together(x, kernel, bias)
        rank = (kernel.ndim - 2) // 2
        if rank not in (1, 2, 3) or kernel.ndim != 2 * rank + 2 or x.ndim != rank + 2:
            raise ValueError(
                f"kernel {format_shape(kernel.shape)} and x {format_shape(x.shape)} do not belong together: "
                "x is (batch, *space, channels), kernel (*out, *kernel, channels // groups, features)"
            )
        channels, features = x.shape[-1], kernel.shape[-1]
        groups = geometry.integer(groups, "groups")
        check_groups(channels, features, groups)
        windows = geometry.slide(
            x.shape[1:-1], kernel.shape[rank : 2 * rank], stride=stride, padding=padding, dilation=dilation
        )
        expected = (*windows.out, *windows.kernel, channels // groups, features)
        if kernel.shape != expected:
            raise ValueError(
                f"kernel has shape {format_shape(kernel.shape)}, x {format_shape(x.shape)} asks for "
                f"{format_shape(expected)}"
            )
        if bias is not None and bias.shape != (*windows.out, features):
            raise ValueError(
                f"bias has shape {format_shape(bias.shape)}, the output asks for "
                f"{format_shape((*windows.out, features))}"
            )
    batch, positions, samples = x.shape[0], prod(windows.out), prod(windows.kernel)
    seen = patches(x, windows)  # (batch, *out, *kernel, channels)
    seen = seen.reshape(batch, positions, samples, groups, channels // groups)
    weights = kernel.reshape(positions, samples, channels // groups, groups, features // groups)
    y = jnp.einsum("npsgc,pscgf->npgf", seen, weights)
    y = y.reshape(batch, *windows.out, features)
    return plus(y, bias)
