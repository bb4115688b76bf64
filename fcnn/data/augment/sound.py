"""Augmentations for sound (batch, samples, channels) and spectrograms (batch, time, frequencies, channels)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import format_shape
from ...geometry import integer
from .augmentation import PerExample, real, space_axis, wide
from .erasing import erase
from .moving import check_reach, draw_offset
from .resampling import shift


@dataclass(frozen=True)
class TimeShift(PerExample):
    """Shift each recording in time by whole samples, drawn uniformly from -n to n.

    Args:
        samples: n.
        circular: whether samples shifted out at one end re-enter at the other; otherwise silence does.
        axis: the space axis that is time; by default the first one.

    Shapes:
        x (batch, samples, channels) or (batch, time, frequencies, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: a negative number, or no such axis.

    Example:
        >>> (x,), _ = TimeShift(800)(jax.random.key(0), ((jnp.ones((8, 8000, 1)),), None))
        >>> bool((x.sum((1, 2)) >= 7200).all())
        True
    """

    samples: int
    _: KW_ONLY
    circular: bool = False
    axis: int = 0
    floating: ClassVar[bool] = False
    moves: ClassVar[bool] = True

    def check(self) -> dict[str, Any]:
        if not isinstance(self.circular, bool):
            raise TypeError(f"circular must be True or False, not {self.circular!r}")
        return {"samples": integer(self.samples, "samples", 0), "axis": integer(self.axis, "axis", -3)}

    def check_rank(self, shape: tuple[int, ...]) -> None:
        check_reach(self._reach(shape[1:]), shape, self._mode())

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw the offset for each space axis, (rank,) int32, 0 except for time."""
        return draw_offset(key, self._reach(shape))

    def alter(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        return shift(x, drawn, self._mode())

    def _reach(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        time = space_axis(self.axis, len(shape) - 1)
        return tuple(self.samples if axis == time else 0 for axis in range(len(shape) - 1))

    def _mode(self) -> str:
        return "wrap" if self.circular else "zeros"


@dataclass(frozen=True)
class Gain(PerExample):
    r"""Make each recording louder or softer.

    .. math:: y = 10^{g / 20} x, \quad g \sim \mathcal{U}(-d, d)

    Args:
        decibels: d; 6 is about a factor of 2.

    Shapes:
        x (batch, ..., channels); the shape is unchanged.

    Raises:
        ValueError: a negative number.
        TypeError: x is not floating point.

    Example:
        >>> (x,), _ = Gain(20)(jax.random.key(0), ((jnp.ones((8, 8000, 1)),), None))
        >>> bool(((x >= 0.1) & (x <= 10)).all())
        True
    """

    decibels: float
    rank: ClassVar[int] = 0

    def check(self) -> dict[str, Any]:
        return {"decibels": real(self.decibels, "decibels", 0)}

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """g, in decibels."""
        return jax.random.uniform(key, (), jnp.float32, -self.decibels, self.decibels)

    def alter(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        dtype = wide(x.dtype)
        return (x.astype(dtype) * (10 ** (drawn / 20)).astype(dtype)).astype(x.dtype)


@dataclass(frozen=True)
class _Masking(PerExample):
    """The base of both masks for spectrograms."""

    size: int
    _: KW_ONLY
    masks: int = 1
    fill: float = 0.0
    axis: int = 0
    floating: ClassVar[bool] = False

    def check(self) -> dict[str, Any]:
        return {
            "size": integer(self.size, "size", 0),
            "masks": integer(self.masks, "masks", 1),
            "fill": real(self.fill, "fill"),
            "axis": integer(self.axis, "axis", -3),
        }

    def check_rank(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise ValueError(
                f"it is for spectrograms (batch, time, frequencies, channels), x has shape {format_shape(shape)}"
            )
        size = shape[1 + space_axis(self.axis, 2)]
        if self.size > size:
            raise ValueError(
                f"size {self.size} is more than the {size} samples of the axis; x has shape {format_shape(shape)}"
            )

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Draw start and stop of each mask, (masks,) int32."""
        width_key, start_key = jax.random.split(key)
        samples = shape[space_axis(self.axis, 2)]
        width = jax.random.randint(width_key, (self.masks,), 0, self.size + 1, jnp.int32)
        start = jax.random.randint(start_key, (self.masks,), 0, samples - width + 1, jnp.int32)
        return start, start + width

    def alter(self, x: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        axis = space_axis(self.axis, 2)
        for start, stop in zip(*drawn, strict=True):
            first = [jnp.zeros((), jnp.int32)] * 2
            last = [jnp.asarray(size, jnp.int32) for size in x.shape[:2]]
            first[axis], last[axis] = start, stop
            x = erase(x, jnp.stack(first), jnp.stack(last), self.fill)
        return x


@dataclass(frozen=True)
class MaskTime(_Masking):
    r"""Fill time intervals of each spectrogram with a constant.

    .. math:: w \sim \mathcal{U}\{0, \dots, T\}, \quad t_0 \sim \mathcal{U}\{0, \dots, \tau - w\}

    and the samples :math:`t_0 \le t < t_0 + w`, of :math:`\tau` along the axis, are set to the value.

    Args:
        size: T, the largest width of a mask in samples.
        masks: number of masks.
        fill: value, preferably the mean of the data.
        axis: the space axis that is time.

    Shapes:
        x (batch, time, frequencies, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: a number out of range, or x is not a spectrogram.

    Source:
        Park et al., "SpecAugment: a simple data augmentation method for automatic speech recognition", 2019,
        section 2.

    Example:
        >>> (x,), _ = MaskTime(10)(jax.random.key(0), ((jnp.ones((8, 64, 40, 1)),), None))
        >>> bool((x.sum((1, 2, 3)) >= 54 * 40).all())
        True
    """


@dataclass(frozen=True)
class MaskFrequencies(_Masking):
    r"""Fill frequency bands of each spectrogram with a constant.

    .. math:: w \sim \mathcal{U}\{0, \dots, F\}, \quad f_0 \sim \mathcal{U}\{0, \dots, \nu - w\}

    and the samples :math:`f_0 \le f < f_0 + w`, of :math:`\nu` along the axis, are set to the value.

    Args:
        size: F, the largest width of a mask in samples.
        masks: number of masks.
        fill: value, preferably the mean of the data.
        axis: the space axis that is frequency.

    Shapes:
        x (batch, time, frequencies, channels), of any dtype; the shape is unchanged.

    Raises:
        ValueError: a number out of range, or x is not a spectrogram.

    Source:
        Park et al. 2019, section 2.

    Example:
        >>> (x,), _ = MaskFrequencies(8)(jax.random.key(0), ((jnp.ones((8, 64, 40, 1)),), None))
        >>> bool((x.sum((1, 2, 3)) >= 64 * 32).all())
        True
    """

    _: KW_ONLY
    axis: int = 1
