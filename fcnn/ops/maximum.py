"""The maximum over windows, and its derivative: the first of equal values, in row-major order, gets the gradient."""

from __future__ import annotations

import math
from functools import partial, reduce
from itertools import product
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jax.sharding import PartitionSpec

from ..geometry import Windows
from ..symbolic_sizes import symbolic
from . import noinline
from .devices import explicit_axes
from .dtypes import least, wide
from .tools import Own
from .windows import fold, shifted


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def largest(windows: Windows, x: Array) -> Array:
    """The maximum of each window of the padded x.

    The derivative is computed from the indices of the maxima. So backpropagation needs neither XLA's
    select-and-scatter, which is slow and on a GPU adds in no fixed order, nor the comparisons of the forward pass.
    """
    return fold(x, windows, _larger)


@largest.defjvp
def _largest_jvp(windows: Windows, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (t,) = primals, tangents
    if any(map(symbolic, windows.space)):  # by JAX's own operation and its rule, which is equivalent
        return jax.jvp(partial(fold, windows=windows, combine=_larger), primals, tangents)
    infinite = np.isinf(np.float32(least(x.dtype)))
    place = _first_of_finite(x, windows) if infinite else first_place(x, windows)
    return largest(windows, x), _picked(t, place, windows)


def _first_of_finite(x: Array, windows: Windows) -> Array:
    """:func:`first_place`, with minus infinity in the data replaced by the smallest finite number, above the padding.

    So the comparisons alone distinguish data from padding. With the default numbers of :func:`first_place`, XLA:CPU
    would repeat all comparisons for every sample of the window.
    """
    if windows.fill == "constant" and any(lo for lo, _ in windows.pads):
        inner = [slice(lo, size - hi) for size, (lo, hi) in zip(x.shape[1:-1], windows.constant_pads, strict=True)]
        data = jnp.maximum(x[:, *inner], jnp.finfo(x.dtype).min)
        x = jnp.pad(data, ((0, 0), *windows.constant_pads, (0, 0)), constant_values=jnp.asarray(-jnp.inf, x.dtype))
    samples = [shifted(x, windows, offset) for offset in product(*map(range, windows.kernel))]
    return _first_of(samples, np.uint8 if len(samples) <= 256 else np.int32)


def first_place(x: Array, windows: Windows) -> Array:
    """The number of the first maximum in each window of the padded x, (batch, *out, channels).

    It is never a sample of padding: if all values of a window are the smallest one, it is the first sample of data.
    Among several NaN it is the last.
    """
    samples = [shifted(x, windows, offset) for offset in product(*map(range, windows.kernel))]
    return _first_of(samples, np.uint8 if len(samples) <= 256 else np.int32, _first_of_data(windows))


def _first_of_data(windows: Windows) -> np.ndarray | None:
    """The number of the first sample of each window that is not padding, (1, *out, 1); None: it is 0 everywhere."""
    if windows.fill != "constant" or not any(lo for lo, _ in windows.pads):
        return None
    number = np.zeros((1,) * (windows.rank + 2), np.int32)
    for axis, (lo, _) in enumerate(windows.pads):
        missing = lo - windows.stride[axis] * np.arange(windows.out[axis])  # samples of padding before the data
        first = np.maximum(-(-missing // windows.dilation[axis]), 0)
        number = number * windows.kernel[axis] + first.reshape([-1 if a == axis + 1 else 1 for a in range(number.ndim)])
    return number


def _picked(t: Array, place: Array, windows: Windows) -> Array:
    """The sample of t with number ``place`` in each window: linear in t; its transpose puts a gradient there."""
    numbers = np.arange(math.prod(windows.kernel), dtype=place.dtype).reshape(windows.kernel)
    if t.dtype.itemsize < 2:  # some of these dtypes have no zero
        return _picked(t.astype(wide(t.dtype)), place, windows).astype(t.dtype)
    if windows.stride == windows.kernel and all(d == 1 for d in windows.dilation) and not explicit_axes(t):
        # no sample is in two windows: one select over all samples, instead of one for each sample of the window
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
    # a sample gets the gradients of all windows whose maximum it is: they are summed in the wide dtype
    half, t = t.dtype, t.astype(wide(t.dtype))
    zero = jnp.zeros((), t.dtype)
    offsets = product(*map(range, windows.kernel))
    picked = reduce(add, [jnp.where(place == numbers[j], shifted(t, windows, j), zero) for j in offsets])
    return picked.astype(half)


@jax.custom_jvp
def largest_of_polyphase(x: Array) -> Array:
    """The maximum over the second axis, with the rule of :func:`largest`."""
    return reduce(_larger, _polyphase(x))


@largest_of_polyphase.defjvp
def _largest_of_polyphase_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (t,) = primals, tangents
    place = _first_of(_polyphase(x), np.uint8 if x.shape[1] <= 256 else np.int32)
    return largest_of_polyphase(x), picked_p.bind(place, t, phases=x.shape[1])


def _polyphase(x: Array) -> list[Array]:
    return [lax.index_in_dim(x, i, 1, keepdims=False) for i in range(x.shape[1])]


# The sample with a given number among the phases, and the transpose, which puts a gradient there:
# picked maps place (channels, ...) and t (channels, phases, ...) to (channels, ...),
# spread maps place and g (channels, ...) to (channels, phases, ...)

picked_p, spread_p = Own("fcnn_picked"), Own("fcnn_spread")


def _is_at(place: Array, phases: int) -> Array:
    numbers = np.arange(phases, dtype=place.dtype).reshape(-1, *[1] * (place.ndim - 1))
    return place[:, None] == numbers


def _picked_phase(place: Array, t: Array, *, phases: int) -> Array:
    return jnp.where(_is_at(place, phases), t, jnp.zeros((), t.dtype)).sum(1, dtype=t.dtype)


def _spread_phase(place: Array, g: Array, *, phases: int) -> Array:
    return jnp.where(_is_at(place, phases), g[:, None], jnp.zeros((), g.dtype))


def _along_t(primitive: Primitive, primals: Any, tangents: Any, *, phases: int) -> tuple[Array, Array]:
    (place, t), (_, change) = primals, tangents
    y = primitive.bind(place, t, phases=phases)
    return y, primitive.bind(place, ad.instantiate_zeros(change), phases=phases)


def _turned_around(to: Primitive, cotangent: Array, place: Array, t: Any, *, phases: int) -> tuple[None, Array]:
    return None, to.bind(place, cotangent, phases=phases)


def _more_channels(primitive: Primitive, args: Any, dims: Any, *, phases: int) -> tuple[Array, int]:
    """Under vmap, the copies become channels."""
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    place, t = (
        jnp.broadcast_to(a, (size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
        for a, d in zip(args, dims, strict=True)
    )
    y = primitive.bind(*(a.reshape(-1, *a.shape[2:]) for a in (place, t)), phases=phases)
    return y.reshape(size, -1, *y.shape[1:]), 0


def _shaped(primitive: Primitive, place: Any, t: Any, *, phases: int) -> Any:
    shape = place.shape if primitive is picked_p else (place.shape[0], phases, *place.shape[1:])
    return t.update(shape=shape, sharding=t.sharding.update(spec=PartitionSpec(*(None,) * len(shape))))


for _primitive, _function, _other in ((picked_p, _picked_phase, spread_p), (spread_p, _spread_phase, picked_p)):
    noinline.register(_primitive, _function)
    _primitive.def_abstract_eval(partial(_shaped, _primitive))
    ad.primitive_jvps[_primitive] = partial(_along_t, _primitive)
    ad.primitive_transposes[_primitive] = partial(_turned_around, _other)
    batching.primitive_batchers[_primitive] = partial(_more_channels, _primitive)


def _first_of(samples: list[Array], dtype: type, default: np.ndarray | None = None) -> Array:
    """The number of the first maximum among the samples; where none is larger than the first, the default, or 0."""
    best, place = samples[0], jnp.zeros(samples[0].shape, dtype)
    if default is not None:
        place = place + default.astype(dtype)
    for number, sample in enumerate(samples[1:], start=1):
        more = (sample > best) | (sample != sample)
        best, place = jnp.where(more, sample, best), jnp.where(more, dtype(number), place)
    return place


def _larger(first: Array, second: Array) -> Array:
    """The maximum; of equal values the first gets the gradient, and NaN propagates."""
    return jnp.where((second > first) | (second != second), second, first)
