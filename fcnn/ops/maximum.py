"""The maximum over windows, and its derivative: the gradient goes to the first of equal values in reading order."""

from __future__ import annotations

import math
from functools import partial, reduce
from itertools import product
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..geometry import Windows
from .devices import explicit_axes
from .windows import fold, shifted


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def largest(windows: Windows, x: Array) -> Array:
    """The maximum of each window of the padded x.

    The derivative is given by the places of the maxima, so that backpropagation needs neither XLA's
    select-and-scatter, which is slow and on a GPU adds in any order, nor the comparisons of the forward pass.
    """
    return fold(x, windows, _larger)


@largest.defjvp
def _largest_jvp(windows: Windows, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (t,) = primals, tangents
    return largest(windows, x), _picked(t, _first_place(x, windows), windows)


def _first_place(x: Array, windows: Windows) -> Array:
    """Which sample of each window is the first of the largest: its number, (batch, *out, channels)."""
    samples = [shifted(x, windows, offset) for offset in product(*map(range, windows.kernel))]
    return _first_of(samples, np.uint8 if len(samples) <= 256 else np.int32)


def _picked(t: Array, place: Array, windows: Windows) -> Array:
    """The sample of each window of t that has the place: linear in t, and its transpose puts a gradient there."""
    numbers = np.arange(math.prod(windows.kernel), dtype=place.dtype).reshape(windows.kernel)
    if windows.stride == windows.kernel and all(d == 1 for d in windows.dilation) and not explicit_axes(t):
        # no sample is in two windows: one select over all samples, where a sum of slices would be one for each
        batch, *out, channels = place.shape
        whole = [n * k for n, k in zip(out, windows.kernel, strict=True)]
        t = lax.slice(t, (0,) * t.ndim, (batch, *whole, channels))
        split = [size for pair in zip(out, windows.kernel, strict=True) for size in pair]
        spread, ones = [], []
        for n, k in zip(out, windows.kernel, strict=True):
            spread, ones = [*spread, n, 1], [*ones, 1, k]
        here = place.reshape(batch, *spread, channels) == numbers.reshape(1, *ones, 1)
        inner = tuple(2 + 2 * axis for axis in range(windows.rank))
        return jnp.where(here, t.reshape(batch, *split, channels), jnp.zeros((), t.dtype)).sum(inner, dtype=t.dtype)
    zero = jnp.zeros((), t.dtype)
    offsets = product(*map(range, windows.kernel))
    return reduce(add, [jnp.where(place == numbers[j], shifted(t, windows, j), zero) for j in offsets])


@jax.custom_jvp
def largest_of(x: Array) -> Array:
    """The maximum over the first axis, with the rule of :func:`largest`."""
    return reduce(_larger, list(x))


@largest_of.defjvp
def _largest_of_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (t,) = primals, tangents
    place = _first_of(list(x), np.uint8 if x.shape[0] <= 256 else np.int32)
    numbers = np.arange(x.shape[0], dtype=place.dtype).reshape(-1, *[1] * place.ndim)
    return largest_of(x), jnp.where(place == numbers, t, jnp.zeros((), t.dtype)).sum(0, dtype=t.dtype)


def _first_of(samples: list[Array], dtype: type) -> Array:
    """Which of the samples is the first of the largest."""
    best, place = samples[0], jnp.zeros(samples[0].shape, dtype)
    for number, sample in enumerate(samples[1:], start=1):
        more = (sample > best) | (sample != sample)
        best, place = jnp.where(more, sample, best), jnp.where(more, dtype(number), place)
    return place


def _larger(first: Array, second: Array) -> Array:
    """The maximum, whose gradient goes to the first of equals, and which keeps NaN."""
    return jnp.where((second > first) | (second != second), second, first)
