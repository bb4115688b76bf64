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
