"""Operations on the channels of plain arrays, at every position separately."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from ..errors import format_shape, layer_path
from ..native import native
from .dtypes import beside, together, wide
from .moments import rescale
from .norm import check_divides

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Shaped


def prelu(x: Float[Array, "... channels"], slope: Float[Array, ...]) -> Float[Array, "... channels"]:
    r"""A rectifier with a learned slope for negative inputs.

    .. math:: y_{\dots, c} = \max(x_{\dots, c}, 0) + a_c \min(x_{\dots, c}, 0)

    The derivative at 0 is that of the negative side, as in PyTorch.

    Args:
        x: input.
        slope: a, one number or one for each channel.

    Shapes:
        x (..., channels), slope () or (1,) or (channels,).

    Returns:
        The shape of x, in the common dtype of the arguments; half precision is computed in float32 and rounded once.

    Raises:
        ValueError: the number of slopes is neither 1 nor the number of channels.

    Source:
        He et al., "Delving deep into rectifiers", 2015, equation 1.

    Example:
        >>> prelu(jnp.array([[-2.0, -2.0, 3.0]]), jnp.array([0.5, 0.25, 0.5])).tolist()
        [[-1.0, -0.5, 3.0]]
    """
    with layer_path("prelu"):
        x, slope = together(x, slope)
        if slope.shape not in ((), (1,), x.shape[-1:]):
            raise ValueError(
                f"slope has shape {format_shape(slope.shape)}, x has shape {format_shape(x.shape)}; give one number, "
                "or one for each of the channels, which are the last axis of x"
            )
    dtype = wide(x.dtype)
    wider, zero = x.astype(dtype), jnp.zeros((), dtype)
    # two selections, so that positive numbers, which may be infinite, do not enter the slope's gradient
    positive, rest = jnp.where(wider > 0, wider, zero), jnp.where(wider > 0, zero, wider)
    return (positive + beside(slope.astype(dtype), x) * rest).astype(x.dtype)


def scale_channels(
    x: Float[Array, "... channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"] | None = None,
) -> Float[Array, "... channels"]:
    r"""Multiply each channel by its own factor, and add its own offset.

    .. math:: y_{\dots, c} = \gamma_c \, x_{\dots, c} + b_c

    Args:
        x: input.
        scale: the factors.
        bias: the offsets; None: there are none.

    Shapes:
        x (..., channels), scale and bias (channels,).

    Returns:
        The shape of x, in the common dtype of the arguments; half precision is computed in float32 and rounded once.

    Raises:
        ValueError: the number of factors or offsets is not the number of channels.

    Source:
        Touvron et al., "Going deeper with image transformers", 2021, equation 4 ("LayerScale"); Liu et al., "A ConvNet
        for the 2020s", 2022, uses it in every block.

    Example:
        >>> scale_channels(jnp.array([[2.0, 3.0]]), jnp.array([0.5, 2.0])).tolist()
        [[1.0, 6.0]]
        >>> scale_channels(jnp.array([[2.0, 3.0]]), jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0])).tolist()
        [[2.0, 5.0]]
    """
    with layer_path("scale_channels"):
        given = {"scale": scale} if bias is None else {"scale": scale, "bias": bias}
        x, *arrays = together(x, *given.values())
        for (name, _), array in zip(given.items(), arrays, strict=True):
            if array.shape != x.shape[-1:]:
                what = "factor" if name == "scale" else "offset"
                raise ValueError(
                    f"{name} has shape {format_shape(array.shape)}, x has shape {format_shape(x.shape)}; give one "
                    f"{what} for each of the channels, which are the last axis of x"
                )
    return rescale(x, arrays[0], None if bias is None else arrays[1], x.dtype)


def channel_shuffle(x: Shaped[Array, "... channels"], groups: int) -> Shaped[Array, "... channels"]:
    r"""Distribute the channels of every group over all groups, so that grouped convolutions exchange information.

    .. math:: y_{\dots,\, g j + i} = x_{\dots,\, (C / g) i + j}, \qquad 0 \le i < g, \quad 0 \le j < C / g

    Args:
        x: input.
        groups: g, a divisor of the C channels.

    Shapes:
        x (..., channels).

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: groups that do not divide the channels.

    Source:
        Zhang et al., "ShuffleNet", 2018, section 3.1.

    Example:
        >>> channel_shuffle(jnp.arange(6.0)[None], 2).tolist()
        [[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]]
    """
    with layer_path("channel_shuffle"):
        x = jnp.asarray(native(x))
        check_divides(x.shape[-1], groups)
    apart = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return jnp.swapaxes(apart, -1, -2).reshape(x.shape)
