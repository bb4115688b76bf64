"""Pooling layers over the whole space, and to a given output size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax

from .. import ops
from ..errors import format_shape
from ..facts import Locality, WholeSpace
from ..geometry import Shape
from ..layer import Layer
from ..ops.cells import cells_wanted, check_cells, check_has_space
from ..symbolic_sizes import plain_sizes
from ..types import Params
from .pool import AvgPool, MaxPool


@dataclass(frozen=True, repr=False)
class _Global(Layer):
    """Base class of pooling over the whole space."""

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_has_space(shapes[0])
        return shapes[0][-1:]

    def multiply_adds(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, repr=False)
class GlobalMaxPool(_Global):
    """The largest value of each channel over the whole space, at any position.

    Among equal values the first gets the gradient.

    Shapes:
        x (batch, *space, channels) to (batch, channels).

    Raises:
        ValueError: no space axis.

    Source:
        Oquab et al., "Is object localization for free?", 2015, section 3.2.

    Example:
        >>> GlobalMaxPool().out_shape((7, 7, 512))
        (512,)
    """

    def locality(self, shape: Shape) -> Locality:
        return _over_all(MaxPool)

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.global_max_pool(inputs[0])


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(_Global):
    """The mean of each channel over the whole space.

    Shapes:
        x (batch, *space, channels) to (batch, channels).

    Raises:
        ValueError: no space axis.

    Source:
        Lin, Chen and Yan, "Network in network", 2014, section 3.2.

    Example:
        >>> GlobalAvgPool().out_shape((7, 7, 512))
        (512,)
    """

    def locality(self, shape: Shape) -> Locality:
        return _over_all(AvgPool)

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.global_avg_pool(inputs[0])


@dataclass(frozen=True, repr=False)
class _Adaptive(Layer):
    """Base class of pooling to a given output size."""

    out: int | tuple[int | None, ...]

    def check(self) -> dict[str, Any]:
        return {"out": check_cells(self.out)}

    def infer_shape(self, *shapes: Shape) -> Shape:
        check_has_space(shapes[0])
        return (*cells_wanted(self.out, shapes[0][:-1]), shapes[0][-1])

    def multiply_adds(self, shape: Shape) -> int:
        return 0


@dataclass(frozen=True, repr=False)
class AdaptiveAvgPool(_Adaptive):
    r"""The mean of each cell of a grid over the space, so that the output size does not depend on the input size.

    Cell i of an axis of M samples and m cells runs from :math:`\lfloor i M / m \rfloor` to
    :math:`\lceil (i + 1) M / m \rceil`.

    Args:
        out: cells along each axis; an integer applies to every axis, None keeps an axis unchanged, such as (None, 4).

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: no space axis, or a size below 1.

    Source:
        He et al., "Spatial pyramid pooling", 2014; the cells are those of torch.nn.AdaptiveAvgPool2d.

    Example:
        >>> AdaptiveAvgPool(6).out_shape((13, 17, 256))
        (6, 6, 256)
    """

    def locality(self, shape: Shape) -> Locality:
        return _over_cells(AvgPool, self.out)

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.adaptive_avg_pool(inputs[0], self.out)


@dataclass(frozen=True, repr=False)
class AdaptiveMaxPool(_Adaptive):
    """The largest value of each cell of a grid over the space.

    The cells are those of ``AdaptiveAvgPool``. Among equal values the first gets the gradient.

    Args:
        out: cells along each axis; an integer applies to every axis, None keeps an axis unchanged, such as (None, 4).

    Shapes:
        x (batch, *space, channels) to (batch, *out, channels).

    Raises:
        ValueError: no space axis, or a size below 1.

    Source:
        He et al., "Spatial pyramid pooling", 2014; the cells are those of torch.nn.AdaptiveMaxPool2d.

    Example:
        >>> AdaptiveMaxPool((2, 3)).out_shape((13, 17, 256))
        (2, 3, 256)
    """

    def locality(self, shape: Shape) -> Locality:
        return _over_cells(MaxPool, self.out)

    def forward(self, params: Params, *inputs: jax.Array) -> jax.Array:
        return ops.adaptive_max_pool(inputs[0], self.out)


def _over_all(pool: Callable[..., Layer]) -> WholeSpace:
    """The locality of pooling over the whole space; slid over a larger input, it is pooling over windows."""
    return WholeSpace(
        "pools over all positions",
        "leave it out, and pool over the result",
        lambda size: pool(plain_sizes(size), stride=1),
        vector=True,
    )


def _over_cells(pool: Callable[..., Layer], out: Any) -> WholeSpace:
    """The locality of pooling to a grid; slid over a larger input, it is pooling over windows if cells are equal."""

    def window(size: Shape) -> Layer | str:
        cells = cells_wanted(out, size)
        bounds = [[(i * m // n, -(-(i + 1) * m // n)) for i in range(n)] for m, n in zip(size, cells, strict=True)]
        windows = tuple(_regular([stop - start for start, stop in axis]) for axis in bounds)
        steps = tuple(_regular([b - a for (a, _), (b, _) in pairwise(axis)] or [1]) for axis in bounds)
        if None in windows or None in steps:
            return f"lays cells of different sizes over the {format_shape(size)} values of a window"
        if 0 in steps:
            return f"lays several cells over one of the {format_shape(size)} values of a window"
        return pool(windows, stride=steps)

    way_out = f"use {pool.__name__}"
    return WholeSpace("has windows that depend on the size of the image", way_out, window)


def _regular(sizes: list[int]) -> int | None:
    return sizes[0] if len(set(sizes)) == 1 else None
