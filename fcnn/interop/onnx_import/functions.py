"""Functions of arrays that ONNX has as nodes and JAX not under one name; all keep the batch first."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...geometry import Shape

Array = jax.Array


def apply_with(x: Array, operation: Any, value: Any, first: bool = False) -> Array:
    """An operation of x and a number, or a small table of them.

    Args:
        x: any array.
        operation: a function of two arrays, such as ``jnp.divide``.
        value: the number, or nested tuples of numbers.
        first: whether the number comes first.

    Example:
        >>> apply_with(jnp.array([[1.0, 2.0]]), operation=jnp.subtract, value=3.0, first=True).tolist()
        [[2.0, 1.0]]
    """
    other = np.asarray(value)
    exact = other.dtype.kind in "iu" and jnp.issubdtype(x.dtype, jnp.integer)
    if exact or (other.dtype.kind in "iuf" and jnp.issubdtype(x.dtype, jnp.floating)):
        other = other.astype(x.dtype)
    return operation(other, x) if first else operation(x, other)


def divide(x: Array, y: Array) -> Array:
    """X / y; integers are rounded towards 0.

    Example:
        >>> divide(jnp.array([[7, -7]]), jnp.array(2)).tolist(), divide(jnp.array([[1.0]]), jnp.array(2.0)).tolist()
        ([[3, -3]], [[0.5]])
    """
    return jax.lax.div(*jnp.broadcast_arrays(x, y)) if jnp.issubdtype(x.dtype, jnp.integer) else jnp.divide(x, y)


def clip(x: Array, low: float | None = None, high: float | None = None) -> Array:
    """Values below low become low, values above high become high.

    Example:
        >>> clip(jnp.array([[-3.0, 1.0, 9.0]]), low=0.0, high=6.0).tolist()
        [[0.0, 1.0, 6.0]]
    """
    x = x if low is None else jnp.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else jnp.minimum(x, np.asarray(high, x.dtype))


def linear_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    r"""ONNX's HardSigmoid, :math:`\max(0, \min(1, \alpha x + \beta))`.

    Example:
        >>> linear_sigmoid(jnp.array([[-3.0, 0.0, 1.0]]), alpha=0.25, beta=0.5).tolist()
        [[0.0, 0.5, 0.75]]
    """
    return jnp.clip(x * np.asarray(alpha, x.dtype) + np.asarray(beta, x.dtype), 0, 1)


def selu(x: Array, alpha: float, gamma: float) -> Array:
    r"""ONNX's Selu, :math:`\gamma x` above 0 and :math:`\gamma \alpha (e^x - 1)` below.

    Example:
        >>> selu(jnp.array([[-100.0, 2.0]]), alpha=2.0, gamma=3.0).tolist()
        [[-6.0, 6.0]]
    """
    return jax.nn.elu(x, np.asarray(alpha, x.dtype)) * gamma


def threshold(x: Array, alpha: float) -> Array:
    """X where it is above alpha, else 0.

    Example:
        >>> threshold(jnp.array([[0.5, 2.0]]), alpha=1.0).tolist()
        [[0.0, 2.0]]
    """
    return jnp.where(x > np.asarray(alpha, x.dtype), x, jnp.zeros_like(x))


def shrink(x: Array, bias: float, limit: float) -> Array:
    """X moved towards 0 by bias where its size is above the limit, else 0.

    Example:
        >>> shrink(jnp.array([[-2.0, 1.0, 3.0]]), bias=0.5, limit=1.5).tolist()
        [[-1.5, 0.0, 2.5]]
    """
    bias_, limit_ = np.asarray(bias, x.dtype), np.asarray(limit, x.dtype)
    return jnp.where(x < -limit_, x + bias_, jnp.where(x > limit_, x - bias_, jnp.zeros_like(x)))


def swish(x: Array, alpha: float) -> Array:
    r""":math:`x \, \sigma(\alpha x)`.

    Example:
        >>> swish(jnp.array([[0.0]]), alpha=2.0).tolist()
        [[0.0]]
    """
    return x * jax.nn.sigmoid(np.asarray(alpha, x.dtype) * x)


def softmax(x: Array, axes: Shape, log: bool = False) -> Array:
    """Softmax over several axes at once, or its logarithm.

    Example:
        >>> softmax(jnp.zeros((1, 2, 2)), axes=(1, 2)).tolist()
        [[[0.25, 0.25], [0.25, 0.25]]]
    """
    return (jax.nn.log_softmax if log else jax.nn.softmax)(x, axis=tuple(axes))


def hardmax(x: Array, axis: int) -> Array:
    """1 at the first largest entry along an axis, 0 elsewhere.

    Example:
        >>> hardmax(jnp.array([[1.0, 3.0, 3.0]]), axis=1).tolist()
        [[0.0, 1.0, 0.0]]
    """
    return jnp.moveaxis(jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], dtype=x.dtype), -1, axis)


def lp_normalize(x: Array, axis: int, power: int) -> Array:
    """Divide by the norm along an axis; a norm of 0 gives 0.

    Example:
        >>> lp_normalize(jnp.array([[1.0, 3.0]]), axis=1, power=1).tolist()
        [[0.25, 0.75]]
    """
    size = jnp.abs(x) if power == 1 else jnp.square(x)
    norm = jnp.sum(size, axis, keepdims=True)
    norm = norm if power == 1 else jnp.sqrt(jnp.where(norm > 0, norm, 1)) * (norm > 0)
    return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1), 0)


def rms_normalize(x: Array, axes: Shape, epsilon: float) -> Array:
    """Divide by the root of the mean square over axes.

    Example:
        >>> rms_normalize(jnp.array([[3.0, -3.0]]), axes=(1,), epsilon=7.0).tolist()
        [[0.75, -0.75]]
    """
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), tuple(axes), keepdims=True) + np.asarray(epsilon, x.dtype))


def mean_variance_normalize(x: Array, axes: Shape) -> Array:
    """Subtract the mean over axes and divide by the standard deviation.

    Example:
        >>> mean_variance_normalize(jnp.array([[3.0, 4.0]]), axes=(1,)).round(3).tolist()
        [[-1.0, 1.0]]
    """
    centred = x - jnp.mean(x, tuple(axes), keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), tuple(axes), keepdims=True))
    return centred / (deviation + 1e-9)


def slope_below_zero(x: Array, slope: Array) -> Array:
    """X above 0, and x times a slope below.

    Example:
        >>> slope_below_zero(jnp.array([[-2.0, 2.0]]), jnp.array([0.5, 0.5])).tolist()
        [[-1.0, 2.0]]
    """
    return jnp.where(x < 0, slope * x, x)


def reduce(x: Array, kind: str, axes: Shape, keep: bool) -> Array:
    """A reduction over axes of the examples.

    Args:
        x: (batch, ...).
        kind: "mean", "sum", "max", "min", "prod", "l1", "l2", "log_sum", "log_sum_exp" or "sum_square".
        axes: which, counted with the batch.
        keep: whether the axes stay, with size 1.

    Example:
        >>> reduce(jnp.array([[3.0, 4.0]]), kind="l2", axes=(1,), keep=False).tolist()
        [5.0]
    """
    axes = tuple(axes)
    plain = {"mean": jnp.mean, "sum": jnp.sum, "max": jnp.max, "min": jnp.min, "prod": jnp.prod}
    if kind in plain:
        return plain[kind](x, axes, keepdims=keep)
    if kind == "l1":
        return jnp.sum(jnp.abs(x), axes, keepdims=keep)
    if kind == "log_sum_exp":
        return jax.nn.logsumexp(x, axes, keepdims=keep)
    if kind == "log_sum":
        return jnp.log(jnp.sum(x, axes, keepdims=keep))
    squares = jnp.sum(jnp.square(x), axes, keepdims=keep)
    return squares if kind == "sum_square" else jnp.sqrt(squares)


def arg_extreme(x: Array, kind: str, axis: int, keep: bool, last: bool) -> Array:
    """The index of the largest or smallest entry along an axis.

    Args:
        x: (batch, ...).
        kind: "max" or "min".
        axis: counted with the batch.
        keep: whether the axis stays, with size 1.
        last: whether the last of equal entries counts.

    Example:
        >>> arg_extreme(jnp.array([[1, 5, 5]]), kind="max", axis=1, keep=False, last=True).tolist()
        [2]
    """
    find = jnp.argmax if kind == "max" else jnp.argmin
    found = find(jnp.flip(x, axis) if last else x, axis, keepdims=keep)
    return x.shape[axis] - 1 - found if last else found


def cumulative_sum(x: Array, axis: int, exclusive: bool = False, reverse: bool = False) -> Array:
    """The sum of all entries up to each one along an axis.

    Args:
        x: (batch, ...).
        axis: counted with the batch.
        exclusive: whether an entry does not count itself.
        reverse: whether the sum is from the end.

    Example:
        >>> cumulative_sum(jnp.array([[1.0, 2.0, 3.0]]), axis=1, exclusive=True).tolist()
        [[0.0, 1.0, 3.0]]
    """
    x = jnp.flip(x, axis) if reverse else x
    made = jnp.cumsum(x, axis)
    if exclusive:
        first = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
        made = jnp.concatenate([first, jax.lax.slice_in_dim(made, 0, x.shape[axis] - 1, axis=axis)], axis)
    return jnp.flip(made, axis) if reverse else made


def power(x: Array, exponent: float) -> Array:
    """X to a constant power, by multiplication where it is a small whole number.

    Example:
        >>> power(jnp.array([[-2.0, 3.0]]), exponent=3.0).tolist()
        [[-8.0, 27.0]]
    """
    return x ** int(exponent) if float(exponent).is_integer() else jnp.power(x, np.asarray(exponent, x.dtype))


def total(*arrays: Array) -> Array:
    """The sum of arrays.

    Example:
        >>> total(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1))).tolist()
        [[3.0]]
    """
    return sum(arrays[1:], arrays[0])


def average(*arrays: Array) -> Array:
    """The mean of arrays.

    Example:
        >>> average(jnp.ones((1, 1)), jnp.full((1, 1), 3.0)).tolist()
        [[2.0]]
    """
    return total(*arrays) / len(arrays)


def largest(*arrays: Array) -> Array:
    """The largest entry at every place.

    Example:
        >>> largest(jnp.ones((1, 1)), jnp.full((1, 1), 3.0)).tolist()
        [[3.0]]
    """
    found = arrays[0]
    for array in arrays[1:]:
        found = jnp.maximum(found, array)
    return found


def smallest(*arrays: Array) -> Array:
    """The smallest entry at every place.

    Example:
        >>> smallest(jnp.ones((1, 1)), jnp.full((1, 1), 3.0)).tolist()
        [[1.0]]
    """
    found = arrays[0]
    for array in arrays[1:]:
        found = jnp.minimum(found, array)
    return found


def einsum(*arrays: Array, equation: str) -> Array:
    """Einstein's sum.

    Example:
        >>> einsum(jnp.ones((1, 2)), jnp.ones((1, 2)), equation="ni,ni->n").tolist()
        [2.0]
    """
    return jnp.einsum(equation, *arrays)
