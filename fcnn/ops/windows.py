"""What windows see: padding, strided slices and patches of plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product

import jax.numpy as jnp
from jax import Array, lax

from ..geometry import Windows, symbolic


def patches(x: Array, windows: Windows) -> Array:
    """What each window sees: (batch, *space, channels) to (batch, *out, *kernel, channels).

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
    """Add the windows' padding around the space of x, ``value`` where nothing is copied."""
    if windows.constant_pads == ((0, 0),) * windows.rank:
        return x
    if windows.fill != "constant" and any(map(symbolic, windows.space)):
        for axis, (lo, hi) in enumerate(windows.pads, start=1):
            x = jnp.take(x, _copied(x.shape[axis], lo, hi, windows.fill), axis, mode="clip")
        widths = tuple((0, more) for more in windows.overhang)
    elif windows.fill != "constant":
        x = jnp.pad(x, ((0, 0), *windows.pads, (0, 0)), mode=windows.fill)
        widths = tuple((0, more) for more in windows.overhang)
    else:
        widths = windows.constant_pads
    return jnp.pad(x, ((0, 0), *widths, (0, 0)), constant_values=jnp.asarray(value, x.dtype))


def _copied(size: int, lo: int, hi: int, fill: str) -> Array:
    """Which sample stands at every place of an axis with its padding; jnp.pad wants to know the size."""
    places = jnp.arange(size + lo + hi) - lo
    if fill == "wrap":
        return places % size
    period = 2 * (size - 1)
    places = places % period
    return jnp.minimum(places, period - places)


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
    """:func:`fold` by a function of all samples that a window has along one axis; of sizes that are known."""
    for axis in reversed(range(windows.rank)):
        x = combine(_samples(x, windows, axis))
    return x


def _reduced(x: Array, windows: Windows, combine: Callable[[Array, Array], Array]) -> Array:
    """The same by JAX's own operation, which takes sizes that are not known before the program runs."""
    add = combine is jnp.add
    whole = jnp.issubdtype(x.dtype, jnp.integer)
    start, function = (0, lax.add) if add else (jnp.iinfo(x.dtype).min if whole else -jnp.inf, lax.max)
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
