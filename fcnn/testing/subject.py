"""A layer with what the checks of the contract put to it: params, state and inputs, made once."""

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
#: of the random key in training
SEED = 3


class Subject:
    """A layer with what the checks put to it.

    Args:
        layer: a layer or network.
        shapes: the shape of one example of each input.
        inputs: a batch for each input; None: different numbers between -1 and 1.
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
        """What the layer gives in use, operation by operation."""
        return self.use(self.params, self.state, self.inputs)

    @cached_property
    def trained(self) -> tuple[Any, Any]:
        """What it gives in training, likewise."""
        return self.train(self.params, self.state, self.inputs)

    def use(self, params: Any, state: Any, inputs: tuple[Any, ...]) -> Any:
        return self.layer.apply(params, *inputs, state=state)

    def train(self, params: Any, state: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        return self.layer.apply_train(params, *inputs, key=jax.random.key(SEED), state=state)

    def cast(self, dtype: str) -> tuple[Any, Any]:
        """Params and inputs in a dtype; integers stay."""
        return jax.tree.map(lambda a: a.astype(dtype) if floating(a) else a, (self.params, self.inputs))

    def wide(self) -> Subject:
        """The same in float64, to be called where JAX has it."""
        inputs = None if self._given is None else tuple(a.astype("float64") if floating(a) else a for a in self.inputs)
        wide = Subject(self.layer, self.shapes, inputs)
        _ = wide.params, wide.state, wide.inputs  # now, and not while something is being traced
        return wide


def different_numbers(shape: Shape, seed: int) -> jax.Array:
    """Numbers between -1 and 1, no two alike, so that no maximum has a kink."""
    count = prod(shape)
    places = jax.random.permutation(jax.random.key(seed), count)
    return ((places.astype(jnp.zeros(()).dtype) + 0.5) * (2 / count) - 1).reshape(shape)


def floating(array: Any) -> bool:
    """Whether an array holds floating-point numbers."""
    return jnp.issubdtype(array.dtype, jnp.floating)
