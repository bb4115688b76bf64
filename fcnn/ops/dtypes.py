"""What arithmetic is done in: the dtype of a result, and the wider one that sums are kept in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def common(*arrays: Any) -> Any:
    """The dtype that the arguments promote to by JAX's standard rules; ``None`` is passed over.

    The rule is asked for by name, so that results do not change where a program sets
    ``jax_numpy_dtype_promotion="strict"``.

    Example:
        >>> common(jnp.ones(2, "bfloat16"), None, jnp.ones(2, "float32"))
        dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*(a for a in arrays if a is not None))


def together(*arrays: Any) -> list[Any]:
    """The arguments as arrays of their common dtype; ``None`` stays ``None``."""
    dtype = common(*arrays)
    return [None if a is None else jnp.asarray(a).astype(dtype) for a in arrays]


def floating(x: Any) -> Any:
    """The argument as an array of floating point.

    Raises:
        TypeError: an array of integers, whose mean or norm would be cut to an integer.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x has dtype {x.dtype}, expected floating point; convert it first, x.astype('float32')")
    return x


def wide(dtype: Any) -> Any:
    """The dtype that statistics and sums are kept in: float32 for halves, else the dtype itself.

    Example:
        >>> wide(jnp.bfloat16), wide(jnp.float64)
        (dtype('float32'), dtype('float64'))
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(dtype, jnp.float32)


def plus(y: Any, bias: Any) -> Any:
    """The sum y + bias in the dtype of y, whose gradient with respect to the bias is summed in the wide one.

    Every position has a share in that gradient. A sum of so many in half precision stands still: in bfloat16 256 + 1 is
    256. The result is that of y + bias, rounded once.

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
    dtype = wide(y.dtype)
    return y + bias if dtype == y.dtype else (y.astype(dtype) + bias.astype(dtype)).astype(y.dtype)
