"""Pooling of plain arrays over windows.

Windows are reduced axis by axis, the last axis first, over strided slices. These support all of JAX's derivatives, with
dilation too; the maximum has its own derivative rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import geometry
from ..errors import format_shape, layer_path, refuse_traced
from ..geometry import Padding, Windows, slide
from ..native import native
from ..symbolic_sizes import symbolic
from .dtypes import floating, least, wide
from .memory import keep_memory
from .tools import one_program
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

    Among equal values the first gets the gradient. NaN propagates. Padding counts as minus infinity, or as the smallest
    number of a dtype without infinity, and never gets a gradient.

    Args:
        x: input, of floating-point or integer dtype. All axes between the first and the last are pooled over.
        window: window size; an integer applies to every axis, a tuple fixes the number of axes.
        stride: step between windows; None: the window size.
        padding: as for ``conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: include windows that start in the data and end past it.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x.

    Raises:
        ValueError: a window that does not fit, or that covers nothing but padding.
        TypeError: complex numbers.

    Source:
        Riesenhuber and Poggio, "Hierarchical models of object recognition in cortex", 1999.

    Example:
        >>> max_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), 2).ravel().tolist()
        [3.0, 2.0]
    """
    with layer_path("max_pool"):
        x = jnp.asarray(native(x))
        windows, lowest = windows_on(x, window, stride, padding, dilation, ceil_mode), least(x.dtype)
    from .maximum import largest  # its primitives are slow to import, see ops.convolution

    def pooled(x: Array) -> Array:
        return largest(windows, pad(x, windows, lowest))

    # jax_debug_infs checks the results of programs, so the infinite padding must not be one
    return one_program(pooled, x) if jax.config.jax_debug_infs else pooled(x)  # type: ignore[attr-defined]


def max_of_polyphase(y: Array, *, hwnc: bool = False) -> Array:
    """Max pooling of the result of :func:`fcnn.ops.conv.conv_polyphase`.

    Shapes:
        (channels, phases, *out, batch) to (batch, *out, channels), with ``hwnc`` (*out, batch, channels).

    Example:
        >>> max_of_polyphase(jnp.array([[1.0, 3.0], [2.0, 0.0]]).reshape(1, 2, 2, 1)).ravel().tolist()
        [2.0, 3.0]
    """
    from .maximum import largest_of_polyphase
    from .noinline import reordered

    best = largest_of_polyphase(y)
    space, batch = tuple(range(1, best.ndim - 1)), best.ndim - 1
    return reordered(best, (*space, batch, 0) if hwnc else (batch, *space, 0))


def avg_pool(
    x: Float[Array, "batch *space channels"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_padding: bool = False,
    divisor: int | None = None,
) -> Float[Array, "batch *out channels"]:
    r"""The mean of each window.

    .. math:: y_{n, i, c} = \frac{1}{|W_i|} \sum_{j \in W_i} x_{n,\, s i + d j - p,\, c}

    where W_i is the set of samples inside the data, or, with ``count_padding``, inside the data and its padding. With
    ``divisor`` the sum is divided by that number instead; with 1 the output is the sum.

    Args:
        x: input.
        window: window size; an integer applies to every axis.
        stride: step between windows; None: the window size.
        padding: as for ``conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: include windows that start in the data and end past it; samples past the padding are never
            counted.
        count_padding: whether padding counts in the number of samples. PyTorch's default
            ``count_include_pad=True`` is ``count_padding=True``; Keras and the default here count data only.
        divisor: the number that every sum is divided by, PyTorch's ``divisor_override``; None: the number of samples.

    Shapes:
        x (batch, *space, channels).

    Returns:
        (batch, *out, channels), dtype of x; half precision is summed in float32.

    Raises:
        ValueError: a window that does not fit, or that covers nothing but padding.

    Source:
        LeCun et al. 1998, section II (subsampling).

    Example:
        >>> x = jnp.array([4.0, 2.0, 6.0]).reshape(1, 3, 1)
        >>> avg_pool(x, 3, stride=1, padding="SAME").ravel().tolist()
        [3.0, 4.0, 4.0]
        >>> avg_pool(x, 3, stride=1, padding="SAME", count_padding=True).ravel().tolist()
        [2.0, 4.0, 2.6666667461395264]
    """
    with layer_path("avg_pool"):
        x = floating(x)
        windows = windows_on(x, window, stride, padding, dilation, ceil_mode)
        counted = divisor is None and any(map(symbolic, windows.space))
        shares = None if counted else sample_shares(windows, count_padding=count_padding, divisor=divisor)
    total = fold(pad(x.astype(wide(x.dtype)), windows), windows, jnp.add)
    if shares is None:
        return (total / _counts(windows, count_padding, total.dtype)).astype(x.dtype)
    return (total * jnp.asarray(shares[None, ..., None], total.dtype)).astype(x.dtype)


def sample_shares(windows: Windows, *, count_padding: bool, divisor: int | None) -> np.ndarray:
    """The weight of the samples of each window in its mean, for sizes that are not symbolic.

    Shapes:
        to (*out,); axes of size 1 where the weight is the same for all windows.

    Example:
        >>> sample_shares(geometry.slide((4,), 2, stride=2, padding=1), count_padding=False, divisor=None).tolist()
        [1.0, 0.5, 1.0]
    """
    if divisor is not None:
        return np.full((1,) * windows.rank, 1 / geometry.integer(divisor, "divisor"))
    share = np.ones(())
    for counts in windows.counts(padding=count_padding):
        share = np.multiply.outer(share, 1 / np.asarray(counts, np.float64))
    return share


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

    The derivative at a window of zeros is defined as 0. Partial windows of ``ceil_mode`` are not scaled up, unlike in
    PyTorch.

    Args:
        x: input.
        window: window size; an integer applies to every axis.
        power: p, at least 1 and finite.
        stride: step between windows; None: the window size.
        padding: as for ``conv``; zeros add nothing.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: include windows that start in the data and end past it.

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
    with layer_path("lp_pool"):
        x = floating(x)
        power = check_power(power)
        windows = windows_on(x, window, stride, padding, dilation, ceil_mode)
    x_wide = x.astype(wide(x.dtype))
    size = x_wide * jnp.sign(x_wide)  # |x|, whose derivative at 0 is 0 (JAX gives jnp.abs 1 there)
    if power == 1:
        return fold(pad(size, windows), windows, jnp.add).astype(x.dtype)
    if any(map(symbolic, windows.space)):  # the largest sample of a row is not available
        total = fold(pad(size**power, windows), windows, jnp.add)
        return _root(total, power).astype(x.dtype)
    return fold_rows(pad(size, windows), windows, partial(_power_norm, power=power)).astype(x.dtype)


def _power_norm(samples: list[Array], power: float) -> Array:
    """The elementwise p-norm of nonnegative arrays; the samples are divided by the largest before taking powers.

    The p-norm of the rows' p-norms is that of the window, so no row depends on samples of other windows.
    """
    largest = lax.stop_gradient(reduce(jnp.maximum, samples))  # the norm does not depend on the divisor
    divisor = jnp.where((largest > 0) & (largest < math.inf), largest, 1)
    shares = [sample / divisor for sample in samples]
    total = reduce(jnp.add, (jnp.square(share) if power == 2 else share**power for share in shares))
    return _root(total, power) * divisor


def _root(total: Array, power: float) -> Array:
    """The root of a sum of powers, with derivative 0 at 0."""
    # the true derivative is infinite there: keep 0 away from the root, in both branches of the where
    nonzero = total != 0
    safe = jnp.where(nonzero, total, 1)
    return jnp.where(nonzero, jnp.sqrt(safe) if power == 2 else safe ** (1 / power), 0)


def check_power(power: float) -> float:
    """Raise unless the power of an LP pool is a finite number of at least 1."""
    refuse_traced(power, "power")
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
    """The windows of a pooling layer; raises unless each covers at least one sample of the data."""
    window, rank = geometry.check_sizes(window, "window"), len(space)
    if isinstance(window, int) and rank > 3:
        raise ValueError(
            f"window {window} would pool over all {rank} axes of the space {format_shape(tuple(space))}; axes of "
            "examples belong to the batch, x.reshape(-1, *x.shape[2:]), and a space of so many axes needs one number "
            "for each"
        )
    if not isinstance(window, int) and len(window) != rank:
        raise ValueError(
            f"window {format_shape(window)} is for {len(window)} space axes, the input has {rank}, "
            f"{format_shape(tuple(space))}; give {rank} numbers, or one that holds along every axis; axes of examples, "
            "such as time, belong to the batch, x.reshape(-1, *x.shape[2:])"
        )
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
            f"a window of {format_shape(windows.kernel)} covers nothing but padding {windows.pads} "
            f"of the input {format_shape(windows.space)}; pad by less than the window"
        )
    return windows


def windows_on(
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Windows:
    """The windows of a pooling of x (batch, *space, channels)."""
    if x.ndim < 3:
        raise ValueError(f"x has shape {format_shape(x.shape)}; pooling needs (batch, *space, channels)")
    if jax.default_backend() == "cpu":
        keep_memory()
    return pool_windows(x.shape[1:-1], window, stride, padding, dilation, ceil_mode)


def _counts(windows: Windows, padding: bool, dtype: Any) -> Array:
    """The number of samples of each window inside the data, or inside data and padding, for symbolic sizes."""
    counted = jnp.ones((1, *windows.space, 1), dtype)
    if windows.fill != "constant":
        return fold(pad(counted, windows), windows, jnp.add)
    around = jnp.asarray(1 if padding else 0, dtype)
    counted = jnp.pad(counted, ((0, 0), *windows.pads, (0, 0)), constant_values=around)
    counted = jnp.pad(counted, ((0, 0), *((0, more) for more in windows.overhang), (0, 0)))
    return fold(counted, windows, jnp.add)
