"""Many random numbers at half the price."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def even(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Numbers spread evenly between -1 and 1, on 65,536 levels.

    Two are made of each word of 32 random bits, because making the bits is what costs.

    Args:
        key: random key.
        shape: of the result.

    Returns:
        The numbers, float32; the mean of all levels is 0, and neither -1 nor 1 is among them.

    Example:
        >>> numbers = even(jax.random.key(0), (1000,))
        >>> bool((abs(numbers) < 1).all()), round(numbers.mean().item(), 1)
        (True, 0.0)
    """
    wanted = math.prod(shape)
    words = jax.random.bits(key, (math.ceil(wanted / 2),), jnp.uint32)
    levels = jnp.concatenate([words >> 16, words & 0xFFFF])[:wanted]
    return ((levels.astype(jnp.float32) + 0.5) * 2.0**-15 - 1.0).reshape(shape)
