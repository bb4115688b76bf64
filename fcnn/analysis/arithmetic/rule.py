"""The hand-written rule of a primitive: its value and its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

#: forward(*inputs) -> y, and backward(gradient, y, *inputs) -> one gradient for each input, None for no gradient;
#: for a primitive with several results, y and gradient are lists
Rule = tuple[Callable[..., Any], Callable[..., tuple[Any, ...]]]
#: builds the rule of a primitive with parameters, from its parameters and the shapes of its inputs
Maker = Callable[..., Rule]


def unary(value: Callable[..., Any], slope: Callable[..., Any]) -> Rule:
    """The rule of y = f(x), from f and dy/dx as a function of x and y."""
    return value, lambda g, y, x: (g * slope(x, y),)


def without_gradient(value: Callable[..., Any]) -> Rule:
    """The rule of a function without a derivative, or whose derivative is 0 wherever it exists."""
    return value, lambda g, y, *inputs: (None,) * len(inputs)


def widened(value: Any) -> Any:
    """A value in the precision used here: floating point of any width becomes double; other types are unchanged."""
    array = np.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array.astype(np.complex128)
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
