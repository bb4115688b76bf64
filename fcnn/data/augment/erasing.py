"""Augmentations that mask a part of an example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import format_shape
from ...geometry import check_sizes, per_axis
from .augmentation import PerExample, pair, real


def box(space: Sequence[int], start: Any, stop: Any) -> jax.Array:
    """The mask of the samples in a box: start <= i < stop along every axis.

    Args:
        space: size of each space axis.
        start: first sample in the box (rank,), integers.
        stop: first sample after it (rank,), integers.

    Shapes:
        start, stop (rank,) to (*space,).

    Returns:
        The mask, bool.

    Example:
        >>> box((5,), [1], [3]).tolist()
        [False, True, True, False, False]
    """
    start, stop = jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32)
    mask = jnp.ones(tuple(space), bool)
    for axis, size in enumerate(space):
        place = jnp.arange(size, dtype=jnp.int32)
        along = [1] * len(space)
        along[axis] = size
        mask = mask & ((place >= start[axis]) & (place < stop[axis])).reshape(along)
    return mask


def erase(image: jax.Array, start: Any, stop: Any, fill: float = 0.0) -> jax.Array:
    """Fill a box of an image with one value.

    Args:
        image: (*space, channels), of any dtype.
        start: first sample of the box along each axis (rank,), integers.
        stop: first sample after it (rank,).
        fill: the value.

    Shapes:
        image (*space, channels) to (*space, channels).

    Returns:
        The image with the box filled.

    Example:
        >>> erase(jnp.ones((5, 1)), [1], [3])[:, 0].tolist()
        [1.0, 0.0, 0.0, 1.0, 1.0]
    """
    inside = box(image.shape[:-1], start, stop)[..., None]
    return jnp.where(inside, jnp.asarray(fill).astype(image.dtype), image)


@dataclass(frozen=True)
class Cutout(PerExample):
    """Fill a box at a random place of each example.

    The centre of the box is any sample, with equal probability; part of the box may lie outside.

    Args:
        size: samples along each side of the box, one number or one per space axis.
        fill: value, preferably the mean of the data; 0 for normalised data.

    Shapes:
        x (batch, *space, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: a size below 1.

    Source:
        DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017, section 3.2.

    Example:
        >>> (x,), _ = Cutout(8)(jax.random.key(0), ((jnp.ones((8, 32, 32, 3)),), None))
        >>> bool((x.sum((1, 2, 3)) >= 3 * (32**2 - 8**2)).all())
        True
    """

    size: int | tuple[int, ...]
    _: KW_ONLY
    fill: float = 0.0
    floating: ClassVar[bool] = False

    def check(self) -> dict[str, Any]:
        return {"size": check_sizes(self.size, "size"), "fill": real(self.fill, "fill")}

    def check_rank(self, shape: tuple[int, ...]) -> None:
        per_axis(self.size, len(shape) - 2, "size")

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Draw start and stop of the box, (rank,) int32 each; they may lie outside."""
        size = jnp.asarray(per_axis(self.size, len(shape) - 1, "size"), jnp.int32)
        middle = jax.random.randint(key, (len(shape) - 1,), 0, jnp.asarray(shape[:-1], jnp.int32), jnp.int32)
        start = middle - size // 2
        return start, start + size

    def alter(self, x: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return erase(x, *drawn, fill=self.fill)


@dataclass(frozen=True)
class RandomErasing(PerExample):
    r"""Fill a rectangle of random area and aspect ratio inside each image.

    .. math:: h = \sqrt{S H W r}, \quad w = \sqrt{S H W / r}

    rounded, at least 1 and at most H and W, with the share S drawn uniformly and the ratio r log-uniformly.
    The paper applies it with probability 1/2: ``sometimes(0.5, RandomErasing())``.

    Args:
        share: range of S.
        ratio: range of r, height over width.
        fill: value.

    Shapes:
        x (batch, height, width, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: a range out of order or out of limits, or x is not an image.

    Source:
        Zhong et al., "Random erasing data augmentation", 2017, algorithm 1 (which draws again if a rectangle does not
        fit; here its sides are clipped).

    Example:
        >>> (x,), _ = RandomErasing()(jax.random.key(0), ((jnp.ones((8, 32, 32, 3)),), None))
        >>> bool((x.mean((1, 2, 3)) < 1).all())
        True
    """

    _: KW_ONLY
    share: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    fill: float = 0.0
    floating: ClassVar[bool] = False

    def check(self) -> dict[str, Any]:
        ratio = pair(self.ratio, "ratio", 0)
        if ratio[0] == 0:
            raise ValueError("ratio begins at 0, it must be above 0")
        return {"share": pair(self.share, "share", 0, 1), "ratio": ratio, "fill": real(self.fill, "fill")}

    def check_rank(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise ValueError(f"it is for images (batch, height, width, channels), x has shape {format_shape(shape)}")

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Draw start and stop of the rectangle, (2,) int32 each."""
        keys = jax.random.split(key, 3)
        space = jnp.asarray(shape[:2], jnp.float32)
        area = jax.random.uniform(keys[0], (), jnp.float32, *self.share) * space[0] * space[1]
        low, high = self.ratio
        ratio = low * (high / low) ** jax.random.uniform(keys[1], (), jnp.float32)
        sides = jnp.clip(jnp.round(jnp.sqrt(jnp.stack([area * ratio, area / ratio]))), 1, space)
        start = jnp.floor(jax.random.uniform(keys[2], (2,), jnp.float32) * (space - sides + 1)).astype(jnp.int32)
        return start, start + sides.astype(jnp.int32)

    def alter(self, x: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return erase(x, *drawn, fill=self.fill)
