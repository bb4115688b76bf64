"""Normalisation: the four norms differ in the axes averaged over; the gradient is the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .node import Node


def standardize(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> tuple[np.ndarray, ...]:
    r"""Subtract the mean over some axes and divide by the standard deviation over them.

    .. math:: \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad
        \mu = \frac{1}{m} \sum x, \quad \sigma^2 = \frac{1}{m} \sum (x - \mu)^2

    Returns:
        The standardised x, the root in the denominator, the mean and the variance.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference.norm import standardize
        >>> standardize(np.array([1.0, 3.0]), (0,), 0.0)[0].tolist()
        [-1.0, 1.0]
    """
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    root = np.sqrt(variance + epsilon)
    return (x - mean) / root, root, mean, variance


def standardize_gradient(
    gradient: np.ndarray, normal: np.ndarray, root: np.ndarray, axes: tuple[int, ...]
) -> np.ndarray:
    r"""Backward of :func:`standardize`: x acts directly, via the mean and via the variance.

    .. math:: \frac{\partial L}{\partial x} = \frac{1}{\sqrt{\sigma^2 + \epsilon}} \Bigl( g
        - \frac{1}{m} \sum g - \hat x \, \frac{1}{m} \sum g \hat x \Bigr)

    Source:
        Ioffe and Szegedy, "Batch normalization", 2015, section 3, with the three sums combined.
    """
    through_mean = gradient.mean(axes, keepdims=True)
    through_variance = normal * (gradient * normal).mean(axes, keepdims=True)
    return (gradient - through_mean - through_variance) / root


class _Normalization(Node):
    r"""The learned scale and offset after normalisation: :math:`y = \gamma \hat x + \beta`, per channel."""

    def __init__(self, scale: np.ndarray | None, bias: np.ndarray | None, epsilon: float) -> None:
        super().__init__(scale=scale, bias=bias)
        if not epsilon >= 0:
            raise ValueError(f"epsilon is {epsilon}, it must not be negative")
        self.epsilon = epsilon

    def rescale(self, normal: np.ndarray) -> np.ndarray:
        """Multiply each channel by its scale and add its bias."""
        for name, value in self.params.items():
            if value.shape != normal.shape[-1:]:
                raise ValueError(f"{name} has shape {value.shape}, x {normal.shape} asks for {normal.shape[-1:]}")
        return normal * self.params.get("scale", 1) + self.params.get("bias", 0)

    def rescale_gradient(self, gradient: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Backward of :meth:`rescale`; all positions of a channel share its scale and bias."""
        axes = tuple(range(gradient.ndim - 1))
        self.add_gradient("scale", (gradient * normal).sum(axes))
        self.add_gradient("bias", gradient.sum(axes))
        return gradient * self.params.get("scale", 1)


class _Running(_Normalization):
    r"""The base of norms with running statistics: the old ones, and in training those updated by the latest forward.

    .. math:: \hat\mu \leftarrow a \hat\mu + (1 - a) \mu, \quad
        \hat\sigma^2 \leftarrow a \hat\sigma^2 + (1 - a) c \, \sigma^2

    with c = m / (m - 1), or 1 if the variance is biased, and a = t / (t + 1) if momentum is None.
    """

    def __init__(
        self,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        mean: np.ndarray | None = None,
        variance: np.ndarray | None = None,
        count: np.ndarray | None = None,
        momentum: float | None = 0.9,
        epsilon: float = 1e-5,
        train: bool = False,
        unbiased: bool = True,
        after: _Running | None = None,
    ) -> None:
        super().__init__(scale, bias, epsilon)
        self.mean, self.variance, self.count = mean, variance, count
        self.momentum, self.train, self.unbiased, self.after = momentum, train, unbiased, after
        self.new_mean, self.new_variance, self.new_count = mean, variance, count

    def old(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, variance and number of batches before this use."""
        channels = x.shape[-1:]
        found = (self.mean, self.variance, self.count)
        if self.after is not None:
            found = (self.after.new_mean, self.after.new_variance, self.after.new_count)
        firsts = (np.zeros(channels, x.dtype), np.ones(channels, x.dtype), np.zeros(channels, x.dtype))
        mean, variance, count = (first if a is None else a for a, first in zip(found, firsts, strict=True))
        if mean.shape != channels or variance.shape != channels:
            raise ValueError(f"statistics {mean.shape} and {variance.shape}, x {x.shape} asks for {channels}")
        return mean, variance, count

    def move(self, x: np.ndarray, mean: np.ndarray, variance: np.ndarray, values: int) -> None:
        """Update the statistics with the mean and biased variance of ``values`` values."""
        old_mean, old_variance, count = self.old(x)
        kept = count / (count + 1) if self.momentum is None else self.momentum
        if self.unbiased:
            variance = variance * values / (values - 1)
        self.new_mean = kept * old_mean + (1 - kept) * mean
        self.new_variance = kept * old_variance + (1 - kept) * variance
        self.new_count = count + 1

    def stored(self, x: np.ndarray) -> np.ndarray:
        """Forward with the running statistics, which do not depend on x."""
        mean, variance, _ = self.old(x)
        root = np.sqrt(variance + self.epsilon)
        normal = (x - mean) / root
        return self.keep(self.rescale(normal), normal, root, False)


class BatchNorm(_Running):
    r"""Normalise each channel over examples and positions in training, with running statistics otherwise.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta, \qquad
        \hat\mu \leftarrow a \hat\mu + (1 - a) \mu, \quad
        \hat\sigma^2 \leftarrow a \hat\sigma^2 + (1 - a) \tfrac{m}{m - 1} \sigma^2

    In training the gradient is that of :func:`standardize_gradient`; with running statistics, which do not depend
    on x, it is :math:`g \gamma / \sqrt{\hat\sigma^2 + \epsilon}`.

    Args:
        scale: :math:`\gamma`, or None.
        bias: :math:`\beta`, or None.
        mean: :math:`\hat\mu`; None: 0.
        variance: :math:`\hat\sigma^2`; None: 1.
        count: number of batches so far, t, for ``momentum=None``; None: 0.
        momentum: a, the share of the old statistics that is kept; None: t / (t + 1).
        epsilon: added to the variance.
        train: whether to use the statistics of the batch, and store the updated ones in ``new_mean``, ``new_variance``
            and ``new_count``.
        unbiased: whether the running variance is updated with m / (m - 1) times that of the batch; otherwise with the
            variance of the batch itself.
        after: in training, the previous use of the same layer, whose updated statistics are the old ones here. They do
            not affect y, so no gradient passes through them.

    Shapes:
        x (batch, *space, channels) to the same; all others (channels,).

    Raises:
        ValueError: if shapes do not match, or, in training, there is only one value per channel.

    Source:
        Ioffe and Szegedy 2015, algorithms 1 and 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import BatchNorm
        >>> node = BatchNorm(momentum=0.5, train=True)
        >>> y = node.forward(np.array([[1.0], [3.0]]))
        >>> y.round(3).tolist(), node.new_mean.tolist(), node.new_variance.tolist()
        ([[-1.0], [1.0]], [1.0], [1.5])
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.old(x)
        if not self.train:
            return self.stored(x)
        axes, values = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
        if values < 2:
            raise ValueError(f"x has shape {x.shape}: one value for each channel has no variance")
        normal, root, mean, variance = standardize(x, axes, self.epsilon)
        self.move(x, mean.ravel(), variance.ravel(), values)
        return self.keep(self.rescale(normal), normal, root, True)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        normal, root, train = self.recall(gradient)
        g = self.rescale_gradient(gradient, normal)
        return (standardize_gradient(g, normal, root, tuple(range(g.ndim - 1))) if train else g / root,)


class GroupNorm(_Normalization):
    r"""Normalise groups of channels over the space, separately for each example.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    with the gradient of :func:`standardize_gradient`.

    Args:
        groups: number of groups; 1 normalises the whole example.
        scale: :math:`\gamma`, or None.
        bias: :math:`\beta`, or None.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels) to the same; scale and bias (channels,).

    Raises:
        ValueError: if the groups do not divide the channels.

    Source:
        Wu and He, "Group normalization", 2018, equation 7.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import GroupNorm
        >>> GroupNorm(2, epsilon=0.0).forward(np.array([[1.0, 3.0, 10.0, 30.0]])).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(
        self,
        groups: int,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(scale, bias, epsilon)
        if groups < 1:
            raise ValueError(f"groups is {groups}, it must be at least 1")
        self.groups = groups

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.shape[-1] % self.groups:
            raise ValueError(f"groups {self.groups} do not divide {x.shape[-1]} channels")
        split = x.reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)  # (batch, samples, groups, ...)
        normal, root, _, _ = standardize(split, (1, 3), self.epsilon)
        return self.keep(self.rescale(normal.reshape(x.shape)), normal, root)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        normal, root = self.recall(gradient)
        g = self.rescale_gradient(gradient, normal.reshape(gradient.shape))
        return (standardize_gradient(g.reshape(normal.shape), normal, root, (1, 3)).reshape(gradient.shape),)


class LayerNorm(_Normalization):
    r"""Normalise over the channels, separately at each position, or over other axes of an example.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    with the gradient of :func:`standardize_gradient`. Examples, and positions along the other axes, share
    :math:`\gamma` and :math:`\beta`, whose gradients are sums over them.

    Args:
        scale: :math:`\gamma`, or None.
        bias: :math:`\beta`, or None.
        epsilon: added to the variance.
        axes: the axes averaged over, without the batch.

    Shapes:
        x (batch, *space, channels) to the same; scale and bias have the sizes of ``axes``, by default (channels,).

    Raises:
        ValueError: if scale or bias has another shape, or the axes include the batch.

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016, equation 3.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import LayerNorm
        >>> LayerNorm(epsilon=0.0).forward(np.array([[1.0, 3.0]])).tolist()
        [[-1.0, 1.0]]
    """

    def __init__(
        self,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        epsilon: float = 1e-5,
        axes: int | tuple[int, ...] = -1,
    ) -> None:
        super().__init__(scale, bias, epsilon)
        self.axes = (axes,) if isinstance(axes, int) else tuple(axes)

    def forward(self, x: np.ndarray) -> np.ndarray:
        axes = tuple(sorted(axis % x.ndim for axis in self.axes))
        if 0 in axes:
            raise ValueError(f"axes {self.axes} of x {x.shape} have the batch among them")
        sizes = tuple(x.shape[axis] for axis in axes)
        for name, value in self.params.items():
            if value.shape != sizes:
                raise ValueError(f"{name} has shape {value.shape}, x {x.shape} asks for {sizes}")
        spread = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]  # the shape that broadcasts to x
        scale, bias = (
            np.reshape(self.params[n], spread) if n in self.params else d for n, d in (("scale", 1), ("bias", 0))
        )
        normal, root, _, _ = standardize(x, axes, self.epsilon)
        return self.keep(normal * scale + bias, normal, root, axes, scale)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        normal, root, axes, scale = self.recall(gradient)
        others = tuple(axis for axis in range(gradient.ndim) if axis not in axes)
        self.add_gradient("scale", (gradient * normal).sum(others))
        self.add_gradient("bias", gradient.sum(others))
        return (standardize_gradient(gradient * scale, normal, root, axes),)


class InstanceNorm(_Running):
    r"""Normalise each channel over the space, separately for each example.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    with the gradient of :func:`standardize_gradient`. With ``running`` this applies in training only; at inference the
    running statistics are used, which are updated in training with the mean of the examples' statistics.

    Args:
        scale: :math:`\gamma`, or None.
        bias: :math:`\beta`, or None.
        mean: as for :class:`BatchNorm`.
        variance: likewise.
        count: likewise.
        momentum: likewise.
        epsilon: added to the variance.
        train: as for :class:`BatchNorm`.
        unbiased: likewise, with the m samples of the space.
        after: likewise.
        running: whether there are running statistics.

    Shapes:
        x (batch, *space, channels) to the same; scale and bias (channels,).

    Raises:
        ValueError: if the space is a single sample, which has no variance.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016, equation 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import InstanceNorm
        >>> InstanceNorm(epsilon=0.0).forward(np.array([1.0, 3.0]).reshape(1, 2, 1)).ravel().tolist()
        [-1.0, 1.0]
    """

    def __init__(self, *args: Any, running: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.running = running

    def forward(self, x: np.ndarray) -> np.ndarray:
        values = math.prod(x.shape[1:-1])
        if values < 2:
            raise ValueError(f"x has shape {x.shape}: one sample for each channel has no variance over the space")
        if self.running and not self.train:
            return self.stored(x)
        normal, root, mean, variance = standardize(x, tuple(range(1, x.ndim - 1)), self.epsilon)
        if self.running:
            mean, variance = (a.reshape(x.shape[0], -1).mean(0) for a in (mean, variance))
            self.move(x, mean, variance, values)
        return self.keep(self.rescale(normal), normal, root, True)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        normal, root, own = self.recall(gradient)
        g = self.rescale_gradient(gradient, normal)
        return (standardize_gradient(g, normal, root, tuple(range(1, g.ndim - 1))) if own else g / root,)
