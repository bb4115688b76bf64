"""Sizes that may be symbolic, as in ``jax.export``: unknown until the program runs."""

from __future__ import annotations

import operator
from typing import Any


def symbolic(size: Any) -> bool:
    """Whether a size is a symbolic dimension of ``jax.export``, unknown until the program runs.

    Example:
        >>> import jax
        >>> symbolic(3), symbolic(jax.export.symbolic_shape("batch")[0])
        (False, True)
    """
    return getattr(size, "dimension_as_value", None) is not None


def plain(size: Any) -> int:
    """A size as a plain Python integer; a symbolic size is returned unchanged."""
    return size if symbolic(size) else operator.index(size)


def plain_sizes(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    """Sizes along the axes in their shortest form: one number where they are all equal.

    Example:
        >>> plain_sizes((3, 3)), plain_sizes((3, 5))
        (3, (3, 5))
    """
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def assumed(size: int, value: int = 1) -> int:
    """The size, or, where it is symbolic, the value to assume when choosing between equivalent algorithms.

    Example:
        >>> assumed(5)
        5
    """
    return value if symbolic(size) else size


def below(size: int, bound: int) -> bool:
    """Whether a size is certainly below a bound; False where symbolic sizes leave it open.

    Example:
        >>> below(2, 3), below(3, 3)
        (True, False)
    """
    if not symbolic(size) and not symbolic(bound):
        return size < bound
    from jax.errors import InconclusiveDimensionOperation

    try:
        return bool(size < bound)
    except InconclusiveDimensionOperation:
        return False


def larger(a: int, b: int) -> int:
    """The larger of two sizes, which may be symbolic.

    Example:
        >>> larger(2, 3)
        3
    """
    if not symbolic(a) and not symbolic(b):
        return max(a, b)
    from jax.core import max_dim

    return max_dim(a, b)
