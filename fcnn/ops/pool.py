"""Pooling of plain arrays: windows, whole spaces, a wanted output size, groups of channels.

Windows are reduced axis by axis, the last axis first, over strided slices, which have every derivative that JAX
knows, with dilation too; the maximum has a derivative of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import geometry
from ..errors import at, shown
from ..geometry import Padding, Windows, slide, symbolic
from .dtypes import floating, wide
from .memory import keep_memory
from .windows import fold, fold_rows, pad

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def max_pool(
    x: Float[Array, "batch *space channels"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "batch *out channels"]:
    r"""The largest value in each window.

    .. math:: y_{n, i, c} = \max_j x_{n,\, s i + d j - p,\, c}

    Equal values send the gradient to the first of them; NaN stays NaN; padding counts as minus infinity.

    Args:
        x: input.
        window: window size; an integer holds along every axis.
        stride: step between windows; None: the window.
        padding: as for ``conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: count windows that begin in the data and end past it.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x.

    Raises:
        ValueError: a window that does not fit or sees nothing but padding.

    Source:
        Riesenhuber and Poggio, "Hierarchical models of object recognition in cortex", 1999.

    Example:
        >>> max_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), 2).ravel().tolist()
        [3.0, 2.0]
    """
    with at("max_pool"):
        x = jnp.asarray(x)
        windows = _windows(x, window, stride, padding, dilation, ceil_mode)
    lowest = -math.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
    from .maximum import largest  # its primitives take long to import, see ops.convolution

    return largest(windows, pad(x, windows, lowest))


def max_of_phases(y: Array, *, space_first: bool = False) -> Array:
    """Max pooling of what :func:`fcnn.ops.conv.conv_in_phases` gives.

    Shapes:
        (channels, phases, *out, batch) to (batch, *out, channels), with ``space_first`` (*out, batch, channels).

    Example:
        >>> max_of_phases(jnp.array([[1.0, 3.0], [2.0, 0.0]]).reshape(1, 2, 2, 1)).ravel().tolist()
        [2.0, 3.0]
    """
    from .alone import reordered
    from .maximum import largest_of_phases

    best = largest_of_phases(y)
    space, batch = tuple(range(1, best.ndim - 1)), best.ndim - 1
    return reordered(best, (*space, batch, 0) if space_first else (batch, *space, 0))


def avg_pool(
    x: Float[Array, "batch *space channels"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_padding: bool = False,
) -> Float[Array, "batch *out channels"]:
    r"""The mean of each window.

    .. math:: y_{n, i, c} = \frac{1}{|W_i|} \sum_{j \in W_i} x_{n,\, s i + d j - p,\, c}

    where W_i holds the samples that lie in the data, or, with ``count_padding``, in the data and its padding.

    Args:
        x: input.
        window: window size; an integer holds along every axis.
        stride: step between windows; None: the window.
        padding: as for ``conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: count windows that begin in the data and end past it; what they cover past the padding is
            never counted.
        count_padding: divide by the samples in data and padding. PyTorch's default ``count_include_pad=True``
            is ``count_padding=True``; Keras and the default here count data only.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x; half precision is summed in float32.

    Raises:
        ValueError: a window that does not fit or sees nothing but padding.

    Source:
        LeCun et al. 1998, section II (subsampling).

    Example:
        >>> x = jnp.array([4.0, 2.0, 6.0]).reshape(1, 3, 1)
        >>> avg_pool(x, 3, stride=1, padding="SAME").ravel().tolist()
        [3.0, 4.0, 4.0]
        >>> avg_pool(x, 3, stride=1, padding="SAME", count_padding=True).ravel().tolist()
        [2.0, 4.0, 2.6666667461395264]
    """
    with at("avg_pool"):
        x = floating(x)
        windows = _windows(x, window, stride, padding, dilation, ceil_mode)
    total = fold(pad(x.astype(wide(x.dtype)), windows), windows, jnp.add)
    if any(map(symbolic, windows.space)):
        return (total / _counts(windows, count_padding, total.dtype)).astype(x.dtype)
    share = 1.0
    for axis, counts in enumerate(windows.counts(padding=count_padding)):
        lengths = [1] * x.ndim
        lengths[axis + 1] = len(counts)
        share = share / np.reshape(np.asarray(counts, np.float64), lengths)
    return (total * jnp.asarray(share, total.dtype)).astype(x.dtype)


def lp_pool(
    x: Float[Array, "batch *space channels"],
    window: int | Sequence[int],
    *,
    power: float = 2.0,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "batch *out channels"]:
    r"""The p-norm of each window: the sum of absolute values for p = 1, towards the maximum as p grows.

    .. math:: y_{n, i, c} = \Bigl( \sum_j |x_{n,\, s i + d j - p,\, c}|^p \Bigr)^{1/p}

    The derivative at a window of zeros is taken as 0. Windows that ``ceil_mode`` cuts short are not scaled up, as
    PyTorch's are.

    Args:
        x: input.
        window: window size; an integer holds along every axis.
        power: p, at least 1 and finite.
        stride: step between windows; None: the window.
        padding: as for ``conv``; zeros add nothing.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: count windows that begin in the data and end past it.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x; half precision is summed in float32.

    Raises:
        ValueError: a power below 1, or a window that does not fit.

    Source:
        Sermanet, Chintala and LeCun, "Convolutional neural networks applied to house numbers digit
        classification", 2012, equation 1.

    Example:
        >>> lp_pool(jnp.array([3.0, -4.0]).reshape(1, 2, 1), 2).ravel().tolist()
        [5.0]
    """
    with at("lp_pool"):
        x = floating(x)
        power = check_power(power)
        windows = _windows(x, window, stride, padding, dilation, ceil_mode)
    x_wide = x.astype(wide(x.dtype))
    size = x_wide * jnp.sign(x_wide)  # |x|, whose derivative at 0 is 0 (JAX gives jnp.abs 1 there)
    if power == 1:
        return fold(pad(size, windows), windows, jnp.add).astype(x.dtype)
    if any(map(symbolic, windows.space)):  # no largest sample of a row is known by itself
        total = fold(pad(size**power, windows), windows, jnp.add)
        return _root(total, power).astype(x.dtype)
    return fold_rows(pad(size, windows), windows, partial(_power_norm, power=power)).astype(x.dtype)


def _power_norm(samples: list[Array], power: float) -> Array:
    """The p-norm of arrays, none of them negative, entry by entry; their powers are of shares of the largest.

    The p-norm of the rows' p-norms is that of the window, so no row knows the samples of other windows.
    """
    largest = lax.stop_gradient(reduce(jnp.maximum, samples))  # the norm is the same whatever it is divided by
    divisor = jnp.where((largest > 0) & (largest < math.inf), largest, 1)
    shares = [sample / divisor for sample in samples]
    total = reduce(jnp.add, (jnp.square(share) if power == 2 else share**power for share in shares))
    return _root(total, power) * divisor


def _root(total: Array, power: float) -> Array:
    """The root of a sum of powers, whose derivative at 0 is taken as 0."""
    # it is infinite there: keep 0 away from the root, in both branches of the where
    nonzero = total != 0
    safe = jnp.where(nonzero, total, 1)
    return jnp.where(nonzero, jnp.sqrt(safe) if power == 2 else safe ** (1 / power), 0)


def global_max_pool(x: Float[Array, "batch *space channels"]) -> Float[Array, "batch channels"]:
    """The largest value of each channel over the whole space; equal values send the gradient to the first.

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
    with at("global_max_pool"):
        x = jnp.asarray(x)
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
    with at("global_avg_pool"):
        x = floating(x)
        check_has_space(x.shape[1:])
    return jnp.mean(x, tuple(range(1, x.ndim - 1)), dtype=wide(x.dtype)).astype(x.dtype)


def adaptive_avg_pool(
    x: Float[Array, "batch *space channels"], out: int | Sequence[int]
) -> Float[Array, "batch *out channels"]:
    r"""The mean of each cell of a grid of ``out`` cells laid over the space.

    Cell i of an axis of M samples and m cells runs from :math:`\lfloor i M / m \rfloor` to
    :math:`\lceil (i + 1) M / m \rceil`; cells may overlap by a sample.

    Args:
        x: input.
        out: cells along each axis; an integer holds along every axis.

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
    with at("adaptive_avg_pool"):
        x = floating(x)
        out = _cells_wanted(x, out)
    mean = _over_cells(x.astype(wide(x.dtype)), out, lambda part, axis: jnp.mean(part, axis))
    return mean.astype(x.dtype)


def adaptive_max_pool(
    x: Float[Array, "batch *space channels"], out: int | Sequence[int]
) -> Float[Array, "batch *out channels"]:
    """The largest value of each cell of a grid of ``out`` cells laid over the space.

    The cells are those of :func:`adaptive_avg_pool`; equal values send the gradient to the first.

    Args:
        x: input.
        out: cells along each axis; an integer holds along every axis.

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
    with at("adaptive_max_pool"):
        x = jnp.asarray(x)
        out = _cells_wanted(x, out)
    return _over_cells(x, out, _first_max)


def maxout(x: Float[Array, "... channels"], pieces: int) -> Float[Array, "... out"]:
    r"""The largest of every ``pieces`` neighbouring channels: pooling over depth.

    .. math:: y_{\dots, i} = \max_{0 \le j < k} x_{\dots, k i + j}

    Equal values send the gradient to the first.

    Args:
        x: input.
        pieces: channels in a group, k; they must divide the channels.

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
    with at("maxout"):
        x = jnp.asarray(x)
        check_pieces(x.shape[-1], pieces)
    return _first_max(x.reshape(*x.shape[:-1], x.shape[-1] // pieces, pieces), x.ndim)


def check_has_space(shape: geometry.Shape) -> None:
    """Raise unless the shape of an example has a space axis beside its channels."""
    if len(shape) < 2:
        raise ValueError(
            f"an input of {shown(shape)} has channels only and no space to pool over; "
            "pool before Flatten, on (*space, channels)"
        )


def check_pieces(channels: int, pieces: int) -> None:
    """Raise unless pieces divide the channels."""
    if channels % geometry.integer(pieces, "pieces"):
        raise ValueError(
            f"pieces {pieces} do not divide {channels} channels; the groups must be of equal size; "
            f"use a divisor of {channels}"
        )


def check_power(power: float) -> float:
    """Raise unless the power of an LP pool is a finite number of at least 1."""
    if isinstance(power, (bool, str)) or not hasattr(power, "__float__"):
        raise TypeError(f"power must be a number, not {power!r}")
    power = float(power)
    if not 1 <= power < math.inf:
        raise ValueError(f"power is {power}, it must be at least 1 and finite; for the limit use max pooling")
    return power


def pool_windows(
    space: Sequence[int],
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    channels: int | None = None,
) -> Windows:
    """The windows of a pooling layer, each of which sees at least one sample of the data."""
    stride = window if stride is None else stride
    windows = slide(
        space,
        window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        what="window",
        channels=channels,
    )
    if not any(map(symbolic, windows.space)) and any(0 in counts for counts in windows.counts(padding=False)):
        raise ValueError(
            f"a window of {shown(windows.kernel)} sees nothing but padding {windows.pads} "
            f"of the input {shown(windows.space)}; pad by less than the window"
        )
    return windows


def _windows(x, window, stride, padding, dilation, ceil_mode) -> Windows:
    if x.ndim < 3:
        raise ValueError(f"x has shape {shown(x.shape)}; pooling needs (batch, *space, channels)")
    if jax.default_backend() == "cpu":
        keep_memory()
    return pool_windows(x.shape[1:-1], window, stride, padding, dilation, ceil_mode)


def _counts(windows: Windows, padding: bool, dtype: Any) -> Array:
    """How many samples of the data, or of it with its padding, each window has, where the sizes are symbolic."""
    counted = jnp.ones((1, *windows.space, 1), dtype)
    if windows.fill != "constant":
        return fold(pad(counted, windows), windows, jnp.add)
    around = jnp.asarray(1 if padding else 0, dtype)
    counted = jnp.pad(counted, ((0, 0), *windows.pads, (0, 0)), constant_values=around)
    counted = jnp.pad(counted, ((0, 0), *((0, more) for more in windows.overhang), (0, 0)))
    return fold(counted, windows, jnp.add)


def _first_max(x: Array, axis: int) -> Array:
    """The maximum along an axis, whose gradient goes to the first of equals (jnp.max divides it among them)."""
    winner = jnp.argmax(x, axis, keepdims=True)
    place = jnp.arange(x.shape[axis], dtype=winner.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return jnp.sum(jnp.where(place == winner, x, 0), axis, dtype=x.dtype)


def _cells_wanted(x: Array, out: int | Sequence[int]) -> geometry.Shape:
    check_has_space(x.shape[1:])
    return geometry.per_axis(out, x.ndim - 2, "out")


def _over_cells(x: Array, out: geometry.Shape, reduction: Callable[[Array, int], Array]) -> Array:
    for axis, cells in reversed(list(enumerate(out, start=1))):
        size = x.shape[axis]
        parts = []
        for i in range(cells):
            start, stop = i * size // cells, -(-(i + 1) * size // cells)
            parts.append(reduction(lax.slice_in_dim(x, start, stop, axis=axis), axis))
        x = jnp.stack(parts, axis)
    return x
