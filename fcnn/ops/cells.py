"""Pooling of plain arrays over contiguous blocks: whole spaces, a grid of cells, groups of channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import lax

from .. import geometry
from ..errors import format_shape, layer_path
from ..native import native
from .dtypes import floating, wide

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def global_max_pool(x: Float[Array, "batch *space channels"]) -> Float[Array, "batch channels"]:
    """The largest value of each channel over the whole space; among equal values the first gets the gradient.

    Args:
        x: input with at least one space axis.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, channels), dtype of x.

    Raises:
        ValueError: no space axis.

    Source:
        Oquab et al., "Is object localization for free?", 2015, section 3.2.

    Example:
        >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
        [[6.0, 7.0]]
    """
    with layer_path("global_max_pool"):
        x = jnp.asarray(native(x))
        check_has_space(x.shape[1:])
    return _first_max(x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]), 1)


def global_avg_pool(x: Float[Array, "batch *space channels"]) -> Float[Array, "batch channels"]:
    r"""The mean of each channel over the whole space.

    Args:
        x: input with at least one space axis.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, channels), dtype of x; half precision is summed in float32.

    Raises:
        ValueError: no space axis.

    Source:
        Lin, Chen and Yan, "Network in network", 2014, section 3.2.

    Example:
        >>> global_avg_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
        [[3.0, 4.0]]
    """
    with layer_path("global_avg_pool"):
        x = floating(x)
        check_has_space(x.shape[1:])
    return jnp.mean(x, tuple(range(1, x.ndim - 1)), dtype=wide(x.dtype)).astype(x.dtype)


def adaptive_avg_pool(
    x: Float[Array, "batch *space channels"], out: int | Sequence[int | None]
) -> Float[Array, "batch *out channels"]:
    r"""The mean of each cell of a grid of ``out`` cells over the space.

    Cell i of an axis of M samples and m cells runs from :math:`\lfloor i M / m \rfloor` to
    :math:`\lceil (i + 1) M / m \rceil`; cells may overlap by a sample.

    Args:
        x: input.
        out: cells along each axis; an integer applies to every axis, None keeps an axis unchanged, such as (None, 4).

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x; half precision is summed in float32.

    Raises:
        ValueError: no space axis, or a size below 1.

    Source:
        He et al., "Spatial pyramid pooling", 2014; the cells are those of torch.nn.AdaptiveAvgPool2d.

    Example:
        >>> adaptive_avg_pool(jnp.arange(5.0).reshape(1, 5, 1), 2).ravel().tolist()
        [1.0, 3.0]
    """
    with layer_path("adaptive_avg_pool"):
        x = floating(x)
        out = _cells_wanted(x, out)
    mean = _over_cells(x.astype(wide(x.dtype)), out, lambda part, axis: jnp.mean(part, axis))
    return mean.astype(x.dtype)


def adaptive_max_pool(
    x: Float[Array, "batch *space channels"], out: int | Sequence[int | None]
) -> Float[Array, "batch *out channels"]:
    """The largest value of each cell of a grid of ``out`` cells over the space.

    The cells are those of :func:`adaptive_avg_pool`. Among equal values the first gets the gradient.

    Args:
        x: input.
        out: cells along each axis; an integer applies to every axis, None keeps an axis unchanged, such as (None, 4).

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x.

    Raises:
        ValueError: no space axis, or a size below 1.

    Source:
        He et al., "Spatial pyramid pooling", 2014; the cells are those of torch.nn.AdaptiveMaxPool2d.

    Example:
        >>> adaptive_max_pool(jnp.arange(5.0).reshape(1, 5, 1), 2).ravel().tolist()
        [2.0, 4.0]
    """
    with layer_path("adaptive_max_pool"):
        x = jnp.asarray(native(x))
        out = _cells_wanted(x, out)
    return _over_cells(x, out, _first_max)


def maxout(x: Float[Array, "... channels"], pieces: int) -> Float[Array, "... out"]:
    r"""The largest of every ``pieces`` neighbouring channels: pooling over depth.

    .. math:: y_{\dots, i} = \max_{0 \le j < k} x_{\dots, k i + j}

    Among equal values the first gets the gradient.

    Args:
        x: input.
        pieces: k, the number of channels in a group; it must divide the channels.

    Shapes:
        x (..., channels).

    Returns:
        (..., channels // pieces), dtype of x.

    Raises:
        ValueError: pieces that do not divide the channels.

    Source:
        Goodfellow et al., "Maxout networks", 2013, section 3.

    Example:
        >>> maxout(jnp.array([[1.0, 4.0, 2.0, 0.0]]), 2).tolist()
        [[4.0, 2.0]]
    """
    with layer_path("maxout"):
        x = jnp.asarray(native(x))
        check_pieces(x.shape[-1], pieces)
    return _first_max(x.reshape(*x.shape[:-1], x.shape[-1] // pieces, pieces), x.ndim)


def check_has_space(shape: geometry.Shape) -> None:
    """Raise unless the shape of an example has a space axis beside its channels."""
    if len(shape) < 2:
        raise ValueError(
            f"an input of {format_shape(shape)} has channels only and no space to pool over; "
            "pool before Flatten, on (*space, channels)"
        )


def check_pieces(channels: int, pieces: int) -> None:
    """Raise unless pieces divide the channels."""
    if channels % geometry.integer(pieces, "pieces"):
        raise ValueError(
            f"pieces {pieces} do not divide {channels} channels; the groups must be of equal size; "
            f"use a divisor of {channels}"
        )


def cells_wanted(out: Any, space: Sequence[int], name: str = "out") -> geometry.Shape:
    """The requested size along each axis; where it is None, the size of the space.

    Example:
        >>> cells_wanted((None, 3), (5, 7)), cells_wanted(2, (5, 7))
        ((5, 3), (2, 2))
    """
    if not isinstance(out, (tuple, list)):
        return geometry.per_axis(out, len(space), name)
    cells = geometry.per_axis([1 if n is None else n for n in out], len(space), name)
    return tuple(size if n is None else cell for n, cell, size in zip(out, cells, space, strict=True))


def check_cells(out: Any, name: str = "out") -> int | tuple[int | None, ...]:
    """Check a requested size as far as possible without a shape."""
    if not isinstance(out, (tuple, list)):
        if out is None:
            raise TypeError(f"{name} is None, which keeps one axis unchanged; give a tuple, such as (None, 4)")
        return geometry.check_sizes(out, name)
    geometry.check_sizes([1 if n is None else n for n in out], name)
    return tuple(None if n is None else geometry.integer(n, name) for n in out)


def _first_max(x: Array, axis: int) -> Array:
    """The maximum along an axis; the first of equal values gets the gradient (jnp.max divides it among them)."""
    winner = jnp.argmax(lax.stop_gradient(x), axis, keepdims=True)  # Taylor mode has no rule for it
    place = jnp.arange(x.shape[axis], dtype=winner.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    # in a wider dtype, because some dtypes of 8 bits and less have no zero
    wider = x.astype(wide(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jnp.sum(jnp.where(place == winner, wider, 0), axis, dtype=wider.dtype).astype(x.dtype)


def _cells_wanted(x: Array, out: int | Sequence[int | None]) -> geometry.Shape:
    check_has_space(x.shape[1:])
    return cells_wanted(out, x.shape[1:-1])


def _over_cells(x: Array, out: geometry.Shape, reduction: Callable[[Array, int], Array]) -> Array:
    for axis, cells in reversed(list(enumerate(out, start=1))):
        size = x.shape[axis]
        if cells == size:
            continue
        parts = []
        for i in range(cells):
            start, stop = i * size // cells, -(-(i + 1) * size // cells)
            parts.append(reduction(lax.slice_in_dim(x, start, stop, axis=axis), axis))
        x = jnp.stack(parts, axis)
    return x
