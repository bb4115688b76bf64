"""Padding and cropping of the space; the backward of each resembles the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from .node import Node
from .windows import Pads, Sizes, each, mode_of, pad, place, resolve, unpad


class Pad(Node):
    r"""Add samples around the space, constant or copied.

    Backward drops the gradients of constants, and adds up those of all copies of a sample:

    .. math:: y_i = x_{s(i)}, \qquad \frac{\partial L}{\partial x_j} =
        \sum_{i : s(i) = j} \frac{\partial L}{\partial y_i}

    where s(i) is the sample copied to place i.

    Args:
        padding: an integer, pairs (before, after), or (mode, amount), as for ``Conv``.
        value: the constant.

    Shapes:
        x (batch, *space, channels) to (batch, *(before + space + after), channels).

    Raises:
        ValueError: if more samples would be copied than there are, or the padding is not (before, after) per axis.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Pad
        >>> node = Pad(("REFLECT", 1))
        >>> node.forward(np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)).ravel().tolist()
        [2.0, 1.0, 2.0, 3.0, 2.0]
        >>> node.backward(np.ones((1, 5, 1)))[0].ravel().tolist()    # the middle one is there three times
        [1.0, 3.0, 1.0]
    """

    def __init__(self, padding: Any, value: float = 0.0) -> None:
        super().__init__()
        self.padding, self.value = padding, value

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.ndim < 3:
            raise ValueError(f"x has shape {x.shape}; padding needs (batch, *space, channels)")
        windows = place(x.shape[1:-1], (1,) * (x.ndim - 2), padding=self.padding)  # windows of one sample
        value = 0.0 if mode_of(self.padding) else self.value
        return self.keep(pad(x, windows, value), windows)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (windows,) = self.recall(gradient)
        return (unpad(gradient, windows),)


class Crop(Node):
    r"""Keep a part of the space; the gradient of the removed samples is 0.

    A centred part of m of M samples begins at :math:`\lfloor (M - m) / 2 \rfloor`.

    Args:
        amount: samples to remove, an integer or pairs (before, after).
        size: alternatively, the number of samples to keep; None leaves an axis unchanged.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: if both or neither are given, or a crop leaves nothing or exceeds the space.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Crop
        >>> node = Crop(size=2)
        >>> node.forward(np.arange(5.0).reshape(1, 5, 1)).ravel().tolist()
        [1.0, 2.0]
        >>> node.backward(np.ones((1, 2, 1)))[0].ravel().tolist()
        [0.0, 1.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, amount: Any = None, size: Sizes | None = None) -> None:
        super().__init__()
        if (amount is None) == (size is None):
            raise ValueError(f"amount is {amount} and size is {size}: give one of them")
        self.amount, self.size = amount, size

    def forward(self, x: np.ndarray) -> np.ndarray:
        cuts = self._cuts(x.shape[1:-1])
        for (before, after), size in zip(cuts, x.shape[1:-1], strict=True):
            if before < 0 or before + after >= size:
                raise ValueError(f"a crop of {cuts} leaves nothing of x {x.shape}, or exceeds it")
        part = tuple(slice(before, size - after) for (before, after), size in zip(cuts, x.shape[1:-1], strict=True))
        return self.keep(x[(slice(None), *part)], x.shape, part)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        shape, part = self.recall(gradient)
        dx = np.zeros(shape, gradient.dtype)
        dx[(slice(None), *part)] = gradient
        return (dx,)

    def _cuts(self, space: tuple[int, ...]) -> Pads:
        if self.amount is not None:
            return resolve(self.amount, space, (1,) * len(space), (1,) * len(space))
        wanted = self.size if isinstance(self.size, (tuple, list)) else (self.size,) * len(space)
        kept = each(tuple(m or n for m, n in zip(wanted, space, strict=True)), len(space), "size")
        return tuple(((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(space, kept, strict=True))
