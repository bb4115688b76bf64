"""Augmentations that warp images: rotation, scaling, shearing, translation, elastic deformation."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...errors import format_shape
from .augmentation import PerExample, pair, real
from .drawing import even
from .resampling import Fill, affine, affine_matrix, displace, smooth


@dataclass(frozen=True)
class _Placed(PerExample):
    """The base of affine augmentations: a random map for each example, and one linear interpolation."""

    moves: ClassVar[bool] = True

    def ranges(self) -> dict[str, Any]:
        """The ranges of those of rotate, scale, shear and translate that are drawn."""
        raise NotImplementedError

    def check_rank(self, shape: tuple[int, ...]) -> None:
        rank, ranges = len(shape) - 2, self.ranges()
        if rank != 2 and (ranges.get("rotate") or ranges.get("shear")):
            raise ValueError(f"it turns images (batch, height, width, channels), x has shape {format_shape(shape)}")
        translate = ranges.get("translate", 0.0)
        if isinstance(translate, tuple) and len(translate) != rank:
            raise ValueError(
                f"{len(translate)} distances {translate} for the {rank} space axes of x, which has shape "
                f"{format_shape(shape)}; give {rank}, or one number that holds along every axis"
            )

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Draw the matrix (rank, rank) and the offset (rank,) for ``affine``."""
        space, ranges = shape[:-1], self.ranges()
        rotate, shear = ranges.get("rotate", 0.0), ranges.get("shear", 0.0)
        low, high = ranges.get("scale", (1.0, 1.0))
        translate = jnp.broadcast_to(jnp.asarray(ranges.get("translate", 0.0), jnp.float32), (len(space),))
        keys = jax.random.split(key, 4)
        return affine_matrix(
            space,
            degrees=_evenly(keys[0], -rotate, rotate) if rotate else 0.0,
            scale=_evenly(keys[1], low, high) if (low, high) != (1.0, 1.0) else 1.0,
            shear=_evenly(keys[2], -shear, shear) if shear else 0.0,
            translate=translate * jax.random.uniform(keys[3], (len(space),), jnp.float32, -1.0, 1.0),
        )

    def alter(self, x: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return affine(x, *drawn, fill=self.fill)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Affine(_Placed):
    r"""Shear, scale, rotate and translate each example, in one linear interpolation.

    .. math:: y_q = x(A q + b), \quad A, b \text{ as in } \texttt{affine\_matrix}

    All parameters are drawn uniformly from their ranges. Images are rotated about their centre.

    Args:
        rotate: degrees; the angle is from -rotate to rotate.
        scale: range (low, high) of the factor; above 1 enlarges.
        shear: degrees; the angle by which vertical lines are tilted is from -shear to shear.
        translate: t in samples, one number or one per space axis; the translation along each axis is from -t to t.
        fill: value beyond the border, or "edge": the nearest sample.

    Shapes:
        x (batch, *space, channels), shape unchanged; ``rotate`` and ``shear`` are for two space axes.

    Raises:
        ValueError: a number out of range, or x is not an image.
        TypeError: x is not floating point.

    Source:
        Simard, Steinkraus and Platt 2003, section 2.

    Example:
        >>> augment = Affine(rotate=15, scale=(0.9, 1.1), translate=2)
        >>> (x,), _ = augment(jax.random.key(0), ((jnp.ones((8, 28, 28, 1)),), None))
        >>> x.shape
        (8, 28, 28, 1)
    """

    _: KW_ONLY
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    translate: float | tuple[float, ...] = 0.0
    fill: Fill = 0.0

    def check(self) -> dict[str, Any]:
        return {
            "rotate": real(self.rotate, "rotate", 0, 180),
            "scale": _factors(self.scale),
            "shear": _lean(self.shear, "shear"),
            "translate": _distances(self.translate, "translate"),
            "fill": _filling(self.fill),
        }

    def ranges(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rotate", "scale", "shear", "translate")}


@dataclass(frozen=True)
class Rotate(_Placed):
    """Rotate each image about its centre by an angle drawn uniformly from -degrees to degrees.

    Args:
        degrees: the largest angle.
        fill: value beyond the border, or "edge": the nearest sample.

    Shapes:
        x (batch, height, width, channels); the shape is unchanged.

    Raises:
        ValueError: an angle out of range, or x is not an image.
        TypeError: x is not floating point.

    Source:
        Simard, Steinkraus and Platt 2003, section 2.

    Example:
        >>> (x,), _ = Rotate(15)(jax.random.key(0), ((jnp.ones((8, 28, 28, 1)),), None))
        >>> x.shape
        (8, 28, 28, 1)
    """

    degrees: float
    _: KW_ONLY
    fill: Fill = 0.0

    def check(self) -> dict[str, Any]:
        return {"degrees": real(self.degrees, "degrees", 0, 180), "fill": _filling(self.fill)}

    def ranges(self) -> dict[str, Any]:
        return {"rotate": self.degrees}


@dataclass(frozen=True)
class Scale(_Placed):
    """Enlarge or shrink each example about its centre by a factor drawn uniformly from low to high.

    Args:
        low: smallest factor; below 1 shrinks.
        high: largest factor.
        fill: value beyond the border, or "edge": the nearest sample.

    Shapes:
        x (batch, *space, channels); the shape is unchanged.

    Raises:
        ValueError: a factor that is not above 0, or low above high.
        TypeError: x is not floating point.

    Source:
        Simard, Steinkraus and Platt 2003, section 2.

    Example:
        >>> (x,), _ = Scale(0.9, 1.1)(jax.random.key(0), ((jnp.ones((8, 28, 28, 1)),), None))
        >>> x.shape
        (8, 28, 28, 1)
    """

    low: float
    high: float
    _: KW_ONLY
    fill: Fill = 0.0

    def check(self) -> dict[str, Any]:
        low, high = _factors((self.low, self.high))
        return {"low": low, "high": high, "fill": _filling(self.fill)}

    def ranges(self) -> dict[str, Any]:
        return {"scale": (self.low, self.high)}


@dataclass(frozen=True)
class Shear(_Placed):
    """Tilt the vertical lines of each image by an angle drawn uniformly from -degrees to degrees.

    Args:
        degrees: the largest angle, below 90.
        fill: value beyond the border, or "edge": the nearest sample.

    Shapes:
        x (batch, height, width, channels); the shape is unchanged.

    Raises:
        ValueError: an angle out of range, or x is not an image.
        TypeError: x is not floating point.

    Source:
        Simard, Steinkraus and Platt 2003, section 2.

    Example:
        >>> (x,), _ = Shear(10)(jax.random.key(0), ((jnp.ones((8, 28, 28, 1)),), None))
        >>> x.shape
        (8, 28, 28, 1)
    """

    degrees: float
    _: KW_ONLY
    fill: Fill = 0.0

    def check(self) -> dict[str, Any]:
        return {"degrees": _lean(self.degrees, "degrees"), "fill": _filling(self.fill)}

    def ranges(self) -> dict[str, Any]:
        return {"shear": self.degrees}


@dataclass(frozen=True)
class Translate(_Placed):
    """Translate each example by distances drawn uniformly from -pixels to pixels, not only whole ones as in ``Shift``.

    Args:
        pixels: the largest distance in samples, one number or one per space axis.
        fill: value beyond the border, or "edge": the nearest sample.

    Shapes:
        x (batch, *space, channels); the shape is unchanged.

    Raises:
        ValueError: a negative distance.
        TypeError: x is not floating point.

    Source:
        Simard, Steinkraus and Platt 2003, section 2.

    Example:
        >>> (x,), _ = Translate(1.5)(jax.random.key(0), ((jnp.ones((8, 28, 28, 1)),), None))
        >>> x.shape
        (8, 28, 28, 1)
    """

    pixels: float | tuple[float, ...]
    _: KW_ONLY
    fill: Fill = 0.0

    def check(self) -> dict[str, Any]:
        return {"pixels": _distances(self.pixels, "pixels"), "fill": _filling(self.fill)}

    def ranges(self) -> dict[str, Any]:
        return {"translate": self.pixels}


@dataclass(frozen=True)
class Elastic(PerExample):
    r"""Deform each example by a random smooth displacement field.

    .. math:: y_q = x(q + \alpha\, (G_\sigma * u)_q), \quad u_q \sim \mathcal{U}(-1, 1)^{rank}

    with G the Gaussian of ``smooth``, which sums to 1. Beyond the border u is 0, so displacements near it are smaller.

    Args:
        alpha: factor of the displacements, in samples.
        sigma: s.d. of the Gaussian, in samples; larger values give smoother and smaller displacements.
        fill: value beyond the border, or "edge": the nearest sample.

    Shapes:
        x (batch, *space, channels); the shape is unchanged.

    Raises:
        ValueError: a negative number.
        TypeError: x is not floating point.

    Source:
        Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual document
        analysis", 2003, section 2 (alpha 34 and sigma 4 for 29 x 29 digits).

    Example:
        >>> (x,), _ = Elastic(34, 4)(jax.random.key(0), ((jnp.ones((8, 28, 28, 1)),), None))
        >>> x.shape
        (8, 28, 28, 1)
    """

    alpha: float
    sigma: float
    _: KW_ONLY
    fill: Fill = 0.0
    moves: ClassVar[bool] = True

    def check(self) -> dict[str, Any]:
        return {
            "alpha": real(self.alpha, "alpha", 0),
            "sigma": real(self.sigma, "sigma", 0),
            "fill": _filling(self.fill),
        }

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw the displacements (rank, *space), float32."""
        space = shape[:-1]
        return self.alpha * smooth(even(key, (len(space), *space)), self.sigma)

    def alter(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        return displace(x, drawn, fill=self.fill)


def _evenly(key: jax.Array, low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, (), jnp.float32, low, high)


def _factors(value: Any) -> tuple[float, float]:
    low, high = pair(value, "scale", 0)
    if low == 0:
        raise ValueError("scale begins at 0, it must be above 0; (0.9, 1.1) changes sizes by up to a tenth")
    return low, high


def _lean(value: Any, name: str) -> float:
    value = real(value, name, 0, 90)
    if value == 90:
        raise ValueError(f"{name} is 90, it must be below 90: lines that lean so far lie flat")
    return value


def _distances(value: Any, name: str) -> float | tuple[float, ...]:
    if isinstance(value, tuple | list):
        return tuple(real(v, name, 0) for v in value)
    return real(value, name, 0)


def _filling(fill: Any) -> Fill:
    if fill == "edge":
        return "edge"
    if isinstance(fill, str):
        raise ValueError(f'fill {fill!r} is unknown; give a number, or "edge"')
    return real(fill, "fill")
