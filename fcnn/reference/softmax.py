"""Softmax and its logarithm: every output along the last axis depends on every input."""

from __future__ import annotations

import numpy as np

from .node import Node


class Softmax(Node):
    r"""The softmax along the last axis: positive numbers that sum to 1.

    .. math:: y_i = \frac{e^{x_i}}{\sum_j e^{x_j}}, \qquad \frac{\partial L}{\partial x_i} =
        y_i \Bigl( g_i - \sum_j g_j y_j \Bigr), \quad g = \frac{\partial L}{\partial y}

    Source:
        Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Softmax
        >>> Softmax().forward(np.array([2.0, 0.7, 0.2, -0.3, -0.6, -2.5])).round(3).tolist()
        [0.616, 0.168, 0.102, 0.062, 0.046, 0.007]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))  # the shift leaves y unchanged and keeps e finite
        y = e / e.sum(-1, keepdims=True)
        return self.keep(y, y)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (y,) = self.recall(gradient)
        return (y * (gradient - (gradient * y).sum(-1, keepdims=True)),)


class LogSoftmax(Node):
    r"""The logarithm of the softmax along the last axis.

    .. math:: y_i = x_i - \ln \sum_j e^{x_j}, \qquad \frac{\partial L}{\partial x_i} =
        g_i - e^{y_i} \sum_j g_j, \quad g = \frac{\partial L}{\partial y}

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import LogSoftmax
        >>> LogSoftmax().forward(np.zeros(2)).round(4).tolist()
        [-0.6931, -0.6931]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(-1, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return self.keep(y, y)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (y,) = self.recall(gradient)
        return (gradient - np.exp(y) * gradient.sum(-1, keepdims=True),)
