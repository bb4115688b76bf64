"""A layer with the params, state and inputs for the checks of the contract, created once."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from ..geometry import Shape
from ..layer import Layer

#: examples in a batch
BATCH = 3
#: seed of the random key in training
SEED = 3


class Subject:
    """A layer with the params, state and inputs for the checks.

    Args:
        layer: a layer or network.
        shapes: the shape of one example of each input.
        inputs: a batch for each input; None: distinct numbers between -1 and 1.
    """

    def __init__(self, layer: Layer, shapes: tuple[Shape, ...], inputs: tuple[Any, ...] | None = None) -> None:
        self.layer, self.shapes, self._given = layer, shapes, inputs

    @cached_property
    def params(self) -> Any:
        return self.layer.init(jax.random.key(0), *self.shapes)

    @cached_property
    def state(self) -> Any:
        return self.layer.init_state(*self.shapes)

    @cached_property
    def inputs(self) -> tuple[Any, ...]:
        if self._given is not None:
            return tuple(map(jnp.asarray, self._given))
        return tuple(different_numbers((BATCH, *shape), seed) for seed, shape in enumerate(self.shapes, 7))

    @cached_property
    def used(self) -> Any:
        """The layer's output at inference, without jit."""
        return self.use(self.params, self.state, self.inputs)

    @cached_property
    def trained(self) -> tuple[Any, Any]:
        """Its output and state in training, likewise."""
        return self.train(self.params, self.state, self.inputs)

    def use(self, params: Any, state: Any, inputs: tuple[Any, ...]) -> Any:
        return self.layer.apply(params, *inputs, state=state)

    def train(self, params: Any, state: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        return self.layer.apply_train(params, *inputs, key=jax.random.key(SEED), state=state)

    def cast(self, dtype: str) -> tuple[Any, Any]:
        """Params and inputs in a dtype; integers are unchanged."""
        return jax.tree.map(lambda a: a.astype(dtype) if floating(a) else a, (self.params, self.inputs))

    def wide(self) -> Subject:
        """The same in float64; call it with 64-bit mode enabled."""
        inputs = None if self._given is None else tuple(a.astype("float64") if floating(a) else a for a in self.inputs)
        wide = Subject(self.layer, self.shapes, inputs)
        _ = wide.params, wide.state, wide.inputs  # compute them now, not during a trace
        return wide


def different_numbers(shape: Shape, seed: int) -> jax.Array:
    """Distinct numbers between -1 and 1, so that no maximum has a tie."""
    count = prod(shape)
    places = jax.random.permutation(jax.random.key(seed), count)
    return ((places.astype(jnp.zeros(()).dtype) + 0.5) * (2 / count) - 1).reshape(shape)


def floating(array: Any) -> bool:
    """Whether an array holds floating-point numbers."""
    return jnp.issubdtype(array.dtype, jnp.floating)
