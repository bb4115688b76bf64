"""The base class of all operations in the reference: a forward, a backward, and a stack between them."""

from __future__ import annotations

from typing import Any

import numpy as np


class Node:
    r"""An operation that can be run forward and then backward.

    Forward computes y = f(x) and pushes onto a stack what the derivative needs. Backward pops it and turns the gradient
    of the loss with respect to y into one gradient for each input:

    .. math:: \frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} \frac{\partial y}{\partial x}

    The gradient of a parameter is *added* to ``gradients``. A node that is used several times runs forward several
    times, and backward in reverse order, so ``gradients`` holds the sum over its uses.

    Args:
        params: the parameters by name; the node keeps a copy of each. None: this parameter is absent.

    Shapes:
        A gradient has the shape of its variable.

    Raises:
        TypeError: if parameters are not floating point.

    Source:
        Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Dense
        >>> node, x = Dense(kernel=np.array([[2.0]])), np.array([[3.0]])
        >>> y = node.forward(node.forward(x))    # two uses of one weight: y = w^2 x
        >>> (gradient,) = node.backward(np.ones((1, 1)))
        >>> (gradient,) = node.backward(gradient)
        >>> y.tolist(), gradient.tolist(), node.gradients["kernel"].tolist()    # w^2 x, w^2, 2 w x
        ([[12.0]], [[4.0]], [[12.0]])
    """

    def __init__(self, **params: np.ndarray | None) -> None:
        self.params = {name: _owned(name, value) for name, value in params.items() if value is not None}
        self.gradients = {name: np.zeros_like(value) for name, value in self.params.items()}
        self._stack: list[tuple[Any, tuple[Any, ...]]] = []

    # open signatures, so that each node can name its inputs
    def forward(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Compute the output and keep what backward needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
        """Turn the gradient of the latest output into one gradient for each of its inputs."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def clear(self) -> None:
        """Set the gradients of the parameters to zero."""
        for gradient in self.gradients.values():
            gradient[...] = 0

    def replace(self, params: dict[str, np.ndarray]) -> None:
        """Assign new values to the parameters, such as those returned by an update rule.

        Raises:
            ValueError: if names or shapes differ from those of ``params``.
        """
        if params.keys() != self.params.keys():
            raise ValueError(f"parameters {sorted(params)} are given, the node has {sorted(self.params)}")
        for name, value in params.items():
            if np.shape(value) != self.params[name].shape:
                raise ValueError(f"{name} has shape {np.shape(value)}, the node's is {self.params[name].shape}")
            self.params[name][...] = value  # in place, because others may share the array

    def keep(self, y: np.ndarray, *needed: Any) -> np.ndarray:
        """Push what backward needs, and the shape that its gradient must have; return y."""
        self._stack.append((self.shape_of(y), needed))
        return y

    def recall(self, gradient: np.ndarray) -> tuple[Any, ...]:
        """Pop what the latest forward kept.

        Raises:
            ValueError: if no forward is left, or the gradient does not have the shape of the output.
        """
        if not self._stack:
            raise ValueError(f"{type(self).__name__}: backward needs a forward before it, one for each backward")
        shape, needed = self._stack[-1]
        given = self.shape_of(gradient)
        if given != shape:
            raise ValueError(f"{type(self).__name__}: the gradient has shape {given}, the output has {shape}")
        self._stack.pop()
        return needed

    def shape_of(self, value: Any) -> Any:
        """The shape that an output and its gradient must share; nodes with several outputs override it."""
        return np.shape(value)

    def add_gradient(self, name: str, share: np.ndarray) -> None:
        """Add the share of one use to the gradient of a parameter, if the node has that parameter."""
        if name in self.gradients:
            self.gradients[name] += share


def unbroadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a gradient to the shape that its variable had before broadcasting.

    A value that broadcasting copied gets the sum over its copies.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import unbroadcast
        >>> unbroadcast(np.ones((4, 3)), (1, 3)).tolist(), unbroadcast(np.ones((4, 3)), (3,)).tolist()
        ([[4.0, 4.0, 4.0]], [4.0, 4.0, 4.0])
    """
    new = gradient.ndim - len(shape)
    gradient = gradient.sum(tuple(range(new)))  # axes that broadcasting added in front
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(stretched, keepdims=True)


def _owned(name: str, value: np.ndarray) -> np.ndarray:
    array = np.array(value)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} must hold floating-point numbers, not {array.dtype}: gradients are fractions")
    return array
