"""Mean and variance, and standardisation by them, in float32 or wider and over the full range of the dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import layer_path, refuse_traced
from ..native import native
from ..symbolic_sizes import symbolic
from .devices import explicit_axes
from .dtypes import beside, common, wide
from .tools import in_taylor_mode

if TYPE_CHECKING:
    from jax import Array


def moments(x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    r"""Mean and biased variance over axes, kept as axes of size 1.

    .. math:: \mu = \tfrac{1}{m} \sum x, \qquad \sigma^2 = \tfrac{1}{m} \sum (x - \mu)^2

    Both are computed from differences to a value of x itself, so they are exact for constants. The difference between
    mean square and squared mean, which loses digits where the mean is large, is not used.

    Args:
        x: input.
        axes: the axes to average over.

    Returns:
        (mean, variance) in float32 or wider; a variance beyond the range of that dtype is infinite.

    Example:
        >>> mean, variance = moments(jnp.array([1.0, 3.0]), (0,))
        >>> mean.tolist(), variance.tolist()
        ([2.0], [1.0])
    """
    x = jnp.asarray(native(x))
    x, axes = x.astype(wide(x.dtype)), tuple(axis % x.ndim for axis in axes)
    _, s, mean, square = _deviations(x, axes, 1.0)  # 1.0: small deviations are not scaled up
    return mean, square / s / s


def standardize(
    x: Array, axes: Sequence[int], *, epsilon: float, share: Array | None = None
) -> tuple[Array, Array, Array]:
    r"""Subtract the mean over axes and divide by the standard deviation over them.

    .. math:: \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad
        \mu = \sum w x, \quad \sigma^2 = \sum w (x - \mu)^2

    The differences are scaled by a power of two before they are squared, so the result is right even where the variance
    is beyond the range of the dtype. Where the variance and epsilon are 0, the result and its derivative are 0.

    Args:
        x: input.
        axes: the axes to average over.
        epsilon: added to the variance.
        share: the weights w, of a shape that broadcasts to x, with sum 1; where w is 0, x is ignored. None: equal
            weights.

    Returns:
        (the standardised x, mean, variance) in float32 or wider, the last two with axes of size 1.

    Raises:
        ValueError: an epsilon below 0.

    Example:
        >>> standardize(jnp.array([1.0, 3.0]), (0,), epsilon=0.0)[0].round(5).tolist()
        [-1.0, 1.0]
        >>> standardize(jnp.array([1e30, 3e30]), (0,), epsilon=1e-5)[0].round(5).tolist()
        [-1.0, 1.0]
    """
    with layer_path("standardize"):
        epsilon = check_epsilon(epsilon)
    x = jnp.asarray(native(x))
    x = x.astype(wide(x.dtype))
    axes = tuple(axis % x.ndim for axis in axes)
    if share is not None or in_taylor_mode(x):
        return _standardized(x, axes, epsilon, share)[:3]
    return _with_slope(x, axes, epsilon)[:3]


def _standardized(
    x: Array, axes: tuple[int, ...], epsilon: float, share: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """The standardised x, mean, variance, and the factor of the deviations, 1 / sqrt(variance + epsilon)."""
    deviation, s, mean, square = _deviations(x, axes, epsilon, share)
    root = jnp.asarray(math.sqrt(epsilon), s.dtype) * s
    inverse = _inverse_root(square, jnp.square(root), epsilon)
    return deviation * inverse, mean, square / s / s, inverse * s


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _with_slope(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array, Array]:
    r""":func:`_standardized` with its derivative in closed form, which takes fewer passes over x.

    .. math:: d\hat x = r (dx - \overline{dx} - \hat x \, \overline{\hat x \, dx}), \qquad
        r = \frac{1}{\sqrt{\sigma^2 + \epsilon}}
    """
    return _standardized(x, axes, epsilon)


@_with_slope.defjvp
def _slope(axes: tuple[int, ...], epsilon: float, primals: tuple[Array], tangents: tuple[Array]) -> Any:
    (x,), (t,) = primals, tangents
    normal, mean, variance, r = _with_slope(x, axes, epsilon)
    average, along = _mean(t, axes), _mean(normal * t, axes)
    zero = r == 0  # the variance and epsilon are 0, and so is the derivative
    slope = jnp.where(zero, 0, 2 * along / jnp.where(zero, 1, r))  # derivative of the variance
    return (normal, mean, variance, r), (r * t - r * average - normal * (r * along), average, slope, -r * r * along)


def normalize(
    x: Array, mean: Array, variance: Array, scale: Array | None = None, bias: Array | None = None, *, epsilon: float
) -> Array:
    r"""Normalise by the given statistics, then apply the learned scale and offset.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Where the variance and epsilon are 0, the fraction is defined as 0.

    Args:
        x: input.
        mean: :math:`\mu`, of a shape that broadcasts with x.
        variance: :math:`\sigma^2`, likewise.
        scale: :math:`\gamma`, likewise; None: 1.
        bias: :math:`\beta`, likewise; None: 0.
        epsilon: added to the variance, which keeps the root away from 0.

    Returns:
        The shape of x, in the common dtype of x, scale and bias; computed in float32 or wider.

    Raises:
        ValueError: an epsilon below 0.

    Example:
        >>> normalize(jnp.array([1.0, 3.0]), 2.0, 1.0, epsilon=0.0).tolist()
        [-1.0, 1.0]
    """
    with layer_path("normalize"):
        epsilon = check_epsilon(epsilon)
    x, mean, variance, scale, bias = map(native, (x, mean, variance, scale, bias))
    x = jnp.asarray(x)
    result = common(x, scale, bias)
    dtype = wide(result)
    mean, variance = (beside(jnp.asarray(a, dtype), x) for a in (mean, variance))
    root = _inverse_root(variance, jnp.asarray(epsilon, dtype), epsilon)
    return rescale((x.astype(dtype) - mean) * root, scale, bias, result)


def rescale(normal: Array, scale: Array | None, bias: Array | None, dtype: Any) -> Array:
    r"""Apply the learned scale and offset, :math:`\gamma \hat x + \beta`, in float32 or wider, and round once.

    Args:
        normal: :math:`\hat x`, in float32 or wider.
        scale: :math:`\gamma`, of a shape that broadcasts with it; None: 1.
        bias: :math:`\beta`, likewise; None: 0.
        dtype: dtype of the result.

    Example:
        >>> rescale(jnp.array([-1.0, 1.0]), jnp.array([2.0, 2.0]), None, "float32").tolist()
        [-2.0, 2.0]
    """
    wider = wide(dtype)
    y = normal.astype(wider)
    if scale is not None:
        y = y * beside(jnp.asarray(scale, wider), y)
    if bias is not None:
        y = y + beside(jnp.asarray(bias, wider), y)
    return y.astype(dtype)


def _mean(a: Array, axes: tuple[int, ...]) -> Array:
    count = math.prod(a.shape[axis] for axis in axes)
    if symbolic(count):
        return jnp.sum(a, axes, keepdims=True) / jnp.asarray(count).astype(a.dtype)
    return jnp.sum(a, axes, keepdims=True) / max(count, 1)  # 0 for an empty batch


def _deviations(
    x: Array, axes: tuple[int, ...], epsilon: float, share: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Deviations from the mean times a power of two s; s; the mean; the mean square of the scaled deviations.

    Up to rounding, the statistics do not depend on the choice of the pivot and of s, so both are constants for
    differentiation.
    """

    def mean_of(a: Array) -> Array:
        if share is not None:
            return jnp.sum(jnp.where(share > 0, share * a, 0), axes, keepdims=True)
        return _mean(a, axes)

    fixed = lax.stop_gradient(x)
    # single values cannot be sliced from an array on a mesh with Explicit axes: there the pivot is the mean
    pivot = mean_of(fixed) if explicit_axes(x) else _middle(fixed, axes, alone=share is not None)
    s = _power_of_two(mean_of(jnp.abs(fixed - pivot)), small=epsilon < 1e-15)
    difference = (x - pivot) * s
    offset = mean_of(difference)
    scaled = difference - offset
    return scaled, s, pivot + offset / s, mean_of(jnp.square(scaled))


def _power_of_two(size: Array, *, small: bool) -> Array:
    """A factor that keeps sums of squares of numbers with this mean size within the dtype: 1 for ordinary sizes.

    It is a power of two, so that scaling causes no rounding. ``small``: also scale up small numbers, which is needed
    where no epsilon is added.
    """
    # the largest number is at most n times the mean, and the root mean square is at least the mean: all is within the
    # dtype up to n = 2^29; an infinite mean counts as large
    limit, large, tiny = (30, 80, 64) if jnp.finfo(size.dtype).bits == 32 else (300, 600, 600)
    found = jnp.where(size > 2.0**limit, jnp.asarray(2.0**large, size.dtype), 1)
    if small:
        found = jnp.where(size < 2.0**-limit, jnp.asarray(2.0**-tiny, size.dtype), found)
    return 1 / found  # XLA treats a division as expensive, so it does not recompute this for every scaled value


def _middle(x: Array, axes: tuple[int, ...], *, alone: bool) -> Array:
    """The median of the first, the middle and the last value of x over axes: close to the mean, robust to an outlier.

    ``alone``: the first value instead.
    """
    sizes = [x.shape[axis] for axis in axes]
    known = not alone and not any(map(symbolic, sizes))
    if known and 0 in sizes:
        return jnp.zeros([1 if axis in axes else n for axis, n in enumerate(x.shape)], x.dtype)

    def sample(place: float) -> Array:
        found = x
        for axis in reversed(axes):
            start = int((x.shape[axis] - 1) * place) if known else 0
            if axis:
                found = lax.slice_in_dim(found, start, start + 1, axis=axis)
            else:  # a batch may be sharded: a masked sum needs one reduction, a slice would exchange parts of x
                chosen = lax.broadcasted_iota("int32", found.shape, 0) == start
                found = jnp.sum(jnp.where(chosen, found, 0), 0, keepdims=True)
        return found

    if not known:
        return sample(0)
    a, b, c = sample(0), sample(0.5), sample(1)
    return jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))


def power_of_two(size: Array, power: float = 1.0) -> Array:
    """A factor that scales sizes so that sums of squares neither overflow nor underflow: 1 for ordinary sizes.

    It is a power of two, so that scaling causes no rounding, raised to ``power``.
    """
    step, most = (30, 126) if jnp.finfo(size.dtype).bits == 32 else (250, 1022)

    def factor(exponent: float) -> Array:
        return jnp.asarray(math.exp2(-max(-most, min(exponent * power, most))), size.dtype)

    found = jnp.ones_like(size)
    for level in (1, 2, 3):
        found = jnp.where(size > 2.0 ** (step * level), factor(-step * (level + 0.5)), found)
        found = jnp.where(size < 2.0 ** (-step * level), factor(step * (level + 0.5)), found)
    return 1 / found  # XLA treats a division as expensive, so it does not recompute this for every scaled value


def _inverse_root(square: Array, added: Array, epsilon: float) -> Array:
    if epsilon > jnp.finfo(square.dtype).tiny:
        return lax.rsqrt(square + added)
    total = square + added
    nothing = total == 0
    return jnp.where(nothing, 0, lax.rsqrt(jnp.where(nothing, 1, total)))


def check_epsilon(epsilon: float) -> float:
    """Raise unless epsilon is a finite number that is not negative."""
    refuse_traced(epsilon, "epsilon")
    if isinstance(epsilon, (bool, str)) or not hasattr(epsilon, "__float__"):
        raise TypeError(f"epsilon must be a number, not {epsilon!r}")
    epsilon = float(epsilon)
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon is {epsilon:g}, it must be finite and not negative: it is added to the variance")
    return epsilon
