"""Parts that slide a window, and those that see the whole window.

A part that slides a window of its own slides over the whole field instead, its samples as far apart as the values of
one scanned window are there. ``Flatten`` and what sees a whole window become a convolution, or pooling, with what is
left of the window as kernel.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

from .. import facts, geometry
from ..errors import format_shape
from ..layer import Layer
from ..layers import Conv, Dense, Flatten, MaxPool
from .fields import Fragmented, split_axis
from .positions import as_it_is, other, part_wise, whole_space
from .rules import refuse
from .value import FIELD, FLAT, POINT, Part, Value, Way


def sliding(layer: Any, value: Value, way: Way) -> Part:
    """What slides a window without padding slides over the field."""
    if value.kind == FIELD and way.whole:
        return as_it_is(layer, value)
    stated = facts.locality(layer, value.shape) if value.kind == FIELD else None
    if not isinstance(stated, facts.SlidingWindow):
        return other(layer, value, way)
    windows = stated.windows
    _check_border(layer, windows, way)
    if getattr(layer, "ceil_mode", False):
        layer = dataclasses.replace(layer, ceil_mode=False)
    return slid(layer, windows.kernel, windows.stride, windows.dilation, value, way)


def _check_border(layer: Layer, windows: geometry.Windows, way: Way) -> None:
    if any(map(any, windows.constant_pads)):
        refuse(
            layer,
            f"pads the window of {format_shape(windows.space)}: its border is part of what it computes, and lies "
            "elsewhere in every window",
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
        slid = dataclasses.replace(
            layer, stride=geometry.plain_sizes(steps), dilation=geometry.plain_sizes(spread), padding="VALID"
        )
        extent = geometry.slide(value.extent, k, stride=steps, dilation=spread).out
        return Part(slid, Value(FIELD, after, (*after.local, out_channels), extent))
    axes = range(rank)
    splits, left = zip(*(split_axis(before, after, a, k[a], s[a], e[a]) for a in axes), strict=True)
    slid = dataclasses.replace(layer, stride=geometry.plain_sizes(left), padding="VALID")
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


def whole(layer: Any, value: Value, way: Way) -> Part:
    """What sees the whole space: over the window of a field it may be a layer that slides."""
    stated = facts.locality(layer, value.shape)
    if not isinstance(stated, facts.WholeSpace) or (value.kind != FIELD and stated.window is not None):
        return other(layer, value, way)
    if stated.window is None:
        return whole_space(stated.reason)(layer, value, way)
    found = stated.window(value.lattice.local)
    if isinstance(found, str):
        refuse(layer, found, way)
    part = sliding(found, value, way._replace(whole=False))
    if not stated.vector:
        return part
    return part._replace(value=part.value._replace(kind=POINT, shape=part.value.shape[-1:]))


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
    conv = Conv(layer.features, geometry.plain_sizes(local), **options)
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
