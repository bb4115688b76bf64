"""Results that can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import ops


class Known(NamedTuple):
    """An operation, its arguments, and its value and gradients computed by hand.

    Attributes:
        name: name of the case.
        operation: a function of the arguments.
        arguments: arrays.
        cotangent: the gradient with respect to the output.
        value: the output.
        gradients: the gradients with respect to the arguments.
    """

    name: str
    operation: Callable[..., jax.Array]
    arguments: tuple[Any, ...]
    cotangent: Any
    value: Any
    gradients: tuple[Any, ...]


def _line(*values: float) -> np.ndarray:
    """One example with one channel."""
    return np.array(values).reshape(1, -1, 1)


def _kernel(*values: float) -> np.ndarray:
    return np.array(values).reshape(-1, 1, 1)


KNOWN = (
    Known(
        "conv",
        ops.conv,
        (_line(1, 2, 3), _kernel(0.3, 0.5)),
        _line(-0.1, 0.2),
        _line(1.3, 2.1),
        (_line(-0.03, 0.01, 0.1), _kernel(0.3, 0.4)),
    ),
    Known(
        "conv with stride 2 and one zero before",
        lambda x, w: ops.conv(x, w, stride=2, padding=((1, 0),)),
        (_line(1, 2, 3), _kernel(0.3, 0.5)),
        _line(1, 10),
        _line(0.5, 2.1),
        (_line(0.5, 3, 5), _kernel(20, 31)),
    ),
    Known(
        "conv_transpose with stride 2",
        lambda x, w: ops.conv_transpose(x, w, stride=2),
        (_line(1, 2), _kernel(1, 10, 100)),
        _line(1, 2, 3, 4, 5),
        _line(1, 10, 102, 20, 200),
        (_line(321, 543), _kernel(7, 10, 13)),
    ),
    Known(
        "locally_connected",
        ops.locally_connected,
        (_line(1, 2, 3), np.array([[1.0, 2], [3, 4]]).reshape(2, 2, 1, 1)),
        _line(1, 10),
        _line(5, 18),
        (_line(1, 32, 40), np.array([[1.0, 2], [20, 30]]).reshape(2, 2, 1, 1)),
    ),
    Known(
        "dense",
        ops.dense,
        (np.array([[1.0, 2]]), np.array([[3.0], [4]])),
        np.array([[2.0]]),
        np.array([[11.0]]),
        (np.array([[6.0, 8]]), np.array([[2.0], [4]])),
    ),
    Known(
        "max_pool with a tie",
        lambda x: ops.max_pool(x, 2),
        (_line(1, 3, 2, 2),),
        _line(5, 7),
        _line(3, 2),
        (_line(0, 5, 7, 0),),
    ),
    Known(
        "avg_pool with padding that is not counted",
        lambda x: ops.avg_pool(x, 3, stride=1, padding="SAME"),
        (_line(4, 2, 6),),
        _line(6, 6, 6),
        _line(3, 4, 4),
        (_line(5, 8, 5),),
    ),
    Known("lp_pool", lambda x: ops.lp_pool(x, 2), (_line(3, -4),), _line(1), _line(5), (_line(0.6, -0.8),)),
    Known(
        "maxout",
        lambda x: ops.maxout(x, 2),
        (np.array([[1.0, 4, 2, 0]]),),
        np.array([[5.0, 7]]),
        np.array([[4.0, 2]]),
        (np.array([[0.0, 5, 7, 0]]),),
    ),
)

#: the allowed error of a known result, a sum of a few products, in units in the last place
BOUND = 8.0


def wrong(known: Known) -> float:
    """The largest error of a known result, value and gradients, in units in the last place.

    Example:
        >>> wrong(KNOWN[0]) <= BOUND
        True
    """

    def both(arguments: Any, cotangent: Any) -> Any:
        value, pull = jax.vjp(known.operation, *arguments)
        return value, pull(cotangent)

    single = [np.asarray(a, np.float32) for a in (*known.arguments, known.cotangent)]
    found = jax.jit(both)(tuple(map(jnp.asarray, single[:-1])), jnp.asarray(single[-1]))
    expected = jax.tree.leaves((known.value, known.gradients))
    return max(ulps(np.asarray(f), e) for f, e in zip(jax.tree.leaves(found), expected, strict=True))


def ulps(found: np.ndarray, expected: np.ndarray, least: float = 0.0) -> float:
    """The largest difference, in units in the last place of the expected value with the largest magnitude.

    Args:
        found: the result in float32.
        expected: the correct result, in float64.
        least: a lower bound on that magnitude.

    Returns:
        The error; infinity if ``found`` contains NaN or infinity, or has another shape.

    Example:
        >>> ulps(np.float32([1.0, 2.0]), np.array([1.0, 2.0 + 2.0**-22]))
        1.0
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    largest = max(float(np.abs(expected).max(initial=0.0)), least, float(np.finfo(np.float32).tiny))
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0) / np.spacing(np.float32(largest)))
