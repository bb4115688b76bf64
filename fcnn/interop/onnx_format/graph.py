"""An ONNX graph in the making: nodes, weights, and values that know in which order of axes they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...geometry import Shape
from ..channel_order import to_first, to_last


class Inexpressible(ValueError):
    """A network, or a part of it, that ONNX has no form for."""


@dataclass(frozen=True)
class Value:
    """A value of the network in the graph.

    Attributes:
        name: its name in the graph; "" for a constant.
        shape: its shape here, with the batch first; -1 for the batch.
        order: which axis here each stored axis is: (0, 3, 1, 2) for an image stored with the channels first.
        constant: the array, in the order of axes here, of one that does not depend on the input.
        flat: the shape (*space, channels) that was flattened with the channels first; None: numbers are in order.
    """

    name: str
    shape: Shape
    order: Shape
    constant: np.ndarray | None = None
    flat: Shape | None = None

    @property
    def rank(self) -> int:
        """Number of axes, with the batch."""
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """Where an axis here is stored."""
        return self.order.index(axis % self.rank)


def channels_first(rank: int) -> Shape:
    """The order in which ONNX has (batch, *space, channels)."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


def _numeric(array: np.ndarray) -> bool:
    """Whether an array may hold NaN."""
    return array.dtype.kind in "fc"


class Graph:
    """Collects the nodes and weights of an ONNX graph, under names that are used once.

    Args:
        dtype: of all floating-point values.
    """

    def __init__(self, dtype: np.dtype) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._names: Counter[str] = Counter()
        self._known: dict[Any, str] = {}
        self.path = ""

    def fresh(self, name: str) -> str:
        """A name that is not used yet."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node of one output, named by the path of the layer; gives the name of the output."""
        label = self.fresh(f"{self.path}/{kind}" if self.path else kind)
        self.nodes.append(self._helper.make_node(kind, list(inputs), [label], name=label, **attributes))
        return label

    def weight(self, array: Any, name: str = "constant") -> str:
        """Add an array; equal small ones are kept once."""
        array = np.asarray(array)
        plain = name in ("constant", "numbers") and array.size <= 64
        key = (array.dtype.str, array.shape, array.tobytes()) if plain else None
        if key is not None and key in self._known:
            return self._known[key]
        label = self.fresh(f"{self.path}/{name}" if self.path and key is None else name)
        self.weights.append(self._numpy.from_array(np.asarray(array, order="C"), label))
        if key is not None:
            self._known[key] = label
        return label

    def floats(self, array: Any, name: str = "constant") -> str:
        """Add floating-point numbers."""
        return self.weight(np.asarray(array, self.dtype), name)

    def integers(self, numbers: Sequence[int]) -> str:
        """Add a vector of integers, such as axes or a shape."""
        return self.weight(np.asarray(numbers, np.int64), "numbers")

    def end(self, value: Value, label: str) -> None:
        """Give an output of the network its name."""
        self.path = ""
        node = self._helper.make_node("Identity", [self.image(value)], [self.fresh(label)], name=label)
        self.nodes.append(node)

    # values

    def made(self, name: str, shape: Shape, order: Shape | None = None, flat: Shape | None = None) -> Value:
        """A value of a name, stored with the channels first where nothing else is said."""
        return Value(name, tuple(shape), channels_first(len(shape)) if order is None else tuple(order), None, flat)

    def ordered(self, value: Value, order: Shape) -> Value:
        """The value with its axes stored in another order."""
        value = self.in_order(value)
        if value.order == tuple(order):
            return value
        before, after = (
            [axis for axis in axes if axis == 0 or value.shape[axis] != 1] for axes in (value.order, order)
        )
        if before == after and value.constant is None:  # axes of one sample change places: no number moves
            sizes = self.integers([0, *(value.shape[axis] for axis in order[1:])])
            return Value(self.node("Reshape", [value.name, sizes]), value.shape, tuple(order))
        steps = [value.order.index(axis) for axis in order]
        return Value(self.node("Transpose", [self.named(value)], perm=steps), value.shape, tuple(order))

    def image(self, value: Value) -> str:
        """The name of a value with the channels first."""
        return self.named(self.ordered(value, channels_first(value.rank)))

    def in_order(self, value: Value) -> Value:
        """A flattened value with its numbers in the order that they have here."""
        if value.flat is None:
            return value
        name = self.node("Gather", [value.name, self.integers(to_last(value.flat).tolist())], axis=1)
        return Value(name, value.shape, value.order)

    def named(self, value: Value) -> str:
        """The name of a value; a constant becomes a weight."""
        if value.constant is None:
            return value.name
        array = value.constant
        array = np.transpose(array, value.order) if array.ndim == len(value.order) else array
        return self.weight(array.astype(self.dtype) if array.dtype.kind == "f" else array)

    def beside(self, value: Value, other: Value) -> str:
        """The name of an operand of an elementwise operation, stored as another one is."""
        if value.constant is None:
            if value.flat != other.flat:
                value = self.in_order(value)
            return self.named(value if value.flat is not None else self.ordered(value, other.order))
        array = np.asarray(value.constant)
        if array.size and np.array_equal(array, np.broadcast_to(array.flat[0], array.shape), equal_nan=_numeric(array)):
            array = array.flat[0].reshape(())
        elif array.ndim == other.rank:
            if array.shape[0] > 1:  # the same for every example, of which there may be another number
                if not np.array_equal(array, np.broadcast_to(array[:1], array.shape), equal_nan=_numeric(array)):
                    raise Inexpressible("uses numbers that differ from example to example")
                array = array[:1]
            if other.flat is not None and array.shape[1] > 1:
                array = array[:, to_first(other.flat)]
            array = np.transpose(array, other.order)
        return self.weight(array.astype(self.dtype) if array.dtype.kind == "f" else array)
