"""Pixel shuffling between channels and space; backward is the inverse shuffle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np

from .node import Node
from .windows import Sizes, each


class _Shuffle(Node):
    """The base of a pixel shuffle and its inverse.

    Block p of an axis consists of the samples r p to r p + r - 1; each place in a block has its own channels.
    """

    def __init__(self, factor: Sizes, order: str = "CRD") -> None:
        super().__init__()
        if order not in ("CRD", "DCR"):
            raise ValueError(f"order is {order!r}, it must be CRD or DCR")
        self.factor, self.order = factor, order

    def factors(self, x: np.ndarray) -> tuple[int, ...]:
        """The factor along each axis of the space."""
        if x.ndim < 3:
            raise ValueError(f"x has shape {x.shape}; a shuffle needs (batch, *space, channels)")
        return each(self.factor, x.ndim - 2, "factor")

    def places(self, factors: tuple[int, ...], features: int) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """For each place in a block, the index of its samples in the fine space, and its channels in the coarse one."""
        for number, place in enumerate(product(*map(range, factors))):
            fine = (slice(None), *(slice(i, None, r) for i, r in zip(place, factors, strict=True)))
            one = np.arange(features)
            yield fine, prod(factors) * one + number if self.order == "CRD" else features * number + one

    def spread(self, x: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
        """From channels to space."""
        features = x.shape[-1] // prod(factors)
        space = (size * r for size, r in zip(x.shape[1:-1], factors, strict=True))
        y = np.empty((x.shape[0], *space, features), x.dtype)
        for fine, channels in self.places(factors, features):
            y[fine] = x[..., channels]
        return y

    def gather(self, y: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
        """From space to channels."""
        space = (size // r for size, r in zip(y.shape[1:-1], factors, strict=True))
        x = np.empty((y.shape[0], *space, y.shape[-1] * prod(factors)), y.dtype)
        for fine, channels in self.places(factors, y.shape[-1]):
            x[..., channels] = y[fine]
        return x


class PixelShuffle(_Shuffle):
    r"""Rearrange groups of channels into blocks of the space.

    .. math:: y_{n,\, r p + i,\, r q + j,\, c} = x_{n,\, p,\, q,\, r^2 c + r i + j}

    in two dimensions; every entry occurs once, so its gradient returns to its source.

    Args:
        factor: r, one number or one per axis.
        order: "CRD" as above; "DCR": channel C (r i + j) + c of x, for C channels of y.

    Shapes:
        x (batch, *space, channels) to (batch, *(space times r), channels / product of the factors).

    Raises:
        ValueError: if the product of the factors does not divide the channels, or the order is unknown.

    Source:
        Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
        network", 2016, equation 4.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import PixelShuffle
        >>> PixelShuffle(2).forward(np.arange(4.0).reshape(1, 1, 1, 4))[0, :, :, 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        factors = self.factors(x)
        if x.shape[-1] % prod(factors):
            raise ValueError(f"factor {self.factor} does not divide the {x.shape[-1]} channels of x {x.shape}")
        return self.keep(self.spread(x, factors), factors)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.gather(gradient, *self.recall(gradient)),)


class PixelUnshuffle(_Shuffle):
    r"""Rearrange blocks of the space into channels, the inverse of :class:`PixelShuffle`.

    .. math:: y_{n,\, p,\, q,\, r^2 c + r i + j} = x_{n,\, r p + i,\, r q + j,\, c}

    Args:
        factor: r, one number or one per axis.
        order: as for ``PixelShuffle``.

    Shapes:
        x (batch, *space, channels) to (batch, *(space / r), channels times the product of the factors).

    Raises:
        ValueError: if the factors do not divide the space, or the order is unknown.

    Example:
        >>> import numpy as np
        >>> from fcnn.reference import PixelUnshuffle
        >>> PixelUnshuffle(2).forward(np.arange(4.0).reshape(1, 2, 2, 1)).ravel().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        factors = self.factors(x)
        if any(size % r for size, r in zip(x.shape[1:-1], factors, strict=True)):
            raise ValueError(f"factor {self.factor} does not divide the space of x {x.shape}")
        return self.keep(self.gather(x, factors), factors)

    def backward(self, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.spread(gradient, *self.recall(gradient)),)
