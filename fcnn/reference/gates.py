"""Gates of a computational graph: addition, multiplication, maximum, copying, concatenation and others."""

from __future__ import annotations

from typing import Any

import numpy as np

from .node import Node, unbroadcast


class Add(Node):
    r"""Add any number of inputs; backward passes the gradient to all of them.

    .. math:: y = \sum_i x_i, \qquad \frac{\partial L}{\partial x_i} = \frac{\partial L}{\partial y}

    Shapes:
        Inputs that broadcast with one another; each gradient has the shape of its input.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Add
        >>> gate = Add()
        >>> y = gate.forward(np.array([1.0]), np.array([2.0]))
        >>> y.tolist(), [g.tolist() for g in gate.backward(np.array([5.0]))]
        ([3.0], [[5.0], [5.0]])
    """

    def forward(self, *inputs: np.ndarray) -> np.ndarray:
        if not inputs:
            raise ValueError("Add needs at least one input")
        y = np.asarray(sum(inputs[1:], start=inputs[0]))
        return self.keep(y, [np.shape(x) for x in inputs])

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (shapes,) = self.recall(gradient)
        return tuple(unbroadcast(gradient, shape) for shape in shapes)


class Multiply(Node):
    r"""Multiply two inputs; backward multiplies the gradient by the *other* input.

    .. math:: y = a b, \qquad \frac{\partial L}{\partial a} = \frac{\partial L}{\partial y} b, \qquad
        \frac{\partial L}{\partial b} = \frac{\partial L}{\partial y} a

    Shapes:
        Inputs that broadcast with one another; each gradient has the shape of its input.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Multiply
        >>> gate = Multiply()
        >>> y = gate.forward(np.array([3.0]), np.array([4.0]))
        >>> y.tolist(), [g.tolist() for g in gate.backward(np.array([1.0]))]
        ([12.0], [[4.0], [3.0]])
    """

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.keep(np.asarray(a * b), a, b)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = self.recall(gradient)
        return unbroadcast(gradient * b, np.shape(a)), unbroadcast(gradient * a, np.shape(b))


class Max(Node):
    r"""The elementwise maximum of two or more inputs; backward routes the gradient to the winner.

    .. math:: y = \max_i x_i, \qquad \frac{\partial L}{\partial x_i} =
        \frac{\partial L}{\partial y} \, [i \text{ is the first with } x_i = y]

    Shapes:
        Inputs of equal shape.

    Raises:
        ValueError: if there are fewer than two inputs, or their shapes differ.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Max
        >>> gate = Max()
        >>> y = gate.forward(np.array([1.0, 5.0, 2.0]), np.array([3.0, 4.0, 2.0]))
        >>> y.tolist(), [g.tolist() for g in gate.backward(np.ones(3))]    # the tie goes to the first
        ([3.0, 5.0, 2.0], [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    """

    def forward(self, *inputs: np.ndarray) -> np.ndarray:
        shapes = {np.shape(x) for x in inputs}
        if len(inputs) < 2 or len(shapes) > 1:
            raise ValueError(f"Max compares two or more inputs of one shape, not {[np.shape(x) for x in inputs]}")
        stacked = np.stack(inputs)  # (inputs, *shape)
        winner = stacked.argmax(0)  # the first maximum
        return self.keep(stacked.max(0), winner, len(inputs))

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        winner, count = self.recall(gradient)
        return tuple(np.where(winner == i, gradient, 0) for i in range(count))


class Copy(Node):
    r"""A branch: one input goes to n places, and the gradients that come back are added.

    .. math:: y_i = x, \qquad \frac{\partial L}{\partial x} = \sum_{i=1}^n \frac{\partial L}{\partial y_i}

    Args:
        n: number of copies.

    Shapes:
        x of any shape to a tuple of n such arrays; backward takes a tuple of n gradients.

    Raises:
        ValueError: if n is below 1, or there are not n gradients.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Copy
        >>> gate = Copy(2)
        >>> a, b = gate.forward(np.array([1.0]))
        >>> gate.backward((np.array([3.0]), np.array([4.0])))[0].tolist()
        [7.0]
    """

    def __init__(self, n: int = 2) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n is {n}, it must be at least 1")
        self.n = n

    def forward(self, x: np.ndarray) -> Any:
        self.keep(x)
        return (x,) * self.n

    def backward(self, gradient: Any) -> tuple[np.ndarray, ...]:
        if len(gradient) != self.n:
            raise ValueError(f"{len(gradient)} gradients are given for {self.n} copies")
        total = np.asarray(sum(gradient[1:], start=gradient[0]))
        self.recall(total)
        return (total,)


class MatMul(Node):
    r"""The product of two matrices, or of stacks of them.

    .. math:: y = a b, \qquad \frac{\partial L}{\partial a} = \frac{\partial L}{\partial y} b^\top, \qquad
        \frac{\partial L}{\partial b} = a^\top \frac{\partial L}{\partial y}

    Shapes:
        a (..., n, m), b (..., m, k) to (..., n, k).

    Raises:
        ValueError: if an input is not a matrix.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import MatMul
        >>> gate = MatMul()
        >>> y = gate.forward(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
        >>> y.tolist(), [g.tolist() for g in gate.backward(np.ones((1, 1)))]
        ([[11.0]], [[[3.0, 4.0]], [[1.0], [2.0]]])
    """

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if np.ndim(a) < 2 or np.ndim(b) < 2:
            raise ValueError(f"MatMul takes matrices, not shapes {np.shape(a)} and {np.shape(b)}")
        return self.keep(a @ b, a, b)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = self.recall(gradient)
        da = gradient @ b.swapaxes(-1, -2)  # (..., n, k) (..., k, m)
        db = a.swapaxes(-1, -2) @ gradient  # (..., m, n) (..., n, k)
        return unbroadcast(da, a.shape), unbroadcast(db, b.shape)


class Transpose(Node):
    r"""Transpose a matrix; backward transposes the gradient.

    .. math:: y = x^\top, \qquad \frac{\partial L}{\partial x} = \Bigl(\frac{\partial L}{\partial y}\Bigr)^\top

    Shapes:
        x (n, m) to (m, n); with more axes, their order is reversed.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Transpose
        >>> Transpose().forward(np.array([[1.0, 2.0]])).tolist()
        [[1.0], [2.0]]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.keep(x.T)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        self.recall(gradient)
        return (gradient.T,)


class Concatenate(Node):
    r"""Concatenate the channels of the inputs; backward splits the gradient accordingly.

    .. math:: y = (x_1, \dots, x_n), \qquad \Bigl(\frac{\partial L}{\partial x_1}, \dots,
        \frac{\partial L}{\partial x_n}\Bigr) = \frac{\partial L}{\partial y}

    Shapes:
        x_i (..., channels_i) to (..., sum of channels_i).

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Concatenate
        >>> gate = Concatenate()
        >>> y = gate.forward(np.array([[1.0]]), np.array([[2.0, 3.0]]))
        >>> y.tolist(), [g.tolist() for g in gate.backward(np.array([[7.0, 8.0, 9.0]]))]
        ([[1.0, 2.0, 3.0]], [[[7.0]], [[8.0, 9.0]]])
    """

    def forward(self, *inputs: np.ndarray) -> np.ndarray:
        cuts = np.cumsum([x.shape[-1] for x in inputs])[:-1]
        return self.keep(np.concatenate(inputs, -1), cuts)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (cuts,) = self.recall(gradient)
        return tuple(np.split(gradient, cuts, -1))
