"""Noise added to every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.scipy.special

from .augmentation import PerExample, real, wide
from .drawing import even


@dataclass(frozen=True)
class Noise(PerExample):
    r"""Add normally distributed noise to every value, on 65,536 levels up to 4.3 standard deviations.

    .. math:: y = x + \sigma \epsilon, \quad \epsilon \sim \mathcal{N}(0, 1)

    Args:
        deviation: sigma, in units of x.

    Shapes:
        x (batch, ..., channels); the shape is unchanged.

    Raises:
        ValueError: a negative deviation.
        TypeError: x is not floating point.

    Source:
        Sietsma and Dow, "Creating artificial neural networks that generalize", 1991.

    Example:
        >>> (x,), _ = Noise(0.1)(jax.random.key(0), ((jnp.zeros((8, 28, 28, 1)),), None))
        >>> round(x.std().item(), 2)
        0.1
    """

    deviation: float
    rank: ClassVar[int] = 0

    def check(self) -> dict[str, Any]:
        return {"deviation": real(self.deviation, "deviation", 0)}

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw the noise, of the example's shape, float32."""
        return self.deviation * (2**0.5 * jax.scipy.special.erfinv(even(key, shape)))

    def alter(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        dtype = wide(x.dtype)
        return (x.astype(dtype) + drawn.astype(dtype)).astype(x.dtype)
