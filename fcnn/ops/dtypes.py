"""Dtypes of arithmetic: the dtype of a result, and the wider dtype of sums."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..native import native


def common(*arrays: Any) -> Any:
    """The dtype that the arguments promote to by JAX's standard rules; ``None`` is ignored.

    The standard rules are selected explicitly, so that results do not change where a program sets
    ``jax_numpy_dtype_promotion="strict"``.

    Example:
        >>> common(jnp.ones(2, "bfloat16"), None, jnp.ones(2, "float32"))
        dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*(a for a in arrays if a is not None))


def together(*arrays: Any) -> list[Any]:
    """The arguments as arrays of their common dtype; ``None`` stays ``None``."""
    arrays = tuple(map(native, arrays))
    dtype = common(*arrays)
    return [None if a is None else jnp.asarray(a).astype(dtype) for a in arrays]


def floating(x: Any) -> Any:
    """The argument as a floating-point array.

    Raises:
        TypeError: an integer array, whose mean or norm would be truncated to an integer.
    """
    x = jnp.asarray(native(x))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x has dtype {x.dtype}, expected floating point; convert it first, x.astype('float32')")
    return x


def wide(dtype: Any) -> Any:
    """The dtype for statistics and sums: float32 for half precision and below, else the dtype itself.

    Example:
        >>> wide(jnp.bfloat16), wide(jnp.float64)
        (dtype('float32'), dtype('float64'))
    """
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 16:  # JAX does not promote these
        return jnp.dtype(jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(dtype, jnp.float32)


def beside(value: Any, y: Any) -> Any:
    """The value with leading axes of size 1, up to the rank of y; JAX may be configured to forbid rank promotion.

    Example:
        >>> beside(jnp.ones(4), jnp.ones((2, 3, 4))).shape
        (1, 1, 4)
    """
    missing = jnp.ndim(y) - jnp.ndim(value)
    return jnp.expand_dims(value, tuple(range(missing))) if missing > 0 and jnp.ndim(value) else value


def plus(y: Any, bias: Any) -> Any:
    """The sum y + bias in the dtype of y, whose gradient with respect to the bias is summed in the wide dtype.

    That gradient is a sum over all positions. In half precision such a sum stalls: in bfloat16, 256 + 1 is 256. The
    result is that of y + bias, rounded once.

    Args:
        y: an array.
        bias: an array of the same dtype that broadcasts to y; None: 0.

    Example:
        >>> ones = jnp.ones(1000, "bfloat16")
        >>> float(jax.grad(lambda bias: plus(ones, bias).sum())(ones[:1])[0])
        1000.0
    """
    if bias is None:
        return y
    dtype, bias = wide(y.dtype), beside(bias, y)
    return y + bias if dtype == y.dtype else (y.astype(dtype) + bias.astype(dtype)).astype(y.dtype)


def least(dtype: Any) -> Any:
    """The smallest value of a dtype, which never wins a maximum.

    Several formats of 8 bits and less have no infinity; there it is the smallest finite number.

    Raises:
        TypeError: complex numbers, which have no order.

    Example:
        >>> float(least(jnp.float32)), float(least(jnp.float8_e4m3fn)), int(least(jnp.uint8))
        (-inf, -448.0, 0)
    """
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"x has dtype {dtype}, and complex numbers have no order; pool x.real, x.imag or abs(x)")
    if dtype == jnp.bool_:
        return np.asarray(False)
    if not jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(jnp.iinfo(dtype).min, dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        infinite = np.asarray(-np.inf, np.float32).astype(dtype)
    return infinite if np.isneginf(infinite.astype(np.float32)) else np.asarray(jnp.finfo(dtype).min, dtype)
