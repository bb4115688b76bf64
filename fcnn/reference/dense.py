"""Operations without geometry: dense, flatten, dropout, maxout."""

from __future__ import annotations

import numpy as np

from .node import Node


class Dense(Node):
    r"""A matrix product over the last axis.

    .. math:: y = x W + b, \qquad \frac{\partial L}{\partial x} = g W^\top, \quad
        \frac{\partial L}{\partial W} = x^\top g, \quad \frac{\partial L}{\partial b} = \sum g, \quad
        g = \frac{\partial L}{\partial y}

    With space axes all positions share the matrix, and the gradients are summed over positions and examples.

    Args:
        kernel: W.
        bias: b, or None.

    Shapes:
        x (batch, *space, channels) to (batch, *space, features); kernel (channels, features), bias (features,).

    Raises:
        ValueError: if shapes do not match.

    Source:
        Rumelhart, Hinton and Williams 1986, equations 1, 6 and 7.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Dense
        >>> node = Dense(kernel=np.array([[3.0], [4.0]]), bias=np.array([0.5]))
        >>> node.forward(np.array([[1.0, 2.0]])).tolist(), node.backward(np.ones((1, 1)))[0].tolist()
        ([[11.5]], [[3.0, 4.0]])
        >>> node.gradients["kernel"].tolist(), node.gradients["bias"].tolist()
        ([[1.0], [2.0]], [1.0])
    """

    def __init__(self, kernel: np.ndarray, bias: np.ndarray | None = None) -> None:
        super().__init__(kernel=kernel, bias=bias)
        if np.ndim(kernel) != 2 or (bias is not None and np.shape(bias) != np.shape(kernel)[1:]):
            raise ValueError(f"kernel {np.shape(kernel)} must be (channels, features) and bias (features,)")

    def forward(self, x: np.ndarray) -> np.ndarray:
        kernel = self.params["kernel"]
        if not x.ndim or x.shape[-1] != kernel.shape[0]:
            raise ValueError(f"kernel {kernel.shape} does not take x {x.shape}: the channels are x's last axis")
        y = x @ kernel  # (..., features)
        if "bias" in self.params:
            y = y + self.params["bias"]
        return self.keep(y, x)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = self.recall(gradient)
        kernel = self.params["kernel"]
        rows, errors = x.reshape(-1, kernel.shape[0]), gradient.reshape(-1, kernel.shape[1])
        self.add_gradient("kernel", rows.T @ errors)  # (channels, rows) (rows, features)
        self.add_gradient("bias", errors.sum(0))
        return (gradient @ kernel.T,)


class Flatten(Node):
    """Flatten each example into a vector, or a range of its axes into one; backward reshapes the gradient.

    Args:
        first: the first axis to flatten; axis 0 is the batch.
        last: the last axis to flatten.

    Shapes:
        x (batch, *space, channels) to (batch, product of space and channels).

    Raises:
        ValueError: if x has no axis besides the batch, or lacks these axes.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Flatten
        >>> node = Flatten()
        >>> node.forward(np.ones((2, 3, 4, 5))).shape, node.backward(np.ones((2, 60)))[0].shape
        ((2, 60), (2, 3, 4, 5))
        >>> Flatten(last=2).forward(np.ones((2, 3, 4, 5))).shape
        (2, 12, 5)
    """

    def __init__(self, first: int = 1, last: int = -1) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.ndim < 2:
            raise ValueError(f"x has shape {x.shape}; Flatten keeps the batch axis and needs one after it")
        begin, end = (axis + x.ndim if axis < 0 else axis for axis in (self.first, self.last))
        if not 1 <= begin <= end < x.ndim:
            raise ValueError(f"x {x.shape} has no axes {self.first} to {self.last} beside the batch, in this order")
        end += 1
        return self.keep(x.reshape(*x.shape[:begin], np.prod(x.shape[begin:end]), *x.shape[end:]), x.shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (shape,) = self.recall(gradient)
        return (gradient.reshape(shape),)


class Dropout(Node):
    r"""Multiply by a given mask of zeros and ones, and scale so that the mean over masks is x.

    .. math:: y = \frac{m}{1 - r} x, \qquad
        \frac{\partial L}{\partial x} = \frac{m}{1 - r} \frac{\partial L}{\partial y}

    Args:
        mask: m, 1 where kept; None: nothing is dropped or scaled, as at inference.
        rate: r, the expected share of zeros in the mask, in [0, 1).

    Shapes:
        x of any shape; the mask has the same shape, or size 1 along axes that share one value.

    Raises:
        ValueError: if the rate is outside [0, 1), or the mask has values other than 0 and 1 or does not fit x.

    Source:
        Srivastava et al., "Dropout", 2014, sections 4 and 10.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Dropout
        >>> Dropout(np.array([1.0, 0.0]), 0.5).forward(np.array([[3.0, 4.0]])).tolist()
        [[6.0, 0.0]]
    """

    def __init__(self, mask: np.ndarray | None, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate is {rate}, it must be in [0, 1): it is the share that is dropped")
        if mask is not None and not np.isin(mask, (0, 1)).all():
            raise ValueError("the mask must hold zeros and ones only")
        self.mask, self.rate = mask, rate

    def forward(self, x: np.ndarray) -> np.ndarray:
        y = self._masked(x)
        if y.shape != x.shape:
            raise ValueError(f"the mask does not fit x {x.shape}: it broadcasts x to {y.shape}")
        return self.keep(y)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        self.recall(gradient)
        return (self._masked(gradient),)

    def _masked(self, x: np.ndarray) -> np.ndarray:
        return x if self.mask is None else (x * self.mask / (1 - self.rate)).astype(x.dtype)


class Maxout(Node):
    r"""The largest of every k neighbouring channels; backward routes the gradient to it.

    .. math:: y_{\dots, i} = \max_{0 \le j < k} x_{\dots, k i + j}, \qquad
        \frac{\partial L}{\partial x_{\dots, k i + j}} =
        \frac{\partial L}{\partial y_{\dots, i}} \, [j \text{ is the first maximum}]

    Args:
        pieces: channels per group, k.

    Shapes:
        x (..., channels) to (..., channels // pieces).

    Raises:
        ValueError: if ``pieces`` does not divide the channels.

    Source:
        Goodfellow et al., "Maxout networks", 2013, section 3.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import Maxout
        >>> node = Maxout(2)
        >>> node.forward(np.array([[1.0, 4.0, 2.0, 0.0]])).tolist(), node.backward(np.array([[5.0, 6.0]]))[0].tolist()
        ([[4.0, 2.0]], [[0.0, 5.0, 6.0, 0.0]])
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        if pieces < 1:
            raise ValueError(f"pieces is {pieces}, it must be at least 1")
        self.pieces = pieces

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.shape[-1] % self.pieces:
            raise ValueError(f"pieces {self.pieces} do not divide {x.shape[-1]} channels")
        groups = x.reshape(*x.shape[:-1], -1, self.pieces)  # (..., channels // k, k)
        return self.keep(groups.max(-1), groups.argmax(-1))  # argmax returns the first maximum

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        (winner,) = self.recall(gradient)
        routed = gradient[..., None] * (winner[..., None] == np.arange(self.pieces))  # (..., channels // k, k)
        return (routed.reshape(*gradient.shape[:-1], -1).astype(gradient.dtype),)
