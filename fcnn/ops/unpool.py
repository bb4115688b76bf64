"""Indices of the maxima of max pooling, and unpooling to these indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import geometry
from ..errors import format_shape, layer_path
from ..geometry import Padding, Windows
from ..native import native
from ..symbolic_sizes import symbolic
from .dtypes import least
from .pool import windows_on
from .tools import one_program
from .windows import pad

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Int


def max_pool_with_indices(
    x: Float[Array, "batch *space channels"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[Float[Array, "batch *out channels"], Int[Array, "batch *out channels"]]:
    r"""The largest value in each window, and the index of its sample in the space.

    .. math:: y_{n, i, c} = x_{n, m(n, i, c), c}, \qquad m(n, i, c) = \operatorname{arg\,max}_{m \in W_i} x_{n, m, c}

    The index counts the samples of the space in row-major order, the last axis fastest, without batch, channels and
    padding: in (height, width) the sample (row, column) has the index row * width + column. These are PyTorch's
    indices: its channels come first, but every plane is numbered in the same way. Among equal values the first is
    taken, among NaN the last. A sample of padding is never taken; where padding copies samples, the index is that of
    the copied sample.

    Args:
        x: input.
        window: window size; an integer applies to every axis.
        stride: step between windows; None: the window size.
        padding: as for ``conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: include windows that start in the data and end past it.

    Shapes:
        x (batch, *space, channels).

    Returns:
        The values, with the derivatives of :func:`max_pool`, and the indices, int32, both
        (batch, *out, channels).

    Raises:
        ValueError: a window that does not fit, or that covers nothing but padding.
        TypeError: complex numbers.

    Source:
        Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014, section 2.1 ("switches");
        torch.nn.MaxPool2d(return_indices=True), ONNX MaxPool with two outputs.

    Example:
        >>> x = jnp.array([[1.0, 3.0, 2.0, 5.0], [4.0, 0.0, 6.0, 1.0]]).reshape(1, 2, 4, 1)
        >>> y, indices = max_pool_with_indices(x, 2)
        >>> y.ravel().tolist(), indices.ravel().tolist()
        ([4.0, 6.0], [4, 6])
    """
    with layer_path("max_pool_with_indices"):
        x = jnp.asarray(native(x))
        windows, lowest = windows_on(x, window, stride, padding, dilation, ceil_mode), least(x.dtype)
        if any(map(symbolic, windows.space)):
            raise ValueError(
                f"the space {format_shape(windows.space)} has symbolic sizes, but the indices of maxima need known "
                "ones; export with a fixed space, only the batch may be symbolic"
            )
    from .maximum import first_place, largest  # its primitives are slow to import, see ops.convolution

    def pooled(x: Array) -> tuple[Array, Array]:
        padded = pad(x, windows, lowest)
        return largest(windows, padded), _sample(first_place(lax.stop_gradient(padded), windows), windows)

    # jax_debug_infs checks the results of programs, so the infinite padding must not be one
    return one_program(pooled, x) if jax.config.jax_debug_infs else pooled(x)  # type: ignore[attr-defined]


def _sample(place: Array, windows: Windows) -> Array:
    """The index in the space of the sample with number ``place`` in its window."""
    place, index = place.astype(np.int32), jnp.zeros((), np.int32)
    for axis, size in enumerate(windows.space):
        within = place // math.prod(windows.kernel[axis + 1 :]) % windows.kernel[axis]
        starts = windows.stride[axis] * np.arange(windows.out[axis], dtype=np.int32) - windows.pads[axis][0]
        starts = starts.reshape([-1 if a == axis + 1 else 1 for a in range(place.ndim)])
        sample = starts + windows.dilation[axis] * within
        if windows.fill == "wrap":
            sample = sample % size
        elif windows.fill == "reflect":
            sample = size - 1 - jnp.abs(size - 1 - jnp.abs(sample))
        elif windows.fill == "edge":
            sample = jnp.clip(sample, 0, size - 1)
        index = index * size + sample
    return index


def max_unpool(
    y: Float[Array, "batch *out channels"], indices: Int[Array, "batch *out channels"], space: int | Sequence[int]
) -> Float[Array, "batch *space channels"]:
    r"""Put every value at the sample of its index, and zeros elsewhere: a partial inverse of max pooling.

    .. math:: x_{n, m, c} = y_{n, i, c} \text{ with the last } i \text{ for which } m_{n, i, c} = m
        \text{, else } 0

    Where windows overlap, several values may have the same index: then the last of them in row-major order is kept,
    and the others are dropped and get no gradient.

    Args:
        y: values of :func:`max_pool_with_indices`, or values computed from them.
        indices: for each value, the index of its sample in the space. A value with an index outside the space is
            dropped.
        space: samples of the result along each axis, ``x.shape[1:-1]`` of the pooled x. An integer applies to every
            axis.

    Shapes:
        y and indices (batch, *out, channels).

    Returns:
        (batch, *space, channels), dtype of y.

    Raises:
        ValueError: shapes that do not match.
        TypeError: indices that are not integers.

    Source:
        Zeiler, Taylor and Fergus, "Adaptive deconvolutional networks for mid and high level feature learning", 2011,
        section 2.1; Badrinarayanan, Kendall and Cipolla, "SegNet", 2017. torch.nn.MaxUnpool2d.

    Example:
        >>> x = jnp.array([1.0, 3.0, 2.0, 5.0, 4.0]).reshape(1, 5, 1)
        >>> max_unpool(*max_pool_with_indices(x, 2), x.shape[1:-1]).ravel().tolist()
        [0.0, 3.0, 0.0, 5.0, 0.0]
    """
    with layer_path("max_unpool"):
        y, indices = jnp.asarray(y), jnp.asarray(indices)
        if y.ndim < 3:
            raise ValueError(f"y has shape {format_shape(y.shape)}; unpooling needs (batch, *out, channels)")
        if indices.shape != y.shape:
            raise ValueError(
                f"indices have shape {format_shape(indices.shape)}, y has {format_shape(y.shape)}; every value needs "
                "its index, as max_pool_with_indices gives them"
            )
        if not jnp.issubdtype(indices.dtype, jnp.integer):
            raise TypeError(f"indices have dtype {indices.dtype}, they must be integers")
        space = geometry.per_axis(space, y.ndim - 2, "space")
    batch, channels, samples = y.shape[0], y.shape[-1], math.prod(space)
    values, indices = (a.reshape(batch, math.prod(a.shape[1:-1]), channels) for a in (y, indices))
    number = np.arange(values.shape[1], dtype=np.int32)[None, :, None]
    examples, features = jnp.arange(batch)[:, None, None], np.arange(channels)[None, None]
    indices = jnp.where(indices < 0, samples, indices)  # negative indices would count from the end
    # scatter the number of the last value for every sample: values scattered directly have no fixed order on a GPU
    last = jnp.full((batch, samples, channels), -1, np.int32)
    last = last.at[examples, indices, features].max(number, mode="drop")
    found = jnp.take_along_axis(values, jnp.maximum(last, 0), 1, mode="promise_in_bounds")
    return jnp.where(last >= 0, found, jnp.zeros((), y.dtype)).reshape(batch, *space, channels)


def unpool_like(
    y: Float[Array, "batch *out channels"],
    x: Float[Array, "batch *space channels"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "batch *space channels"]:
    """:func:`max_unpool` of y to the indices of the maxima of :func:`max_pool` of x with the same arguments.

    Example:
        >>> x = jnp.array([1.0, 3.0, 2.0, 5.0]).reshape(1, 4, 1)
        >>> unpool_like(jnp.array([7.0, 8.0]).reshape(1, 2, 1), x, 2).ravel().tolist()
        [0.0, 7.0, 0.0, 8.0]
    """
    x = lax.stop_gradient(x)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    windows = windows_on(x, window, **options)
    spans = (geometry.extent(k, d) for k, d in zip(windows.kernel, windows.dilation, strict=True))
    apart = windows.fill == "constant" and all(s >= p for s, p in zip(windows.stride, spans, strict=True))
    if apart:  # every sample is in at most one window: the gradient of pooling, without a scatter
        from .pool import max_pool

        _, back = jax.vjp(lambda x: max_pool(x, window, **options), x.astype(y.dtype))
        return back(y)[0]
    _, indices = max_pool_with_indices(x, window, **options)
    return max_unpool(y, indices, windows.space)
