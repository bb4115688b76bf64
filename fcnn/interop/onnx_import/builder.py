"""A network in the making: steps, and values in the order of axes that each step wants."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import names
from ...geometry import Shape
from ...layer import Layer
from ..channel_order import to_last
from . import movements
from .labels import Labels
from .values import Constant, Step, Unreadable, Value, channels_last

#: numbers of a table that a function may hold; a larger one has to be a weight
TABLE = 1024


class Builder:
    """Collects steps.

    Args:
        batch: the number of examples that the shapes of values are computed for.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.steps: list[Step] = []
        self.labels = Labels()
        self.path: tuple[str, ...] = ()  # the modules of the node that is being read

    def layer(
        self,
        layer: Layer,
        value: Value,
        *,
        order: Shape | None = None,
        flat: Shape | None = None,
        params: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
        weights: Sequence[Constant] = (),
    ) -> Value:
        """Add a layer of one input.

        Args:
            layer: the layer.
            value: its input.
            order: the axes in the file of its output; None: those of the input.
            flat: as ``Value.flat``, of the output.
            params: its parameters.
            state: its state.
            weights: what they were made of.

        Returns:
            Its output.
        """
        if not value.example:
            raise Unreadable("takes one number for each example, and a layer needs an axis of channels")
        try:
            shape = layer.infer_shape(*layer.accept_shapes((value.example,)))
        except ValueError as error:
            raise Unreadable(f"{names.code(layer)}: {error}") from None
        except TypeError as error:  # of an operation of JAX, with a remark on its traceback
            raise Unreadable(f"{names.code(layer)}: {str(error).splitlines()[0]}") from None
        dtype = jnp.zeros(()).dtype
        arrays = [{name: np.asarray(a) for name, a in (given or {}).items()} for given in (params, state)]
        made = tuple(weight.name for weight in weights)
        # exporters store equal arrays once, so that all norms of a network that was never trained have the same ones
        fresh = all(weight.uniform for weight in weights)
        step = self._step(layer.label, layer, (value.source,), *arrays, made if all(made) and not fresh else ())
        return self._add(step, tuple(shape), value.order if order is None else order, dtype, flat)

    def call(
        self, function: Any, values: Sequence[Value], *, order: Shape | None = None, flat: Shape | None = None,
        join: str = "",
    ) -> Value:  # fmt: skip
        """Add a function of one or several values.

        Args:
            function: from arrays with the batch first to one.
            values: its inputs.
            order: the axes in the file of its output; None: those of the first input.
            flat: as ``Value.flat``, of the output.
            join: as ``Step.join``.
        """
        abstract = [jax.ShapeDtypeStruct((self.batch, *v.example), v.dtype) for v in values]
        try:
            made = jax.eval_shape(function, *abstract)
        except (TypeError, ValueError) as error:
            raise Unreadable(f"{names.code(function)}: {str(error).splitlines()[0]}") from None
        if not made.shape or made.shape[0] != self.batch:
            raise Unreadable("does not keep the examples apart")
        kind = names.snake(names.short(function)).strip("_") or "function"
        step = self._step(kind, function, tuple(v.source for v in values), join=join)
        return self._add(step, made.shape[1:], values[0].order if order is None else order, made.dtype, flat)

    def _step(self, kind: str, *rest: Any, **more: Any) -> Step:
        return Step(self.labels.of(kind, self.path), kind, self.path, *rest, **more)

    def _add(self, step: Step, example: Shape, order: Shape, dtype: Any, flat: Shape | None) -> Value:
        if len(order) != len(example) + 1:
            raise Unreadable(f"gives {len(example) + 1} axes where {len(order)} were expected")
        self.steps.append(replace(step, example=tuple(example)))
        shape = [0] * len(order)
        for axis, size in zip(order, (self.batch, *example), strict=True):
            shape[axis] = size
        return Value(len(self.steps) - 1, tuple(shape), tuple(order), dtype, flat)

    # the order of axes

    def in_order(self, value: Value) -> Value:
        """A value with its numbers in the file's order."""
        if value.flat is None:
            return value
        if value.flat[-1] == 1 or len(value.flat) == 1 or np.prod(value.flat[:-1]) == 1:
            return Value(value.source, value.shape, value.order, value.dtype)
        return self.call(functools.partial(movements.channels_first_order, shape=value.flat), [value])

    def ordered(self, value: Value, order: Shape) -> Value:
        """A value with its axes in an order; the batch has to stay where it is."""
        value = self.in_order(value)
        if value.order == tuple(order):
            return value
        if value.order[0] != order[0]:
            raise Unreadable("moves the examples away from the first axis")
        before, after = ([axis for axis in axes[1:] if value.shape[axis] != 1] for axes in (value.order, order))
        if before == after:  # axes of one sample change places: no number moves
            sizes = tuple(value.shape[axis] for axis in order[1:])
            return self.call(functools.partial(movements.reshape, shape=sizes), [value], order=tuple(order))
        steps = tuple(value.order.index(axis) for axis in order[1:])
        return self.call(functools.partial(movements.permute, axes=steps), [value], order=tuple(order))

    def image(self, value: Value) -> Value:
        """A value as (batch, *space, channels)."""
        return self.ordered(value, channels_last(value.rank))

    def plain(self, value: Value) -> Value:
        """A value with its axes in the file's order."""
        return self.ordered(value, tuple(range(value.rank)))

    def last(self, value: Value, axis: int) -> Value:
        """A value with an axis of the file as the last one."""
        axis %= value.rank
        if value.order[-1] == axis:
            return value if value.rank > 2 else self.in_order(value)
        if axis == value.order[0]:
            raise Unreadable("works along the axis of the examples")
        return self.ordered(value, (*(a for a in value.order if a != axis), axis))

    def own_axes(self, value: Value, axes: Sequence[int]) -> Shape:
        """Where axes of the file are here; the axis of the examples is refused."""
        found = tuple(value.place(axis) for axis in axes)
        if 0 in found:
            raise Unreadable("works along the axis of the examples, and a network treats every example by itself")
        return found

    # constants beside values

    def table(self, constant: Constant, value: Value) -> np.ndarray:
        """A constant as an array next to a value: axes in the value's order, without the batch."""
        array = constant.array
        if array.ndim > value.rank:
            raise Unreadable("gives a value more axes than it has")
        array = array.reshape((1,) * (value.rank - array.ndim) + array.shape)
        array = np.transpose(array, value.order)
        if array.shape[0] > 1:
            if array.shape[0] != self.batch:
                raise Unreadable(f"makes {array.shape[0]} examples of one")
            if not np.array_equal(array, np.broadcast_to(array[:1], array.shape), equal_nan=array.dtype.kind == "f"):
                raise Unreadable("uses numbers that differ from example to example")
            array = array[:1]
        if value.flat is not None and array.shape[-1] == value.example[-1] > 1:
            array = array[..., to_last(value.flat)]
        array = array[0]
        while array.ndim and array.shape[0] == 1:  # broadcast anyway
            array = array[0]
        return array
