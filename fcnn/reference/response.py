"""Local response normalisation: division by the activity of neighbouring channels."""

from __future__ import annotations

import numpy as np

from .node import Node


class LocalResponseNorm(Node):
    r"""Divide by the activity of neighbouring channels at the same position.

    .. math:: y_i = x_i n_i^{-\beta}, \quad n_i = k + \alpha \sum_{j \in N(i)} x_j^2, \qquad
        \frac{\partial L}{\partial x_j} = g_j n_j^{-\beta}
        - 2 \alpha \beta x_j \sum_{i:\, j \in N(i)} g_i x_i n_i^{-\beta - 1}

    with N(i) from i - floor(n / 2) to i + floor((n - 1) / 2).

    Args:
        size: channels in the neighbourhood, n.
        alpha: weight of the sum of squares, not divided by n.
        beta: exponent.
        k: offset.

    Shapes:
        x (batch, *space, channels) to the same.

    Raises:
        ValueError: if the size is below 1, or the offset is not above 0.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet classification", 2012, section 3.3.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import LocalResponseNorm
        >>> LocalResponseNorm(size=1, alpha=1.0, beta=1.0, k=1.0).forward(np.array([[1.0, 2.0]])).tolist()
        [[0.5, 0.4]]
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        if size < 1 or not k > 0:
            raise ValueError(f"size is {size} and k is {k}: they must be at least 1 and above 0")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: np.ndarray) -> np.ndarray:
        i = np.arange(x.shape[-1])
        away = i[:, None] - i  # (channels j, channels i): the distance of j from i
        near = ((away >= -(self.size // 2)) & (away <= (self.size - 1) // 2)).astype(x.dtype)
        n = self.k + self.alpha * (x * x) @ near  # (..., channels)
        return self.keep(x * n**-self.beta, x, n, near)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        x, n, near = self.recall(gradient)
        through_n = (gradient * x * n ** (-self.beta - 1)) @ near.T  # summed over all i with j in N(i)
        return (gradient * n**-self.beta - 2 * self.alpha * self.beta * x * through_n,)
