"""Parts that slide a window, and those that see the whole window.

A part that slides a window of its own slides over the whole field instead, its samples as far apart as the values of
one scanned window are there. ``Flatten`` and what sees a whole window become a convolution, or pooling, with what is
left of the window as kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

from .. import geometry
from ..errors import shown
from ..layer import Layer
from ..layers import Conv, Dense, Flatten, MaxPool
from ..ops.cells import cells_wanted
from .fields import Fragmented, split_axis
from .positions import as_it_is, other, part_wise
from .rules import plain, refuse
from .value import FIELD, FLAT, POINT, Part, Value, Way


def conv(layer: Conv, value: Value, way: Way) -> Part:
    """A convolution without padding slides over the field."""
    if value.kind == FIELD and way.whole:
        return as_it_is(layer, value)
    if value.kind != FIELD:
        return other(layer, value, way)
    _check_border(layer, geometry.slide(value.shape[:-1], layer.kernel, **_options(layer)), way)
    return slid(layer, layer.kernel, layer.stride, layer.dilation, value, way)


def pool(layer: Any, value: Value, way: Way) -> Part:
    """A pooling without padding slides over the field."""
    if value.kind == FIELD and way.whole:
        return as_it_is(layer, value)
    if value.kind != FIELD:
        return other(layer, value, way)
    options = {**_options(layer), "stride": layer.window if layer.stride is None else layer.stride}
    _check_border(layer, geometry.slide(value.shape[:-1], layer.window, ceil_mode=layer.ceil_mode, **options), way)
    plain = dataclasses.replace(layer, ceil_mode=False)
    return slid(plain, layer.window, options["stride"], layer.dilation, value, way)


def _options(layer: Any) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}


def _check_border(layer: Layer, windows: geometry.Windows, way: Way) -> None:
    if any(map(any, windows.constant_pads)):
        refuse(
            layer,
            f"pads the window of {shown(windows.space)}: its border is part of what it computes, and lies elsewhere in "
            "every window",
            way,
            'use padding="VALID"',
        )


def slid(layer: Any, kernel: Any, stride: Any, dilation: Any, value: Value, way: Way) -> Part:
    """Slide a window over a field: its samples lie as far apart as the values of one scanned window."""
    before, rank = value.lattice, value.lattice.rank
    k, s, e = (
        geometry.per_axis(n, rank, what) for n, what in ((kernel, "kernel"), (stride, "stride"), (dilation, "dilation"))
    )
    after, s = before.after(k, s, e, fragments=way.fragments)
    shape = layer.infer_shape(value.shape)
    out_channels = shape[-1]
    if not way.fragments:
        steps = tuple(b // a for a, b in zip(before.pitch, after.pitch, strict=True))
        spread = tuple(n * f for n, f in zip(e, before.fragments, strict=True))
        slid = dataclasses.replace(layer, stride=plain(steps), dilation=plain(spread), padding="VALID")
        extent = geometry.slide(value.extent, k, stride=steps, dilation=spread).out
        return Part(slid, Value(FIELD, after, (*after.local, out_channels), extent))
    axes = range(rank)
    splits, left = zip(*(split_axis(before, after, a, k[a], s[a], e[a]) for a in axes), strict=True)
    slid = dataclasses.replace(layer, stride=plain(left), padding="VALID")
    extent = tuple(split.length for split in splits)
    seen = tuple(split.need if split.picks else n for split, n in zip(splits, value.extent, strict=True))
    untouched = all(split.parts == 1 and not split.picks for split in splits)
    if not (untouched and geometry.slide(seen, k, stride=left, dilation=e).out == extent):
        slid = Fragmented(slid, splits)
    return Part(slid, Value(FIELD, after, (*after.local, out_channels), extent))


def window(layer: Any, value: Value, way: Way) -> Part:
    """Let a layer see all that is left of the window; what it makes is one value for each."""
    part = slid(layer, value.lattice.local, 1, 1, value, way)
    return part._replace(value=part.value._replace(kind=POINT, shape=part.value.shape[-1:]))


def global_pool(pool: Callable[..., Layer]) -> Callable[[Layer, Value, Way], Part]:
    """Pooling over all that is left of the window."""

    def rule(layer: Layer, value: Value, way: Way) -> Part:
        if value.kind != FIELD:
            return other(layer, value, way)
        return window(pool(plain(value.lattice.local)), value, way)

    return rule


def adaptive_pool(pool: Callable[..., Layer]) -> Callable[[Any, Value, Way], Part]:
    """Pooling to so many cells, where these are windows of one size."""

    def rule(layer: Any, value: Value, way: Way) -> Part:
        if value.kind != FIELD:
            return other(layer, value, way)
        local = value.lattice.local
        cells = cells_wanted(layer.out, local)
        bounds = [[(i * m // n, -(-(i + 1) * m // n)) for i in range(n)] for m, n in zip(local, cells, strict=True)]
        windows = tuple(_regular([stop - start for start, stop in axis]) for axis in bounds)
        steps = tuple(_regular([b - a for (a, _), (b, _) in pairwise(axis)] or [1]) for axis in bounds)
        if None in windows or None in steps:
            refuse(layer, f"lays cells of different sizes over the {shown(local)} values of a window", way)
        if 0 in steps:
            refuse(layer, f"lays several cells over one of the {shown(local)} values of a window", way)
        return slid(pool(windows, stride=steps), windows, steps, 1, value, way)

    return rule


def _regular(sizes: list[int]) -> int | None:
    return sizes[0] if len(set(sizes)) == 1 else None


# Parts that see the whole window as a vector.


def flatten(layer: Flatten, value: Value, way: Way) -> Part:
    """Nothing is done to the field, but what follows sees all of a window."""
    shape = layer.infer_shape(value.shape)
    if value.kind == FIELD and len(shape) == 1:
        return Part(None, value._replace(kind=POINT if value.lattice.single else FLAT, shape=shape))
    if value.kind == FLAT or len(value.shape) == 1:
        return Part(None, value)
    return other(layer, value, way)


def dense(layer: Dense, value: Value, way: Way) -> Part:
    """After a flattened field a convolution with all that is left of the window as kernel."""
    if value.kind != FLAT:
        return part_wise(layer, value, way)
    local = value.lattice.local
    channels = value.shape[-1] // prod(local)
    options = {name: getattr(layer, name) for name in ("bias", "kernel_init", "bias_init")}
    conv = Conv(layer.features, plain(local), **options)
    field = value._replace(kind=FIELD, shape=(*local, channels))
    return window(conv, field, way)._replace(kernels=((("kernel",), (*local, channels, layer.features)),))


def settled(value: Value, way: Way) -> Part:
    """Leave out what is at no scanned position, where one value of a window is left.

    As long as a window holds several, there are values between the positions. :meth:`Lattice.after` does the same where
    a part with a stride leaves one.
    """
    lattice = value.lattice
    axes = zip(lattice.local, lattice.stride, lattice.pitch, strict=True)
    if all(n > 1 or not scan or scan == g for n, scan, g in axes):
        return Part(None, value)
    return slid(MaxPool(1), 1, 1, 1, value, way)
