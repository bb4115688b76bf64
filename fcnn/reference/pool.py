"""Pooling over windows: maximum, mean, p-norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from .node import Node
from .windows import Sizes, Windows, each, pad, place, unpad


class _Pool(Node):
    """The base of the poolings: the windows.

    Args:
        window: window size; an integer applies to every axis.
        stride: step between windows; None: the window.
        padding: as for ``Conv``.
        dilation: distance between neighbouring samples of a window.
        ceil_mode: also count windows that begin in the data and end past it.
    """

    def __init__(
        self,
        window: Sizes,
        stride: Sizes | None = None,
        padding: Any = "VALID",
        dilation: Sizes = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.window, self.stride, self.padding = window, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def windows(self, x: np.ndarray) -> Windows:
        """Where the windows lie on x (batch, *space, channels)."""
        if x.ndim < 3:
            raise ValueError(f"x has shape {x.shape}; pooling needs (batch, *space, channels)")
        window = each(self.window, x.ndim - 2, "window")
        windows = place(
            x.shape[1:-1],
            window,
            stride=window if self.stride is None else self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )
        if not _over_windows(windows.inside(), windows).all():
            raise ValueError(f"a window of {window} sees nothing but padding {windows.pads} of {x.shape[1:-1]}")
        return windows


class MaxPool(_Pool):
    r"""The largest value in each window; backward routes the gradient to the first that has it.

    .. math:: y_i = \max_j x_{s i + d j}, \qquad \frac{\partial L}{\partial x_{s i + d j}} \mathrel{+}=
        g_i \, [j \text{ is the first maximum of window } i]

    Args:
        window: window size; an integer applies to every axis.
        stride: s; None: the window.
        padding: as for ``Conv``; it never wins.
        dilation: d.
        ceil_mode: also count windows that begin in the data and end past it.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: if a window does not fit, or sees only padding.

    Source:
        Riesenhuber and Poggio, "Hierarchical models of object recognition in cortex", 1999.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import MaxPool
        >>> node = MaxPool(2)
        >>> node.forward(np.array([1.0, 3.0, 2.0, 2.0]).reshape(1, 4, 1)).ravel().tolist()
        [3.0, 2.0]
        >>> node.backward(np.ones((1, 2, 1)))[0].ravel().tolist()
        [0.0, 1.0, 1.0, 0.0]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        windows = self.windows(x)
        y, winner, shape = _largest(x, windows)
        return self.keep(y, winner, windows, shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        winner, windows, shape = self.recall(gradient)
        dpadded = np.zeros(shape, gradient.dtype)
        for number, j in enumerate(windows.samples()):
            dpadded[windows.at(j)] += np.where(winner == number, gradient, 0)
        return (unpad(dpadded, windows),)


class MaxUnpool(_Pool):
    r"""Write values to the positions where max pooling found its maxima; backward reads the gradient there.

    .. math:: z_m = y_i \text{ with the last } i \text{ for which } x_m \text{ is the first maximum of window } i
        \text{, else } 0, \qquad
        \frac{\partial L}{\partial y_i} = \sum_m \frac{\partial L}{\partial z_m} \, [z_m \text{ is } y_i], \quad
        \frac{\partial L}{\partial x} = 0

    Args:
        window: window size; an integer applies to every axis.
        stride: as for ``MaxPool``.
        padding: as for ``MaxPool``.
        dilation: as for ``MaxPool``.
        ceil_mode: as for ``MaxPool``.

    Shapes:
        y (batch, *out, channels) and x (batch, *space, channels) to (batch, *space, channels).

    Raises:
        ValueError: if y does not have the shape of the pooled x, or the window does not fit.

    Source:
        Badrinarayanan, Kendall and Cipolla, "SegNet", 2017, section 3.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import MaxUnpool
        >>> y, x = np.array([7.0, 8.0]).reshape(1, 2, 1), np.array([1.0, 3.0, 2.0, 2.0]).reshape(1, 4, 1)
        >>> MaxUnpool(2).forward(y, x).ravel().tolist()
        [0.0, 7.0, 8.0, 0.0]
    """

    def forward(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        windows = self.windows(x)
        pooled, winner, _ = _largest(x, windows)
        if y.shape != pooled.shape:
            raise ValueError(f"y has shape {y.shape}, x {x.shape} is pooled to {pooled.shape}")
        z, taken = np.zeros(x.shape, y.dtype), {}
        offsets = list(windows.samples())
        for entry in np.ndindex(y.shape):  # (example, *window, channel) in reading order: the last one remains
            n, *i, c = entry
            j = offsets[winner[entry]]
            within = [
                source[s * at + d * k]
                for source, s, d, at, k in zip(windows.sources, windows.stride, windows.dilation, i, j, strict=True)
            ]
            z[n, *within, c] = y[entry]
            taken[n, *within, c] = entry
        return self.keep(z, taken, y.shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        taken, shape = self.recall(gradient)
        dy = np.zeros(shape, gradient.dtype)
        for sample, entry in taken.items():
            dy[entry] += gradient[sample]
        return dy, np.zeros_like(gradient)


class AvgPool(_Pool):
    r"""The mean of each window; backward gives every sample an equal share.

    .. math:: y_i = \frac{1}{|W_i|} \sum_{j \in W_i} x_{s i + d j}, \qquad
        \frac{\partial L}{\partial x_{s i + d j}} \mathrel{+}= \frac{g_i}{|W_i|}

    where W_i contains the window's samples in the data or, with ``count_padding``, in the data and its padding;
    ``divisor`` replaces :math:`|W_i|`.

    Args:
        window: window size; an integer applies to every axis.
        stride: s; None: the window.
        padding: as for ``Conv``.
        dilation: d.
        ceil_mode: also count windows that begin in the data and end past it.
        count_padding: whether to divide by the number of samples in data and padding.
        divisor: a number to divide by instead.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: if a window does not fit, or sees only padding.

    Source:
        LeCun et al. 1998, section II (subsampling).

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import AvgPool
        >>> node = AvgPool(3, stride=1, padding="SAME")
        >>> node.forward(np.array([4.0, 2.0, 6.0]).reshape(1, 3, 1)).ravel().tolist()
        [3.0, 4.0, 4.0]
        >>> node.backward(np.array([2.0, 3.0, 2.0]).reshape(1, 3, 1))[0].ravel().tolist()
        [2.0, 3.0, 2.0]
    """

    def __init__(
        self,
        window: Sizes,
        stride: Sizes | None = None,
        padding: Any = "VALID",
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        count_padding: bool = False,
        divisor: int | None = None,
    ) -> None:
        super().__init__(window, stride, padding, dilation, ceil_mode)
        self.count_padding, self.divisor = count_padding, divisor

    def forward(self, x: np.ndarray) -> np.ndarray:
        windows = self.windows(x)
        padded = pad(x, windows)
        counts = _over_windows(windows.inside(count_padding=self.count_padding), windows).astype(x.dtype)
        if self.divisor is not None:
            counts = np.full_like(counts, self.divisor)
        y = _over_windows(padded, windows) / counts  # (batch, *out, channels) / (1, *out, 1)
        return self.keep(y, counts, windows, padded.shape)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        counts, windows, shape = self.recall(gradient)
        dpadded = np.zeros(shape, gradient.dtype)
        for j in windows.samples():
            dpadded[windows.at(j)] += gradient / counts
        return (unpad(dpadded, windows),)


class LpPool(_Pool):
    r"""The p-norm of each window.

    .. math:: y_i = \Bigl( \sum_j |x_{s i + d j}|^p \Bigr)^{1/p}, \qquad
        \frac{\partial L}{\partial x_{s i + d j}} \mathrel{+}= g_i \operatorname{sign}(x_{s i + d j})
        \Bigl( \frac{|x_{s i + d j}|}{y_i} \Bigr)^{p - 1}

    and 0 if the whole window is 0.

    Args:
        window: window size; an integer applies to every axis.
        power: p, at least 1.
        stride: s; None: the window.
        padding: as for ``Conv``.
        dilation: d.
        ceil_mode: also count windows that begin in the data and end past it.

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: if the power is below 1, or the window does not fit.

    Source:
        Sermanet, Chintala and LeCun, "Convolutional neural networks applied to house numbers digit
        classification", 2012, equation 1.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import LpPool
        >>> node = LpPool(2)
        >>> node.forward(np.array([3.0, -4.0]).reshape(1, 2, 1)).ravel().tolist()
        [5.0]
        >>> node.backward(np.ones((1, 1, 1)))[0].ravel().tolist()
        [0.6, -0.8]
    """

    def __init__(
        self,
        window: Sizes,
        power: float = 2.0,
        stride: Sizes | None = None,
        padding: Any = "VALID",
        dilation: Sizes = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(window, stride, padding, dilation, ceil_mode)
        if not 1 <= power < np.inf:
            raise ValueError(f"power is {power}, it must be at least 1 and finite")
        self.power = power

    def forward(self, x: np.ndarray) -> np.ndarray:
        windows = self.windows(x)
        padded = pad(x, windows)
        y = _over_windows(np.abs(padded) ** self.power, windows) ** (1 / self.power)
        return self.keep(y, y, padded, windows)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        y, padded, windows = self.recall(gradient)
        dpadded = np.zeros_like(padded)
        norm = np.where(y == 0, 1, y)  # in a window of zeros the sign is 0, so any divisor will do
        for j in windows.samples():
            seen = padded[windows.at(j)]
            dpadded[windows.at(j)] += gradient * np.sign(seen) * (np.abs(seen) / norm) ** (self.power - 1)
        return (unpad(dpadded, windows),)


def _largest(x: np.ndarray, windows: Windows) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """The largest value of each window, the number of the first data sample that has it, and the padded shape."""
    padded = pad(x, windows, -np.inf)
    data = np.broadcast_to(windows.inside(count_padding=False), padded.shape)
    seen = np.stack([padded[windows.at(j)] for j in windows.samples()])  # (samples, batch, *out, channels)
    real = np.stack([data[windows.at(j)] for j in windows.samples()])
    y = seen.max(0)
    largest = ((seen == y) | np.isnan(seen)) & (real > 0)
    return y, largest.argmax(0), padded.shape


def _over_windows(padded: np.ndarray, windows: Windows) -> np.ndarray:
    """The sum of each window: (batch, *padded, channels) to (batch, *out, channels)."""
    return np.stack([padded[windows.at(j)] for j in windows.samples()]).sum(0)
