"""Padding, strided slices and patches of plain arrays, for sliding windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import product

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..geometry import Pads, Windows
from ..symbolic_sizes import symbolic
from .dtypes import least


def patches(x: Array, windows: Windows) -> Array:
    """The samples of each window: (batch, *space, channels) to (batch, *out, *kernel, channels).

    Example:
        >>> from fcnn.geometry import slide
        >>> windows = slide((3,), 2)
        >>> patches(jnp.arange(3.0).reshape(1, 3, 1), windows).reshape(2, 2).tolist()
        [[0.0, 1.0], [1.0, 2.0]]
    """
    x = pad(x, windows)
    views = [shifted(x, windows, offset) for offset in product(*map(range, windows.kernel))]
    return jnp.stack(views, windows.rank + 1).reshape(x.shape[0], *windows.out, *windows.kernel, x.shape[-1])


def pad(x: Array, windows: Windows, value: float = 0.0) -> Array:
    """Add the windows' padding around the space of x, with ``value`` where no samples are copied."""
    if windows.constant_pads == ((0, 0),) * windows.rank:
        return x
    if windows.fill != "constant":
        x = copies(x, windows.pads, windows.fill)
        widths = tuple((0, more) for more in windows.overhang)
    else:
        widths = windows.constant_pads
    return jnp.pad(x, ((0, 0), *widths, (0, 0)), constant_values=jnp.asarray(value, x.dtype))


def copies(x: Array, pads: Pads, fill: str) -> Array:
    """X (batch, *space, ...) padded by copies of its samples around the space."""
    if not any(map(symbolic, x.shape)):
        return jnp.pad(x, ((0, 0), *pads, *((0, 0),) * (x.ndim - len(pads) - 1)), mode=fill)
    for axis, (lo, hi) in enumerate(pads, start=1):
        x = jnp.take(x, _copied(x.shape[axis], lo, hi, fill), axis, mode="clip")
    return x


def _copied(size: int, lo: int, hi: int, fill: str) -> Array:
    """The index of the sample at every place of a padded axis, for symbolic sizes, which jnp.pad does not take."""
    places = jnp.arange(size + lo + hi) - lo
    if fill == "wrap":
        return places % size
    if fill == "edge":
        return jnp.clip(places, 0, size - 1)
    period = 2 * (size - 1)
    places = places % period
    return jnp.minimum(places, period - places)


def unpad(x: Array, pads: Pads, fill: str) -> Array:
    """The transpose of :func:`pad` by copies: every copy is added to the sample that it was copied from.

    Shapes:
        x (batch, *padded, ...) to (batch, *space, ...).

    Example:
        >>> unpad(jnp.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1), ((1, 0),), "wrap").ravel().tolist()
        [10.0, 100.0, 1001.0]
    """
    if pads == ((0, 0),) * len(pads):
        return x
    rest = x.ndim - len(pads) - 1
    space = [n - lo - hi for n, (lo, hi) in zip(x.shape, ((0, 0), *pads, *((0, 0),) * rest), strict=True)]
    transpose = jax.linear_transpose(partial(copies, pads=pads, fill=fill), jax.ShapeDtypeStruct(space, x.dtype))
    return transpose(x)[0]


def shifted(x: Array, windows: Windows, offset: Sequence[int]) -> Array:
    """The padded x at sample ``offset`` of every window: a strided slice (batch, *out, channels)."""
    starts, limits, strides = [0], [x.shape[0]], [1]
    for axis, j in enumerate(offset):
        start = j * windows.dilation[axis]
        starts.append(start)
        limits.append(start + (windows.out[axis] - 1) * windows.stride[axis] + 1)
        strides.append(windows.stride[axis])
    return lax.slice(x, (*starts, 0), (*limits, x.shape[-1]), (*strides, 1))


def fold(x: Array, windows: Windows, combine: Callable[[Array, Array], Array]) -> Array:
    """Combine the samples of each window of the padded x, axis by axis, the last first."""
    if any(map(symbolic, windows.space)):
        return _reduced(x, windows, combine)
    return fold_rows(x, windows, lambda samples: reduce(combine, samples))


def fold_rows(x: Array, windows: Windows, combine: Callable[[list[Array]], Array]) -> Array:
    """:func:`fold` by a function of all samples of a window along one axis; not for symbolic sizes."""
    for axis in reversed(range(windows.rank)):
        x = combine(_samples(x, windows, axis))
    return x


def _reduced(x: Array, windows: Windows, combine: Callable[[Array, Array], Array]) -> Array:
    """:func:`fold` by ``lax.reduce_window``, which takes symbolic sizes."""
    start, function = (0, lax.add) if combine is jnp.add else (least(x.dtype), lax.max)
    sizes, strides, dilations = ((1, *n, 1) for n in (windows.kernel, windows.stride, windows.dilation))
    return lax.reduce_window(
        x, jnp.asarray(start, x.dtype), function, sizes, strides, "VALID", window_dilation=dilations
    )


def _samples(x: Array, windows: Windows, axis: int) -> list[Array]:
    """The j-th samples of all windows along one axis, for every j."""
    one = [1] * windows.rank
    sizes = list(x.shape[1:-1])
    kernel, stride, dilation, out = [*one], [*one], [*one], [*sizes]
    kernel[axis], stride[axis] = windows.kernel[axis], windows.stride[axis]
    dilation[axis], out[axis] = windows.dilation[axis], windows.out[axis]
    none = ((0, 0),) * windows.rank
    line = Windows(
        tuple(sizes), tuple(kernel), tuple(stride), tuple(dilation), none, "constant", tuple(out), (0,) * windows.rank
    )
    return [shifted(x, line, [j if a == axis else 0 for a in range(windows.rank)]) for j in range(kernel[axis])]
