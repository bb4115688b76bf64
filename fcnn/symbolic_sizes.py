"""Sizes that may be symbolic, as in ``jax.export``: not known before the program runs."""

from __future__ import annotations

import operator
from typing import Any


def symbolic(size: Any) -> bool:
    """Whether a size is not known before the program runs: a symbolic dimension of ``jax.export``.

    Example:
        >>> import jax
        >>> symbolic(3), symbolic(jax.export.symbolic_shape("batch")[0])
        (False, True)
    """
    return getattr(size, "dimension_as_value", None) is not None


def plain(size: Any) -> int:
    """A size as a plain Python integer; a symbolic one as it is."""
    return size if symbolic(size) else operator.index(size)


def plain_sizes(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    """Sizes along the axes as they are written: one number where they are equal.

    Example:
        >>> plain_sizes((3, 3)), plain_sizes((3, 5))
        (3, (3, 5))
    """
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def assumed(size: int, value: int = 1) -> int:
    """The size, or where it is symbolic the one assumed where the best of several equal ways is chosen.

    Example:
        >>> assumed(5)
        5
    """
    return value if symbolic(size) else size


def below(size: int, bound: int) -> bool:
    """Whether a size is surely below a bound: of symbolic sizes that is often not known.

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
