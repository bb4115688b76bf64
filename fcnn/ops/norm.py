"""Normalisation of plain arrays over different axes; the arithmetic is in :mod:`fcnn.ops.moments`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import lax

from .. import geometry
from ..errors import format_shape, layer_path
from ..symbolic_sizes import below
from .dtypes import common, floating, wide
from .moments import check_epsilon, normalize, power_of_two, rescale, standardize

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def batch_norm(
    x: Float[Array, "batch *space channels"],
    mean: Float[Array, " channels"],
    variance: Float[Array, " channels"],
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise each channel by given statistics: batch normalisation at inference.

    The formula is that of :func:`normalize`. For training, take mean and variance from
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
        ValueError: statistics for the wrong number of channels, no batch axis, or an epsilon below 0.

    Source:
        Ioffe and Szegedy, "Batch normalization", 2015, algorithm 2.

    Example:
        >>> batch_norm(jnp.array([[3.0, 5.0]]), jnp.array([1.0, 1.0]), jnp.array([1.0, 4.0]), epsilon=0.0).tolist()
        [[2.0, 2.0]]
    """
    with layer_path("batch_norm"):
        x = floating(x)
        _check_batch(x)
        check_epsilon(epsilon)
        _check_channels(x, mean=mean, variance=variance, scale=scale, bias=bias)
    return normalize(x, mean, variance, scale, bias, epsilon=epsilon)


def layer_norm(
    x: Float[Array, "batch *space channels"],
    scale: Float[Array, " *normalized"] | None = None,
    bias: Float[Array, " *normalized"] | None = None,
    *,
    axes: int | Sequence[int] = -1,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise over the channels, at every position separately, or over other axes; formula as in :func:`normalize`.

    Args:
        x: input.
        scale: learned factor; None: 1.
        bias: learned offset; None: 0.
        axes: the axes of x to average over, never the batch. PyTorch's ``normalized_shape=(H, W, C)`` is
            ``axes=(-3, -2, -1)``.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels); scale and bias have the sizes of the axes, in their order in x.

    Returns:
        The shape of x.

    Raises:
        ValueError: scale or bias of the wrong shape, axes that x does not have, or an epsilon below 0.

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016, equation 3.

    Example:
        >>> layer_norm(jnp.array([[1.0, 3.0]]), epsilon=0.0).tolist()
        [[-1.0, 1.0]]
        >>> layer_norm(jnp.array([[[1.0, 1.0], [3.0, 3.0]]]), axes=(-2, -1), epsilon=0.0).tolist()
        [[[-1.0, -1.0], [1.0, 1.0]]]
    """
    with layer_path("layer_norm"):
        x = floating(x)
        check_epsilon(epsilon)
        places = (x.ndim - 1,) if axes == -1 else tuple(1 + axis for axis in example_axes(axes, x.ndim - 1))
        sizes = tuple(x.shape[axis] for axis in places)
        for name, value in (("scale", scale), ("bias", bias)):
            if value is not None and jnp.shape(value) != sizes:
                what = (
                    f"{x.shape[-1]} channels ask" if axes == -1 else f"the axes {axes} of {format_shape(x.shape)} ask"
                )
                raise ValueError(f"{name} has shape {format_shape(jnp.shape(value))}, {what} for {format_shape(sizes)}")
    spread = [n if axis in places else 1 for axis, n in enumerate(x.shape)]
    factor, offset = (None if a is None else jnp.reshape(a, spread) for a in (scale, bias))
    return rescale(standardize(x, places, epsilon=epsilon)[0], factor, offset, common(x, scale, bias))


def group_norm(
    x: Float[Array, "batch *space channels"],
    groups: int,
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise groups of channels over the space, for each example separately; formula as in :func:`normalize`.

    ``groups=1`` normalises the whole example, ``groups=channels`` each channel (instance normalisation).

    Args:
        x: input.
        groups: number of groups; it must divide the number of channels.
        scale: learned factor; None: 1.
        bias: learned offset; None: 0.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels), scale and bias (channels,).

    Returns:
        The shape of x.

    Raises:
        ValueError: groups that do not divide the channels, scale or bias for the wrong number of channels, no batch
            axis, or an epsilon below 0.

    Source:
        Wu and He, "Group normalization", 2018, equation 7.

    Example:
        >>> group_norm(jnp.array([[1.0, 3.0, 10.0, 30.0]]), 2, epsilon=0.0).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """
    with layer_path("group_norm"):
        x = floating(x)
        _check_channels(x, scale=scale, bias=bias)
        _check_batch(x)
        check_epsilon(epsilon)
        check_divides(x.shape[-1], groups)
    split = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    axes = (*range(1, x.ndim - 1), x.ndim)
    normal = standardize(split, axes, epsilon=epsilon)[0].reshape(x.shape)
    return rescale(normal, scale, bias, common(x, scale, bias))


def instance_norm(
    x: Float[Array, "batch *space channels"],
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "batch *space channels"]:
    """Normalise each channel over the space, for each example separately; formula as in :func:`normalize`.

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
        ValueError: no space, scale or bias for the wrong number of channels, or an epsilon below 0.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016, equation 2.

    Example:
        >>> instance_norm(jnp.array([1.0, 3.0]).reshape(1, 2, 1), epsilon=0.0).ravel().tolist()
        [-1.0, 1.0]
    """
    with layer_path("instance_norm"):
        x = floating(x)
        _check_channels(x, scale=scale, bias=bias)
        _check_batch(x)
        check_epsilon(epsilon)
        check_space_varies(x.shape[1:])
    normal = standardize(x, tuple(range(1, x.ndim - 1)), epsilon=epsilon)[0]
    return rescale(normal, scale, bias, common(x, scale, bias))


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

    The formula and the default constants are the paper's. PyTorch and Caffe divide alpha by n: their ``alpha=a`` is
    ``alpha=a / size`` here.

    Args:
        x: input.
        size: n, the number of channels in the neighbourhood.
        alpha: weight of the sum of squares.
        beta: exponent.
        k: offset, above 0.

    Shapes:
        x (batch, *space, channels).

    Returns:
        The shape and dtype of x; computed in float32 or wider.

    Raises:
        ValueError: a size below 1, or an offset below 0.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification", 2012, section 3.3.

    Example:
        >>> local_response_norm(jnp.array([[1.0, 2.0]]), size=1, alpha=1.0, beta=1.0, k=1.0).tolist()
        [[0.5, 0.4000000059604645]]
    """
    with layer_path("local_response_norm"):
        x = floating(x)
        size = geometry.integer(size, "size")
        if not 0 <= k < math.inf:
            raise ValueError(f"k is {k}, it must be finite and not negative: it keeps the divisor away from 0")
    wider, channels = x.astype(wide(x.dtype)), x.shape[-1]
    padded = jnp.pad(wider, [(0, 0)] * (x.ndim - 1) + [(size // 2, (size - 1) // 2)])
    near = [lax.slice_in_dim(padded, j, j + channels, axis=x.ndim - 1) for j in range(size)]
    # divisor = (k s^2 + alpha sum (s x)^2) / s^2 with a power of two s, because squares of large values overflow. Every
    # neighbourhood has its own s, so that a channel affects only the outputs that depend on it.
    largest = jnp.full_like(wider, math.sqrt(k))
    for part in near:
        largest = jnp.maximum(largest, jnp.abs(lax.stop_gradient(part)))
    s = power_of_two(largest)
    outside = power_of_two(largest, beta - 0.5)  # s^(2 beta - 1) as two factors: as one it may underflow
    total = k * s * s + alpha * sum(jnp.square(part * s) for part in near)
    return (wider * s * outside * total**-beta * outside).astype(x.dtype)


def check_divides(channels: int, groups: int) -> None:
    """Raise unless groups divide the channels."""
    if channels % geometry.integer(groups, "groups"):
        raise ValueError(
            f"groups {groups} do not divide {channels} channels; the groups must be of equal size; "
            f"use a divisor of {channels}"
        )


def check_variance(count: int, shape: geometry.Shape, place: str, way_out: str) -> None:
    """Raise where a norm would be taken over a single value, which would map every input to zero."""
    if below(count, 2):
        raise ValueError(
            f"an input of {format_shape(shape)} has one value {place} and so no variance: every output would be the "
            f"same; {way_out}"
        )


def check_space_varies(shape: geometry.Shape) -> None:
    """Raise unless the space has several samples."""
    check_variance(
        math.prod(shape[:-1]), shape, "for each channel", "normalise before Flatten or global pooling, or use LayerNorm"
    )


def example_axes(axes: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Convert axes of an array with a batch and ``rank`` other axes to axes of one example.

    Raises:
        ValueError: the batch axis, an axis that does not exist, or an axis given twice.

    Example:
        >>> example_axes((-1, 1), 3)
        (0, 2)
    """
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    found = sorted(axis + rank if axis < 0 else axis - 1 for axis in given)
    if not all(0 <= axis < rank for axis in found) or len(set(found)) < len(found):
        raise ValueError(
            f"axes {axes} do not fit an array of {rank + 1} axes; give different ones from 1 to {rank}, or from "
            f"{-rank} to -1; axis 0 is the batch"
        )
    return tuple(found)


def _check_batch(x: Array) -> None:
    if x.ndim < 2:
        raise ValueError(
            f"x has shape {format_shape(x.shape)}, expected (batch, *space, channels); one example alone needs a batch "
            "axis, x[None]"
        )


def _check_channels(x: Array, **vectors: Array | None) -> None:
    channels = jnp.shape(x)[-1]
    for name, value in vectors.items():
        if value is not None and jnp.shape(value) != (channels,):
            raise ValueError(
                f"{name} has shape {format_shape(jnp.shape(value))}, {channels} channels ask for "
                f"{format_shape((channels,))}"
            )
