"""What a value of an ONNX graph is while the network is built, and the steps that compute it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...geometry import Shape


class Unreadable(ValueError):
    """A node that has no counterpart here; the message goes on after the name of the node."""


@dataclass(frozen=True)
class Value:
    """A value that depends on the network's input.

    Attributes:
        source: the number of the step that computes it; -1 for the first input, -2 for the second.
        shape: its shape in the file, with the batch.
        order: the axis in the file of every axis here; the first one is the batch's.
        dtype: its dtype.
        flat: the shape (*space, channels) that was flattened here with the channels last, where the file has the
            channels first; None: the numbers are in the file's order.
    """

    source: int
    shape: Shape
    order: Shape
    dtype: Any
    flat: Shape | None = None

    @property
    def rank(self) -> int:
        """Number of axes, with the batch."""
        return len(self.shape)

    @property
    def example(self) -> Shape:
        """The shape of one example, in the order of axes here."""
        return tuple(self.shape[axis] for axis in self.order[1:])

    def place(self, axis: int) -> int:
        """Where an axis of the file is here."""
        return self.order.index(axis % self.rank)


@dataclass(frozen=True)
class Merged:
    """A value in a shape that does not keep the examples apart; only another reshape makes it a value again.

    Attributes:
        value: the value.
        shape: the shape.
    """

    value: Value
    shape: Shape


@dataclass(frozen=True)
class Constant:
    """A value that does not depend on the input.

    Attributes:
        array: its numbers.
        name: the initialiser that it is; "": it was computed. Equal names mean shared weights.
    """

    array: np.ndarray
    name: str = ""

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.array.shape

    @property
    def uniform(self) -> bool:
        """Whether all its numbers are equal, so that one stands for it."""
        array = self.array
        if array.size == 0 or array.dtype.kind not in "fiub":
            return False
        few = np.ravel(array[(slice(0, 2),) * array.ndim])  # of most arrays these tell
        if not np.array_equal(few, np.broadcast_to(few[0], few.shape), equal_nan=array.dtype.kind == "f"):
            return False
        return bool(
            np.array_equal(array, np.broadcast_to(array.flat[0], array.shape), equal_nan=array.dtype.kind == "f")
        )


@dataclass(frozen=True)
class Step:
    """One layer, or one function of several values, applied to values.

    Attributes:
        label: a name that no other step has.
        kind: the kind of its layer or function, in snake case.
        path: the modules that the file's name of the node tells, from the outside in.
        layer: a layer, or a function.
        inputs: the sources of its inputs.
        params: the layer's parameters.
        state: the layer's state.
        weights: the initialisers that the parameters were made of, by name; with the layer, they tell shared layers.
        join: "sum" or "concat" where the step is that of ``residual`` and ``branches``.
        example: the shape of one example of its output.
    """

    label: str
    kind: str
    path: tuple[str, ...]
    layer: Any
    inputs: tuple[int, ...]
    params: dict[str, np.ndarray] = field(default_factory=dict)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    join: str = ""
    example: Shape = ()


def channels_last(rank: int) -> Shape:
    """The file's axes (batch, channels, *space) in the order (batch, *space, channels).

    Example:
        >>> channels_last(4), channels_last(2)
        ((0, 2, 3, 1), (0, 1))
    """
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))
