"""Graphs with branches: operations are recorded on a tape, which backward reads from the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from .gates import Add, MatMul, Multiply, Transpose
from .node import Node


class Tape:
    r"""The operations of a graph in the order in which they ran.

    Backward goes through the tape in reverse. A value that was used several times gets

    .. math:: \frac{\partial L}{\partial x} = \sum_{\text{uses } y \text{ of } x}
        \frac{\partial L}{\partial y} \frac{\partial y}{\partial x}

    Source:
        Wengert, "A simple automatic derivative evaluation program", 1964; Linnainmaa 1970.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Sigmoid, Tape, apply, backward
        >>> tape = Tape()
        >>> w, x, b = (tape.value(np.array(v)) for v in (2.0, -1.0, 3.0))
        >>> y = apply(Sigmoid(), w * x + b)
        >>> backward(y, np.array(1.0))
        >>> round(float(y.array), 2), [round(float(v.gradient), 1) for v in (w, x, b)]
        (0.73, [-0.2, 0.4, 0.2])
    """

    def __init__(self) -> None:
        self.records: list[tuple[Node, tuple[Value, ...], Value]] = []

    def value(self, array: Any) -> Value:
        """Create a value on the tape, whose gradient ``backward`` computes."""
        return Value(array, self)


class Value:
    """An array on a tape, with the gradient of the loss with respect to it.

    Values support addition, subtraction, multiplication, matrix multiplication (``@``), transposition (``.T``) and
    negation, with each other and with plain numbers and arrays.

    Args:
        array: the array.
        tape: the tape on which operations on it are recorded.

    Shapes:
        ``gradient`` has the shape of ``array``; zeros before ``backward``.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Tape, backward
        >>> x = Tape().value(np.array([3.0]))
        >>> y = x * x - 2 * x    # three uses of x
        >>> backward(y, np.ones(1))
        >>> y.array.tolist(), x.gradient.tolist()
        ([3.0], [4.0])
    """

    __array_ufunc__ = None  # array * value is a value, not an array of values

    def __init__(self, array: Any, tape: Tape) -> None:
        array = np.asarray(array)
        self.array = array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
        self.gradient = np.zeros_like(self.array)
        self.tape = tape

    def __add__(self, other: Any) -> Value:
        return apply(Add(), self, self._lift(other))

    def __mul__(self, other: Any) -> Value:
        return apply(Multiply(), self, self._lift(other))

    def __matmul__(self, other: Any) -> Value:
        return apply(MatMul(), self, self._lift(other))

    def __neg__(self) -> Value:
        return self * -1.0

    def __sub__(self, other: Any) -> Value:
        return self + -self._lift(other)

    def __rsub__(self, other: Any) -> Value:
        return self._lift(other) + -self

    def __rmatmul__(self, other: Any) -> Value:
        return self._lift(other) @ self

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def T(self) -> Value:
        """The transpose."""
        return apply(Transpose(), self)

    def __repr__(self) -> str:
        return f"Value({self.array!r})"

    def _lift(self, other: Any) -> Value:
        if isinstance(other, Value):
            return other
        # a plain number takes the dtype of the other operand
        return Value(np.asarray(other, None if np.ndim(other) else self.array.dtype), self.tape)


def apply(node: Node, *values: Value) -> Value:
    """Run a node forward on values and record it on their tape.

    Args:
        node: any node; it may be applied several times, which shares its parameters.
        values: its inputs, all on one tape.

    Raises:
        TypeError: if an input is not a value.
        ValueError: if there are no inputs, or they are on several tapes.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import ReLU, Tape, apply
        >>> apply(ReLU(), Tape().value(np.array([-1.0, 2.0]))).array.tolist()
        [0.0, 2.0]
    """
    for value in values:
        if not isinstance(value, Value):
            raise TypeError(f"apply takes values on a tape, not a {type(value).__name__}; write tape.value(array)")
    if len({id(value.tape) for value in values}) != 1:
        raise ValueError("the inputs must be at least one value, and all on the same tape")
    tape = values[0].tape
    y = Value(node.forward(*(value.array for value in values)), tape)
    tape.records.append((node, values, y))
    return y


def backward(value: Value, gradient: Any) -> None:
    """Go through the tape in reverse, and store the gradients in the values and in the nodes of parameters.

    The tape is empty afterwards.

    Args:
        value: the value whose gradient is known, usually the loss.
        gradient: the gradient with respect to it.

    Raises:
        ValueError: if the gradient has another shape, or the tape is empty.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Tape, backward
        >>> a = Tape().value(np.array([[1.0, 2.0]]))
        >>> backward(a @ a.T, np.ones((1, 1)))
        >>> a.gradient.tolist()
        [[2.0, 4.0]]
    """
    if np.shape(gradient) != value.array.shape:
        raise ValueError(f"the gradient has shape {np.shape(gradient)}, the value {value.array.shape}")
    if not value.tape.records:
        raise ValueError("nothing is written on the tape, or backward was run on it before")
    value.gradient = value.gradient + gradient
    # all records, including those that do not lead to ``value``: their nodes must pop their stacks
    while value.tape.records:
        node, inputs, output = value.tape.records.pop()
        for x, share in zip(inputs, node.backward(output.gradient), strict=True):
            x.gradient = x.gradient + share  # gradients are summed at branches
