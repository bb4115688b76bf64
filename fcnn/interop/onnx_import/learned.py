"""An operation of an array and a weight, where no layer of the library is that operation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ... import geometry, names
from ...geometry import Shape
from ...layer import Layer
from ...types import Parameter, Params


def beside(x: jax.Array, value: jax.Array, *, axis: int, first: bool) -> jax.Array:
    """A weight, the same for every example, next to x along an axis."""
    value = jnp.broadcast_to(value, (x.shape[0], *value.shape)).astype(x.dtype)
    return jnp.concatenate([value, x] if first else [x, value], axis)


@dataclass(frozen=True, repr=False)
class Combine(Layer):
    r"""An operation of x and a weight, such as :math:`x + w` or :math:`w x`.

    Args:
        operation: a function of two arrays, such as ``jnp.add`` or ``jnp.matmul``.
        shape: of the weight, without the batch; it is broadcast.
        first: whether the weight comes first.
        start: initial value of all its numbers.

    Shapes:
        x (batch, ...) to what the operation gives; params["weight"] as ``shape``.

    Raises:
        TypeError: an operation that is no function.

    Example:
        >>> layer = Combine(jnp.add, (3,), start=0.5)
        >>> layer.apply(layer.init(jax.random.key(0), (2, 3)), jnp.zeros((1, 2, 3))).tolist()
        [[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]]
    """

    operation: Callable[..., Any]
    shape: Shape
    _: KW_ONLY
    first: bool = False
    start: float = 0.0

    def check(self) -> dict[str, Any]:
        if not callable(self.operation):
            raise TypeError(f"the operation must be a function of two arrays, not {self.operation!r}")
        return {"shape": geometry.check_sizes(tuple(self.shape), "shape", 0) if self.shape else ()}

    @property
    def label(self) -> str:
        return names.snake(names.short(self.operation))

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        return {"weight": Parameter(self.shape, jax.nn.initializers.constant(self.start))}

    def infer_shape(self, *shapes: Shape) -> Shape:
        weight = jax.ShapeDtypeStruct(self.shape, jnp.zeros(()).dtype)
        x = jax.ShapeDtypeStruct((12, *shapes[0]), weight.dtype)
        return tuple(jax.eval_shape(self._combined, x, weight).shape[1:])

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return self._combined(inputs[0], params["weight"])

    def _combined(self, x: jax.Array, weight: jax.Array) -> jax.Array:
        if isinstance(self.operation, functools.partial) and self.operation.func is beside:
            return self.operation(x, weight)
        if weight.dtype != x.dtype:
            weight = weight.astype(x.dtype)
        return self.operation(weight, x) if self.first else self.operation(x, weight)
