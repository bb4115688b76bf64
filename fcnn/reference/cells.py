"""Adaptive and global pooling: over the cells of a grid on the space, or over the whole space."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from .node import Node
from .windows import Sizes, each


class _Cells(Node):
    """The base of adaptive pooling: the cells.

    Args:
        out: cells along each axis; an integer applies to every axis; None leaves an axis unchanged.
    """

    def __init__(self, out: Sizes) -> None:
        super().__init__()
        self.out = out

    def cells(self, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each cell's place i in the output, and its index into x (batch, *space, channels)."""
        grid = self.grid(shape)
        for i in product(*map(range, grid)):
            bounds = (slice(*_bounds(k, m, n)) for k, m, n in zip(i, shape[1:-1], grid, strict=True))
            yield i, (slice(None), *bounds)

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Cells along each axis."""
        if len(shape) < 3:
            raise ValueError(f"x has shape {shape}; pooling needs (batch, *space, channels)")
        out = self.out
        if isinstance(out, (tuple, list)) and len(out) == len(shape) - 2:
            out = [m if n is None else n for m, n in zip(shape[1:-1], out, strict=True)]
        return each(out, len(shape) - 2, "out")


class AdaptiveAvgPool(_Cells):
    r"""The mean of each cell; backward gives every sample of the cell an equal share.

    .. math:: y_i = \frac{1}{|C_i|} \sum_{m \in C_i} x_m, \qquad
        \frac{\partial L}{\partial x_m} = \sum_{i:\, m \in C_i} \frac{g_i}{|C_i|}

    Cell i of an axis of M samples and n cells runs from floor(i M / n) to ceil((i + 1) M / n).

    Args:
        out: cells along each axis; an integer applies to every axis; None leaves an axis unchanged.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: if x has no space axis, or a size is below 1.

    Source:
        He et al., "Spatial pyramid pooling", 2014; the cells are those of torch.nn.AdaptiveAvgPool2d.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import AdaptiveAvgPool
        >>> AdaptiveAvgPool(2).forward(np.arange(5.0).reshape(1, 5, 1)).ravel().tolist()
        [1.0, 3.0]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros((x.shape[0], *self.grid(x.shape), x.shape[-1]), x.dtype)
        for i, cell in self.cells(x.shape):
            y[:, *i] = x[cell].mean(tuple(range(1, x.ndim - 1)))
        return self.keep(y, x.shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (shape,) = self.recall(gradient)
        dx = np.zeros(shape, gradient.dtype)
        for i, cell in self.cells(shape):
            size = np.prod(dx[cell].shape[1:-1])
            dx[cell] += np.expand_dims(gradient[:, *i], tuple(range(1, dx.ndim - 1))) / size
        return (dx,)


class AdaptiveMaxPool(_Cells):
    r"""The largest value of each cell; backward routes the gradient to the first that has it.

    .. math:: y_i = \max_{m \in C_i} x_m, \qquad
        \frac{\partial L}{\partial x_m} = \sum_{i:\, m \in C_i} g_i \, [m \text{ is the first maximum of } C_i]

    with the cells of :class:`AdaptiveAvgPool`.

    Args:
        out: cells along each axis; an integer applies to every axis; None leaves an axis unchanged.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: if x has no space axis, or a size is below 1.

    Source:
        He et al., "Spatial pyramid pooling", 2014; the cells are those of torch.nn.AdaptiveMaxPool2d.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import AdaptiveMaxPool
        >>> node = AdaptiveMaxPool(2)
        >>> node.forward(np.arange(5.0).reshape(1, 5, 1)).ravel().tolist()
        [2.0, 4.0]
        >>> node.backward(np.ones((1, 2, 1)))[0].ravel().tolist()
        [0.0, 0.0, 1.0, 0.0, 1.0]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros((x.shape[0], *self.grid(x.shape), x.shape[-1]), x.dtype)
        winner = np.zeros(y.shape, int)
        for i, cell in self.cells(x.shape):
            samples = x[cell].reshape(x.shape[0], -1, x.shape[-1])  # (batch, samples, channels)
            y[:, *i], winner[:, *i] = samples.max(1), samples.argmax(1)
        return self.keep(y, winner, x.shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        winner, shape = self.recall(gradient)
        dx = np.zeros(shape, gradient.dtype)
        for i, cell in self.cells(shape):
            sizes = dx[cell].shape
            place = np.arange(np.prod(sizes[1:-1])).reshape(1, -1, 1)  # the samples of the cell in reading order
            routed = (place == winner[:, None, *i]) * gradient[:, None, *i]  # (batch, samples, channels)
            dx[cell] += routed.reshape(sizes)
        return (dx,)


class GlobalAvgPool(Node):
    r"""The mean of each channel over the whole space; backward gives every sample an equal share.

    .. math:: y = \frac{1}{M} \sum_m x_m, \qquad \frac{\partial L}{\partial x_m} = \frac{g}{M}

    Shapes:
        x (batch, *space, channels) to (batch, channels).

    Raises:
        ValueError: if x has no space axis.

    Source:
        Lin, Chen and Yan, "Network in network", 2014, section 3.2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import GlobalAvgPool
        >>> node = GlobalAvgPool()
        >>> node.forward(np.arange(4.0).reshape(1, 4, 1)).tolist(), node.backward(np.ones((1, 1)))[0].ravel().tolist()
        ([[1.5]], [0.25, 0.25, 0.25, 0.25])
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        samples = _one_axis(x)
        return self.keep(samples.mean(1), x.shape, samples.shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        shape, flat = self.recall(gradient)
        return (np.broadcast_to(gradient[:, None] / flat[1], flat).reshape(shape),)


class GlobalMaxPool(Node):
    r"""The largest value of each channel over the whole space; backward routes the gradient to the first.

    .. math:: y = \max_m x_m, \qquad \frac{\partial L}{\partial x_m} = g \, [m \text{ is the first maximum}]

    Shapes:
        x (batch, *space, channels) to (batch, channels).

    Raises:
        ValueError: if x has no space axis.

    Source:
        Oquab et al., "Is object localization for free?", 2015, section 3.2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import GlobalMaxPool
        >>> node = GlobalMaxPool()
        >>> node.forward(np.array([1.0, 3.0, 3.0]).reshape(1, 3, 1)).tolist()
        [[3.0]]
        >>> node.backward(np.ones((1, 1)))[0].ravel().tolist()
        [0.0, 1.0, 0.0]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        samples = _one_axis(x)
        return self.keep(samples.max(1), samples.argmax(1), x.shape, samples.shape[1])

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        winner, shape, count = self.recall(gradient)
        place = np.arange(count).reshape(1, -1, 1)
        routed = (place == winner[:, None]) * gradient[:, None]  # (batch, samples, channels)
        return (routed.reshape(shape),)


def _one_axis(x: np.ndarray) -> np.ndarray:
    """Flatten the space into one axis: (batch, samples, channels)."""
    if x.ndim < 3:
        raise ValueError(f"x has shape {x.shape}; pooling needs (batch, *space, channels)")
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _bounds(i: int, size: int, cells: int) -> tuple[int, int]:
    """Where cell i of an axis begins and ends."""
    return i * size // cells, -(-(i + 1) * size // cells)
