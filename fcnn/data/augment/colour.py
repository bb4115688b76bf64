"""Brightness, contrast, saturation and hue of images with values from 0 to 1."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import format_shape
from .augmentation import PerExample, pair, real, wide

#: luminance weights of red, green and blue (ITU-R BT.601, rounded as in torchvision)
GREY = (0.2989, 0.587, 0.114)


def brightness(image: jax.Array, factor: Any) -> jax.Array:
    r"""Make an image brighter or darker.

    .. math:: y = \text{clip}(f x, 0, 1)

    Args:
        image: (height, width, channels), values from 0 to 1.
        factor: f; 0 gives black, 1 the original image.

    Returns:
        The image, from 0 to 1.

    Source:
        ``torchvision.transforms.functional.adjust_brightness``.

    Example:
        >>> brightness(jnp.full((1, 1, 1), 0.25), 2.0).item()
        0.5
    """
    return _blend(image, jnp.zeros((), wide(image.dtype)), factor)


def contrast(image: jax.Array, factor: Any) -> jax.Array:
    r"""Move the values of an image away from its mean grey value, or towards it.

    .. math:: y = \text{clip}(f x + (1 - f) m, 0, 1), \quad m = \text{mean}(0.2989 r + 0.587 g + 0.114 b)

    Args:
        image: (height, width, 1 or 3), values from 0 to 1.
        factor: f; 0 gives a uniform grey, 1 the original image.

    Returns:
        The image, from 0 to 1.

    Source:
        ``torchvision.transforms.functional.adjust_contrast``.

    Example:
        >>> contrast(jnp.array([[[0.25], [0.75]]]), 0.0).ravel().tolist()
        [0.5, 0.5]
    """
    return _blend(image, grey(image).mean(), factor)


def saturation(image: jax.Array, factor: Any) -> jax.Array:
    r"""Move the colours of an image away from grey, or towards it.

    .. math:: y = \text{clip}(f x + (1 - f) (0.2989 r + 0.587 g + 0.114 b), 0, 1)

    Args:
        image: (height, width, 3), values from 0 to 1.
        factor: f; 0 gives a grey image, 1 the original one.

    Returns:
        The image, from 0 to 1.

    Source:
        ``torchvision.transforms.functional.adjust_saturation``.

    Example:
        >>> saturation(jnp.array([[[0.0, 1.0, 0.0]]]), 0.0).ravel()
        Array([0.587, 0.587, 0.587], dtype=float32)
    """
    return _blend(image, grey(image), factor)


def hue(image: jax.Array, turns: Any) -> jax.Array:
    r"""Rotate the colours of an image around the hue circle.

    With the hue H (in sixths of the circle), the maximum V of r, g, b, and C their maximum minus their minimum,

    .. math::
        H' = H + 6 t, \quad
        (r, g, b) = V - C \max(0, \min(k, 4 - k, 1)), \quad k = (n + H') \bmod 6, \quad n = (5, 3, 1)

    Args:
        image: (height, width, 3), values from 0 to 1.
        turns: t, as a fraction of the circle; 1/3 turns red into green, 1/2 gives complementary colours.

    Returns:
        The image; grey values are unchanged.

    Source:
        Smith, "Color gamut transform pairs", 1978; ``torchvision.transforms.functional.adjust_hue``.

    Example:
        >>> hue(jnp.array([[[1.0, 0.0, 0.0]]]), 1 / 3).round(3).ravel().tolist()
        [0.0, 1.0, 0.0]
    """
    dtype = wide(image.dtype)
    # channels first, and floor for the remainder: ten times as fast on the CPU
    red, green, blue = jnp.moveaxis(image.astype(dtype), -1, 0)
    most = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = most - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.where(chroma == 0, 1, chroma)
    sixths = jnp.where(
        most == red,
        (green - blue) / divisor,
        jnp.where(most == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * jnp.asarray(turns, dtype)
    k = jnp.asarray([5, 3, 1], dtype)[:, None, None] + sixths
    k = k - 6 * jnp.floor(k / 6)
    turned = most - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)
    return jnp.moveaxis(turned, 0, -1).astype(image.dtype)


def grey(image: jax.Array) -> jax.Array:
    """The luminance of an image, (height, width, 1); an image with one channel is returned as it is.

    Example:
        >>> round(grey(jnp.ones((1, 1, 3))).item(), 4)
        0.9999
    """
    x = image.astype(wide(image.dtype))
    if image.shape[-1] == 1:
        return x
    # slice by slice: sums over a last axis of size 3 are slow on the CPU
    return GREY[0] * x[..., :1] + GREY[1] * x[..., 1:2] + GREY[2] * x[..., 2:]


def _blend(image: jax.Array, other: jax.Array, factor: Any) -> jax.Array:
    factor = jnp.asarray(factor, other.dtype)
    return jnp.clip(factor * image.astype(other.dtype) + (1 - factor) * other, 0, 1).astype(image.dtype)


@dataclass(frozen=True)
class ColourJitter(PerExample):
    r"""Change brightness, contrast, saturation and hue of each image, in this order.

    Factors are drawn uniformly from :math:`\max(0, 1 - a)` to :math:`1 + a`, the rotation of the hue from -a to a.
    Values must be from 0 to 1, so apply this before normalisation.

    Args:
        brightness: a, or a range (low, high) of the factor.
        contrast: likewise.
        saturation: likewise; for images with three channels.
        hue: a, at most 0.5, or a range within -0.5 to 0.5; for images with three channels.

    Shapes:
        x (batch, height, width, 1 or 3); the shape is unchanged.

    Raises:
        ValueError: a number out of range, or saturation or hue for images with one channel.
        TypeError: x is not floating point.

    Source:
        ``torchvision.transforms.ColorJitter``, which also draws the order.

    Example:
        >>> (x,), _ = ColourJitter(brightness=0.2)(jax.random.key(0), ((jnp.full((8, 32, 32, 3), 0.5),), None))
        >>> bool(((x >= 0.4) & (x <= 0.6)).all())
        True
    """

    _: KW_ONLY
    brightness: float | tuple[float, float] = 0.0
    contrast: float | tuple[float, float] = 0.0
    saturation: float | tuple[float, float] = 0.0
    hue: float | tuple[float, float] = 0.0

    def check(self) -> dict[str, Any]:
        checked: dict[str, Any] = {}
        for name in ("brightness", "contrast", "saturation", "hue"):
            value, (low, high) = getattr(self, name), (-0.5, 0.5) if name == "hue" else (0, float("inf"))
            ranged = isinstance(value, tuple | list)
            checked[name] = pair(value, name, low, high) if ranged else real(value, name, 0, high)
        return checked

    def check_rank(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or shape[-1] not in (1, 3):
            raise ValueError(
                f"it is for images (batch, height, width, 1 or 3 channels), x has shape {format_shape(shape)}"
            )
        if shape[-1] == 1 and (self.saturation or self.hue):
            raise ValueError(
                f"saturation and hue are for images of three channels, x has shape {format_shape(shape)}; leave them "
                "out"
            )

    def check_values(self, x: Any) -> None:
        if not jnp.issubdtype(x.dtype, jnp.floating) or not np.size(x):
            return
        low, high = (float(f(np.asarray(x, np.float32))) for f in (np.min, np.max))
        if low < 0 or high > 1:
            raise ValueError(
                f"the values of x go from {low:.3g} to {high:.3g}, but colours are computed from 0 to 1 and what is "
                "outside would be cut off; augment first, and normalise in the network or after it in compose"
            )

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        """The factors by name; those without effect are left out."""
        keys = jax.random.split(key, 4)
        drawn = {}
        for place, (name, middle) in enumerate({"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}.items()):
            value = getattr(self, name)
            if value == 0:
                continue
            low, high = value if isinstance(value, tuple) else (middle - value, middle + value)
            low = low if name == "hue" else max(low, 0.0)
            drawn[name] = jax.random.uniform(keys[place], (), jnp.float32, low, high)
        return drawn

    def alter(self, x: jax.Array, drawn: dict[str, jax.Array]) -> jax.Array:
        for name, change in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
            ("hue", hue),
        ):
            x = change(x, drawn[name]) if name in drawn else x
        return x
