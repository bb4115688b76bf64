"""In which precision a network computes, while its parameters are kept in theirs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

#: what fit and make_step take as ``precision``
HALVES = ("bfloat16", "float16")


def check_precision(precision: Any) -> str | None:
    """Raise unless precision is None or one that networks can compute in; returns its name.

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
    """Arrays of floating point in the precision to compute in; everything else as it is.

    Example:
        >>> low = lowered({"kernel": jnp.ones(2), "count": jnp.arange(2)}, "bfloat16")
        >>> str(low["kernel"].dtype), str(low["count"].dtype)
        ('bfloat16', 'int32')
    """
    if precision is None:
        return tree
    return jax.tree.map(lambda a: a.astype(precision) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def restored(tree: Any, like: Any) -> Any:
    """Arrays in the dtypes of a tree of the same form."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), tree, like)
