"""Mixed precision: the precision that a network computes in, while its parameters keep their own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

#: the values of ``precision`` in fit and make_step
HALVES = ("bfloat16", "float16")


def check_precision(precision: Any) -> str | None:
    """The name of a precision to compute in, or None.

    Raises:
        ValueError: another dtype.
    """
    if precision is None:
        return None
    name = precision if isinstance(precision, str) else getattr(precision, "__name__", str(precision))
    if name not in HALVES:
        raise ValueError(
            f"precision is {precision!r}, expected one of {', '.join(HALVES)}, or None to compute in the precision "
            "of the parameters"
        )
    return name


def lowered(tree: Any, precision: str | None) -> Any:
    """Floating-point arrays in the precision to compute in; other arrays as they are.

    Example:
        >>> low = lowered({"kernel": jnp.ones(2), "count": jnp.arange(2)}, "bfloat16")
        >>> str(low["kernel"].dtype), str(low["count"].dtype)
        ('bfloat16', 'int32')
    """
    if precision is None:
        return tree
    return jax.tree.map(lambda a: a.astype(precision) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def restored(tree: Any, like: Any) -> Any:
    """Arrays in the dtypes of a tree of the same structure."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), tree, like)
