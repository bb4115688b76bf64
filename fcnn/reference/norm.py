"""Normalisation: what is averaged over makes the difference between the four, the gradient is the same."""

from __future__ import annotations

import math

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
    r"""Backward of :func:`standardize`: x acts directly, through the mean and through the variance.

    .. math:: \frac{\partial L}{\partial x} = \frac{1}{\sqrt{\sigma^2 + \epsilon}} \Bigl( g
        - \frac{1}{m} \sum g - \hat x \, \frac{1}{m} \sum g \hat x \Bigr)

    Source:
        Ioffe and Szegedy, "Batch normalization", 2015, section 3, the three sums put together.
    """
    through_mean = gradient.mean(axes, keepdims=True)
    through_variance = normal * (gradient * normal).mean(axes, keepdims=True)
    return (gradient - through_mean - through_variance) / root


class _Normalization(Node):
    r"""The learned scale and offset that follow: :math:`y = \gamma \hat x + \beta`, per channel."""

    def __init__(self, scale: np.ndarray | None, bias: np.ndarray | None, epsilon: float) -> None:
        super().__init__(scale=scale, bias=bias)
        if not epsilon >= 0:
            raise ValueError(f"epsilon is {epsilon}, it must not be negative")
        self.epsilon = epsilon

    def rescale(self, normal: np.ndarray) -> np.ndarray:
        """Multiply each channel with its scale and add its bias."""
        for name, value in self.params.items():
            if value.shape != normal.shape[-1:]:
                raise ValueError(f"{name} has shape {value.shape}, x {normal.shape} asks for {normal.shape[-1:]}")
        return normal * self.params.get("scale", 1) + self.params.get("bias", 0)

    def rescale_gradient(self, gradient: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Backward of :meth:`rescale`; every position of a channel uses the same two numbers."""
        axes = tuple(range(gradient.ndim - 1))
        self.add_gradient("scale", (gradient * normal).sum(axes))
        self.add_gradient("bias", gradient.sum(axes))
        return gradient * self.params.get("scale", 1)


class BatchNorm(_Normalization):
    r"""Normalise each channel over examples and positions in training, by running statistics otherwise.

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
        momentum: a, the share of the old statistics that is kept.
        epsilon: added to the variance.
        train: use the statistics of the batch, and leave the moved ones in ``new_mean`` and ``new_variance``.
        after: in training, the use of the same layer before this one, whose moved statistics are the old ones here.
            They do not enter y, so no gradient passes that way.

    Shapes:
        x (batch, *space, channels) to the same; all others (channels,).

    Raises:
        ValueError: shapes that do not match; in training, one value for each channel.

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

    def __init__(
        self,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        mean: np.ndarray | None = None,
        variance: np.ndarray | None = None,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        train: bool = False,
        after: BatchNorm | None = None,
    ) -> None:
        super().__init__(scale, bias, epsilon)
        self.mean, self.variance, self.momentum, self.train, self.after = mean, variance, momentum, train, after
        self.new_mean, self.new_variance = mean, variance

    def forward(self, x: np.ndarray) -> np.ndarray:
        channels = x.shape[-1:]
        mean, variance = self.mean, self.variance
        if self.after is not None:
            mean, variance = self.after.new_mean, self.after.new_variance
        old_mean = np.zeros(channels, x.dtype) if mean is None else mean
        old_variance = np.ones(channels, x.dtype) if variance is None else variance
        if old_mean.shape != channels or old_variance.shape != channels:
            raise ValueError(f"statistics {old_mean.shape} and {old_variance.shape}, x {x.shape} asks for {channels}")
        if self.train:
            axes, count = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
            if count < 2:
                raise ValueError(f"x has shape {x.shape}: one value for each channel has no variance")
            normal, root, mean, variance = standardize(x, axes, self.epsilon)
            unbiased = variance.ravel() * count / (count - 1)
            self.new_mean = self.momentum * old_mean + (1 - self.momentum) * mean.ravel()
            self.new_variance = self.momentum * old_variance + (1 - self.momentum) * unbiased
        else:
            root = np.sqrt(old_variance + self.epsilon)
            normal = (x - old_mean) / root
        return self.keep(self.rescale(normal), normal, root, self.train)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        normal, root, train = self.recall(gradient)
        g = self.rescale_gradient(gradient, normal)
        return (standardize_gradient(g, normal, root, tuple(range(g.ndim - 1))) if train else g / root,)


class GroupNorm(_Normalization):
    r"""Normalise groups of channels over the space, for each example by itself.

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
        ValueError: groups that do not divide the channels.

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
    r"""Normalise over the channels, at every position by itself.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    with the gradient of :func:`standardize_gradient`.

    Args:
        scale: :math:`\gamma`, or None.
        bias: :math:`\beta`, or None.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels) to the same; scale and bias (channels,).

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016, equation 3.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import LayerNorm
        >>> LayerNorm(epsilon=0.0).forward(np.array([[1.0, 3.0]])).tolist()
        [[-1.0, 1.0]]
    """

    def __init__(self, scale: np.ndarray | None = None, bias: np.ndarray | None = None, epsilon: float = 1e-5) -> None:
        super().__init__(scale, bias, epsilon)

    def axes(self, x: np.ndarray) -> tuple[int, ...]:
        """The axes that are averaged over."""
        return (x.ndim - 1,)

    def forward(self, x: np.ndarray) -> np.ndarray:
        normal, root, _, _ = standardize(x, self.axes(x), self.epsilon)
        return self.keep(self.rescale(normal), normal, root)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        normal, root = self.recall(gradient)
        g = self.rescale_gradient(gradient, normal)
        return (standardize_gradient(g, normal, root, self.axes(g)),)


class InstanceNorm(LayerNorm):
    r"""Normalise each channel over the space, for each example by itself.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    with the gradient of :func:`standardize_gradient`.

    Args:
        scale: :math:`\gamma`, or None.
        bias: :math:`\beta`, or None.
        epsilon: added to the variance.

    Shapes:
        x (batch, *space, channels) to the same; scale and bias (channels,).

    Raises:
        ValueError: a space of a single sample, which has no variance.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016, equation 2.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import InstanceNorm
        >>> InstanceNorm(epsilon=0.0).forward(np.array([1.0, 3.0]).reshape(1, 2, 1)).ravel().tolist()
        [-1.0, 1.0]
    """

    def axes(self, x: np.ndarray) -> tuple[int, ...]:
        if math.prod(x.shape[1:-1]) < 2:
            raise ValueError(f"x has shape {x.shape}: one sample for each channel has no variance over the space")
        return tuple(range(1, x.ndim - 1))
