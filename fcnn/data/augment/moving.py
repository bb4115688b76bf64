"""Augmentations that move values without interpolation: flips, shifts and crops."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import format_shape, layer_path
from ...geometry import check_sizes, integer, per_axis
from .augmentation import (
    Augmentation,
    Batch,
    PerExample,
    check_input,
    check_targets_stay,
    pack,
    real,
    space_axis,
    unpack,
)
from .resampling import check_mode, shift


@dataclass(frozen=True)
class Flip(PerExample):
    """Mirror each example with probability p.

    Args:
        axis: the space axis to reverse; the last, -1, swaps left and right of an image.
        p: probability.

    Shapes:
        x (batch, *space, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: p is not from 0 to 1, or x has no such axis.

    Source:
        Krizhevsky, Sutskever and Hinton 2012, section 4.1.

    Example:
        >>> (x,), _ = Flip(p=1.0)(jax.random.key(0), ((jnp.arange(3.0).reshape(1, 1, 3, 1),), None))
        >>> x.ravel().tolist()
        [2.0, 1.0, 0.0]
    """

    _: KW_ONLY
    axis: int = -1
    p: float = 0.5
    floating: ClassVar[bool] = False
    moves: ClassVar[bool] = True

    def check(self) -> dict[str, Any]:
        return {"axis": integer(self.axis, "axis", -3), "p": real(self.p, "p", 0, 1)}

    def check_rank(self, shape: tuple[int, ...]) -> None:
        space_axis(self.axis, len(shape) - 2)

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw whether to flip, a bool."""
        return jax.random.bernoulli(key, self.p)

    def alter(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        return jnp.where(drawn, jnp.flip(x, space_axis(self.axis, x.ndim - 1)), x)


@dataclass(frozen=True)
class AlternatingFlip(Augmentation):
    r"""Mirror half of the examples in the first epoch, then each example in every second epoch.

    .. math:: \text{flip}_i(e) = (h(i) + e) \bmod 2

    where h(i) is 0 or 1, drawn from the seed and the position i in the data set, and e counts epochs from 0. Any two
    successive epochs show both sides of every example, whereas random flips repeat a side half the time.

    Args:
        axis: the space axis to reverse; the last, -1, swaps left and right of an image.
        seed: determines which half is flipped first.

    Shapes:
        x (batch, *space, channels), of any dtype; the shape is unchanged; examples (batch,).

    Raises:
        TypeError: called without ``examples`` and ``epoch``.

    Source:
        Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3.6.

    Example:
        >>> batch = ((jnp.arange(3.0).reshape(1, 1, 3, 1),), None)
        >>> def side(epoch):
        ...     (x,), _ = AlternatingFlip()(jax.random.key(0), batch, examples=jnp.array([7]), epoch=epoch)
        ...     return x.ravel().tolist()
        >>> side(0) == side(2), side(0) == side(1)
        (True, False)
    """

    _: KW_ONLY
    axis: int = -1
    seed: int = 0
    by_example: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    def check(self) -> dict[str, Any]:
        return {"axis": integer(self.axis, "axis", -3), "seed": integer(self.seed, "seed", 0)}

    def __call__(self, key: jax.Array, batch: Batch, *, examples: Any = None, epoch: Any = None) -> Batch:
        with layer_path("AlternatingFlip"):
            inputs, targets, alone = unpack(batch)
            x = check_input(inputs[0], floating=False)
            axis = 1 + space_axis(self.axis, x.ndim - 2)
            check_targets_stay(targets, x.shape)
            if examples is None or epoch is None:
                raise TypeError(
                    "which side is shown depends on the example and the epoch; call it with examples=, the positions "
                    "in the data set (batch,), and epoch=, as fcnn.fit does"
                )
            examples = jnp.asarray(examples)
            if examples.shape != x.shape[:1]:
                raise ValueError(
                    f"examples has shape {format_shape(examples.shape)}, expected {format_shape(x.shape[:1])}: one "
                    "position in the data set for each example of the batch"
                )
        flipped = self.draw(examples, epoch).reshape(-1, *(1,) * (x.ndim - 1))
        return pack((jnp.where(flipped, jnp.flip(x, axis), x), *inputs[1:]), targets, alone)

    def draw(self, examples: Any, epoch: Any) -> jax.Array:
        """Whether to flip each example in this epoch, (batch,) bool."""
        seed = jax.random.key(self.seed)
        first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(seed, i)))(jnp.asarray(examples, jnp.uint32))
        return first ^ (jnp.asarray(epoch) % 2 == 1)


@dataclass(frozen=True)
class Shift(PerExample):
    r"""Shift each example by whole samples, drawn uniformly from -n to n for each axis.

    Args:
        pixels: n, one number or one per space axis.
        mode: how the vacated samples are filled: "zeros", "edge", "reflect" or "wrap".

    Shapes:
        x (batch, *space, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: a negative number, an unknown mode, or more samples to reflect than there are.

    Example:
        >>> (x,), _ = Shift(2)(jax.random.key(0), ((jnp.ones((8, 28, 28, 1)),), None))
        >>> x.shape
        (8, 28, 28, 1)
    """

    pixels: int | tuple[int, ...]
    _: KW_ONLY
    mode: str = "zeros"
    floating: ClassVar[bool] = False
    moves: ClassVar[bool] = True

    def check(self) -> dict[str, Any]:
        return {"pixels": check_sizes(self.pixels, "pixels", 0), "mode": check_mode(self.mode)}

    def check_rank(self, shape: tuple[int, ...]) -> None:
        check_reach(per_axis(self.pixels, len(shape) - 2, "pixels", 0), shape, self.mode)

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw the offset for each space axis, (rank,) int32."""
        return draw_offset(key, per_axis(self.pixels, len(shape) - 1, "pixels", 0))

    def alter(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        return shift(x, drawn, self.mode)


@dataclass(frozen=True)
class Crop(PerExample):
    """Pad each example on every side, and crop the original size at a random place.

    Args:
        padding: samples added on each side, one number or one per space axis.
        mode: how the padding is filled: "reflect" (mirrored, the border not repeated), "zeros", "edge" or "wrap".

    Shapes:
        x (batch, *space, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: a negative number, an unknown mode, or more samples to reflect than there are.

    Source:
        He et al. 2016, section 4.2 (4 zeros on each side of 32 x 32 images); Zagoruyko and Komodakis 2016, section 3
        (with reflection).

    Example:
        >>> (x,), _ = Crop(4)(jax.random.key(0), ((jnp.ones((8, 32, 32, 3)),), None))
        >>> x.shape, bool((x == 1).all())
        ((8, 32, 32, 3), True)
    """

    padding: int | tuple[int, ...]
    _: KW_ONLY
    mode: str = "reflect"
    floating: ClassVar[bool] = False
    moves: ClassVar[bool] = True

    def check(self) -> dict[str, Any]:
        return {"padding": check_sizes(self.padding, "padding", 0), "mode": check_mode(self.mode)}

    def check_rank(self, shape: tuple[int, ...]) -> None:
        check_reach(per_axis(self.padding, len(shape) - 2, "padding", 0), shape, self.mode)

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw the offset for each space axis, (rank,) int32: how far the window lies before the middle."""
        return draw_offset(key, per_axis(self.padding, len(shape) - 1, "padding", 0))

    def alter(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        return shift(x, drawn, self.mode)  # a crop of the padded image is a shift, so no padding is needed


def draw_offset(key: jax.Array, reach: tuple[int, ...]) -> jax.Array:
    """Integers drawn uniformly from -n to n, for each n of the reach."""
    most = jnp.asarray(reach, jnp.int32)
    return jax.random.randint(key, (len(reach),), -most, most + 1, jnp.int32)


def check_reach(reach: tuple[int, ...], shape: tuple[int, ...], mode: str) -> None:
    """Raise if an example would be shifted further than there are samples to copy."""
    for most, size in zip(reach, shape[1:-1], strict=True):
        if (mode == "reflect" and most >= size) or (mode == "wrap" and most > size):
            raise ValueError(
                f'mode "{mode}" would copy {most} samples of an axis of {size}; use fewer, or mode="edge"; '
                f"x has shape {format_shape(shape)}"
            )
