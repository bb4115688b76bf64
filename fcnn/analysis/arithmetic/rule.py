"""What a primitive is by hand: its value, and what takes a gradient back through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

#: forward(*inputs) -> y, and backward(gradient, y, *inputs) -> one gradient for each input, None for no gradient;
#: for a primitive with several results, y and gradient are lists
Rule = tuple[Callable[..., Any], Callable[..., tuple[Any, ...]]]
#: what makes the rule of a primitive with parameters, from them and the shapes of its inputs
Maker = Callable[..., Rule]


def unary(value: Callable[..., Any], slope: Callable[..., Any]) -> Rule:
    """The rule of y = f(x), from f and dy/dx as a function of x and y."""
    return value, lambda g, y, x: (g * slope(x, y),)


def without_gradient(value: Callable[..., Any]) -> Rule:
    """The rule of what has no derivative, or derivative 0 wherever it has one."""
    return value, lambda g, y, *inputs: (None,) * len(inputs)


def widened(value: Any) -> Any:
    """A value as it is computed with here: floating point of any width in double precision, all else as it is."""
    array = np.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array.astype(np.complex128)
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
