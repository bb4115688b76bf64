"""One network at every position, by hand: cut out windows, compute, and add up gradients where windows overlap."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from .node import Node
from .windows import Sizes, each


class Scan(Node):
    r"""The output of a network for every window of a larger input.

    .. math:: y_{n, p} = f(x_{n,\, s p} \dots x_{n,\, s p + w - 1}), \qquad
        \frac{\partial L}{\partial x_i} = \sum_{p,\; 0 \le i - s p < w}
        \Bigl(\frac{\partial L}{\partial y_p} \frac{\partial f}{\partial x}\Bigr)_{i - s p}

    The gradient of a sample is the sum over all windows that contain it, that of a parameter the sum over all windows.

    Args:
        node: f; its batch is all windows, example by example and, within each, position by position.
        window: samples along each axis; an integer applies to every axis.
        stride: samples between neighbouring windows.

    Shapes:
        x (batch, \*space, channels) to (batch, \*positions, \*out).

    Raises:
        ValueError: if the window does not fit.

    Source:
        Waibel et al., "Phoneme recognition using time-delay neural networks", 1989.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Chain, Dense, Flatten, Scan
        >>> node = Scan(Chain([Flatten(), Dense(kernel=np.array([[0.3], [0.5]]))]), 2)
        >>> node.forward(np.array([[[1.0], [2.0], [3.0]]])).round(9).ravel().tolist()
        [1.3, 2.1]
        >>> node.backward(np.array([[[-0.1], [0.2]]]))[0].round(9).ravel().tolist()
        [-0.03, 0.01, 0.1]
    """

    def __init__(self, node: Node, window: Sizes, *, stride: Sizes = 1) -> None:
        super().__init__()
        self.params, self.gradients = node.params, node.gradients
        self._node, self._window, self._stride = node, window, stride

    def forward(self, x: np.ndarray) -> Any:
        rank = x.ndim - 2
        window, stride = each(self._window, rank, "window"), each(self._stride, rank, "stride")
        counts = tuple((n - w) // s + 1 for n, w, s in zip(x.shape[1:-1], window, stride, strict=True))
        if min(counts) < 1:
            raise ValueError(f"a window of {window} does not fit x of shape {x.shape}")
        cuts = list(_cuts(counts, window, stride))
        windows = np.stack([x[cut] for cut in cuts], 1)  # (batch, positions, *window, channels)
        y = self._node.forward(windows.reshape(-1, *windows.shape[2:]))
        return self.keep(y.reshape(x.shape[0], *counts, *y.shape[1:]), x, cuts, y.shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        x, cuts, shape = self.recall(gradient)
        (shares,) = self._node.backward(gradient.reshape(shape))
        shares = shares.reshape(x.shape[0], len(cuts), *shares.shape[1:])
        found = np.zeros_like(x)
        for position, cut in enumerate(cuts):
            found[cut] += shares[:, position]
        return (found,)


def _cuts(counts: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The index of each window into x (batch, *space, channels)."""
    for place in product(*map(range, counts)):
        yield (slice(None), *(slice(p * s, p * s + w) for p, s, w in zip(place, stride, window, strict=True)))
