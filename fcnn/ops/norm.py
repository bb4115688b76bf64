"""Normalisation of plain arrays. Statistics are kept in float32 or wider."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import lax

from .. import geometry
from ..errors import at, shown
from .dtypes import common, floating, wide

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def moments(x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    r"""Mean and biased variance over axes, kept as axes of size 1.

    .. math:: \mu = \tfrac{1}{m} \sum x, \qquad \sigma^2 = \tfrac{1}{m} \sum (x - \mu)^2

    Two passes: the difference of mean squares would lose its digits where the mean is large.

    Args:
        x: input.
        axes: the axes averaged over.

    Returns:
        (mean, variance) in float32 or wider.

    Example:
        >>> mean, variance = moments(jnp.array([1.0, 3.0]), (0,))
        >>> mean.tolist(), variance.tolist()
        ([2.0], [1.0])
    """
    x = jnp.asarray(x)
    x = x.astype(wide(x.dtype))
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


def normalize(
    x: Array, mean: Array, variance: Array, scale: Array | None = None, bias: Array | None = None, *, epsilon: float
) -> Array:
    r"""Shift and scale to the given statistics, then by the learned ones.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Args:
        x: input.
        mean: :math:`\mu`, of a shape that broadcasts with x.
        variance: :math:`\sigma^2`, likewise.
        scale: :math:`\gamma`, likewise; None: 1.
        bias: :math:`\beta`, likewise; None: 0.
        epsilon: keeps the root away from 0.

    Returns:
        The shape of x, in the common dtype of x, scale and bias; computed in float32 or wider.

    Example:
        >>> normalize(jnp.array([1.0, 3.0]), 2.0, 1.0, epsilon=0.0).tolist()
        [-1.0, 1.0]
    """
    x = jnp.asarray(x)
    result = common(x, scale, bias)
    dtype = wide(result)
    y = (x.astype(dtype) - jnp.asarray(mean, dtype)) * lax.rsqrt(jnp.asarray(variance, dtype) + epsilon)
    if scale is not None:
        y = y * jnp.asarray(scale, dtype)
    if bias is not None:
        y = y + jnp.asarray(bias, dtype)
    return y.astype(result)


def batch_norm(
    x: Float[Array, "batch *space channels"],
    mean: Float[Array, " channels"],
    variance: Float[Array, " channels"],
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise each channel by statistics that are given: batch normalisation at inference.

    Formula as :func:`normalize`. For training take mean and variance from
    ``moments(x, axes)`` over the batch and space axes.

    Args:
        x: input.
        mean: mean of each channel.
        variance: variance of each channel.
        scale: learned factor; None: 1.
        bias: learned offset; None: 0.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels), all others (channels,).

    Returns:
        The shape of x.

    Raises:
        ValueError: statistics of another number of channels.

    Source:
        Ioffe and Szegedy, "Batch normalization", 2015, algorithm 2.

    Example:
        >>> batch_norm(jnp.array([[3.0, 5.0]]), jnp.array([1.0, 1.0]), jnp.array([1.0, 4.0]), epsilon=0.0).tolist()
        [[2.0, 2.0]]
    """
    with at("batch_norm"):
        x = floating(x)
        _check_channels(x, mean=mean, variance=variance, scale=scale, bias=bias)
    return normalize(x, mean, variance, scale, bias, epsilon=epsilon)


def layer_norm(
    x: Float[Array, "batch *space channels"],
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise over the channels, at every position by itself. Formula as :func:`normalize`.

    Args:
        x: input.
        scale: learned factor; None: 1.
        bias: learned offset; None: 0.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels), scale and bias (channels,).

    Returns:
        The shape of x.

    Raises:
        ValueError: scale or bias of another number of channels.

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016, equation 3.

    Example:
        >>> layer_norm(jnp.array([[1.0, 3.0]]), epsilon=0.0).tolist()
        [[-1.0, 1.0]]
    """
    with at("layer_norm"):
        x = floating(x)
        _check_channels(x, scale=scale, bias=bias)
    return normalize(x, *moments(x, (-1,)), scale, bias, epsilon=epsilon)


def group_norm(
    x: Float[Array, "batch *space channels"],
    groups: int,
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise groups of channels over the space, for each example by itself. Formula as :func:`normalize`.

    ``groups=1`` normalises the whole example, ``groups=channels`` each channel (instance normalisation).

    Args:
        x: input.
        groups: number of groups; they must divide the channels.
        scale: learned factor; None: 1.
        bias: learned offset; None: 0.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels), scale and bias (channels,).

    Returns:
        The shape of x.

    Raises:
        ValueError: groups that do not divide, or scale or bias of another number of channels.

    Source:
        Wu and He, "Group normalization", 2018, equation 7.

    Example:
        >>> group_norm(jnp.array([[1.0, 3.0, 10.0, 30.0]]), 2, epsilon=0.0).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """
    with at("group_norm"):
        x = floating(x)
        _check_channels(x, scale=scale, bias=bias)
        check_divides(x.shape[-1], groups)
    split = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    axes = (*range(1, x.ndim - 1), x.ndim)
    mean, variance = (
        jnp.broadcast_to(m, (*m.shape[:-1], split.shape[-1])).reshape(*m.shape[:-2], x.shape[-1])
        for m in moments(split, axes)
    )
    return normalize(x, mean, variance, scale, bias, epsilon=epsilon)


def instance_norm(
    x: Float[Array, "batch *space channels"],
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise each channel over the space, for each example by itself. Formula as :func:`normalize`.

    Args:
        x: input with at least one space axis.
        scale: learned factor; None: 1.
        bias: learned offset; None: 0.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels), scale and bias (channels,).

    Returns:
        The shape of x.

    Raises:
        ValueError: no space, or scale or bias of another number of channels.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016, equation 2.

    Example:
        >>> instance_norm(jnp.array([1.0, 3.0]).reshape(1, 2, 1), epsilon=0.0).ravel().tolist()
        [-1.0, 1.0]
    """
    with at("instance_norm"):
        x = floating(x)
        _check_channels(x, scale=scale, bias=bias)
        check_space_varies(x.shape[1:])
    return normalize(x, *moments(x, tuple(range(1, x.ndim - 1))), scale, bias, epsilon=epsilon)


def local_response_norm(
    x: Float[Array, "batch *space channels"],
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
) -> Float[Array, "batch *space channels"]:
    r"""Divide by the activity of neighbouring channels at the same position.

    .. math:: y_i = x_i \Big/ \Bigl(k + \alpha \sum_{j = i - \lfloor n/2 \rfloor}^{i + \lfloor (n - 1)/2 \rfloor}
        x_j^2 \Bigr)^\beta

    The paper's formula and constants. PyTorch and Caffe divide alpha by n: their ``alpha=a`` is
    ``alpha=a / size`` here.

    Args:
        x: input.
        size: channels in the neighbourhood, n.
        alpha: weight of the sum of squares.
        beta: exponent.
        k: offset, above 0.

    Shapes:
        x (batch, *space, channels).

    Returns:
        The shape and dtype of x; computed in float32 or wider.

    Raises:
        ValueError: a size below 1.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification", 2012, section 3.3.

    Example:
        >>> local_response_norm(jnp.array([[1.0, 2.0]]), size=1, alpha=1.0, beta=1.0, k=1.0).tolist()
        [[0.5, 0.4000000059604645]]
    """
    with at("local_response_norm"):
        x = floating(x)
        size = geometry.integer(size, "size")
    wider = x.astype(wide(x.dtype))
    squares = jnp.pad(jnp.square(wider), [(0, 0)] * (x.ndim - 1) + [(size // 2, (size - 1) // 2)])
    channels = x.shape[-1]
    total = sum(lax.slice_in_dim(squares, j, j + channels, axis=x.ndim - 1) for j in range(size))
    return (wider * (k + alpha * total) ** -beta).astype(x.dtype)


def check_divides(channels: int, groups: int) -> None:
    """Raise unless groups divide the channels."""
    if channels % geometry.integer(groups, "groups"):
        raise ValueError(
            f"groups {groups} do not divide {channels} channels; the groups must be of equal size; "
            f"use a divisor of {channels}"
        )


def check_variance(count: int, shape: geometry.Shape, place: str, way_out: str) -> None:
    """Raise where a norm would see a single value and so turn every input to zero."""
    if geometry.below(count, 2):
        raise ValueError(
            f"an input of {shown(shape)} has one value {place} and so no variance: every output would be the same; "
            f"{way_out}"
        )


def check_space_varies(shape: geometry.Shape) -> None:
    """Raise unless there are several samples in the space."""
    check_variance(
        math.prod(shape[:-1]), shape, "for each channel", "normalise before Flatten or global pooling, or use LayerNorm"
    )


def _check_channels(x: Array, **vectors: Array | None) -> None:
    channels = jnp.shape(x)[-1]
    for name, value in vectors.items():
        if value is not None and jnp.shape(value) != (channels,):
            raise ValueError(
                f"{name} has shape {shown(jnp.shape(value))}, {channels} channels ask for {shown((channels,))}"
            )
