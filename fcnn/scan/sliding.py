"""Rules for parts that slide a window, and for those that see the whole window.

A part that slides a window of its own slides over the whole field instead, with the dilation of the field. ``Flatten``
with the dense layer after it, and layers over the whole window, become a convolution or pooling whose kernel is the
remaining window.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

from .. import facts, geometry
from ..errors import format_shape
from ..layer import Layer
from ..layers import Conv, Dense, Flatten, MaxPool
from ..symbolic_sizes import plain_sizes
from .activation_layout import FIELD, FLAT, POINT, ActivationLayout, Part, RewriteOptions
from .fields import Fragmented, split_axis
from .positions import as_it_is, other, part_wise, whole_space
from .rules import refuse


def sliding(layer: Any, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A layer that slides a window without padding slides over the field."""
    if layout.kind == FIELD and options.whole:
        return as_it_is(layer, layout)
    stated = facts.locality(layer, layout.shape) if layout.kind == FIELD else None
    if not isinstance(stated, facts.SlidingWindow):
        return other(layer, layout, options)
    windows = stated.windows
    _check_border(layer, windows, options)
    if getattr(layer, "ceil_mode", False):
        layer = dataclasses.replace(layer, ceil_mode=False)
    return slid(layer, windows.kernel, windows.stride, windows.dilation, layout, options)


def _check_border(layer: Layer, windows: geometry.Windows, options: RewriteOptions) -> None:
    if any(map(any, windows.constant_pads)):
        refuse(
            layer,
            f"pads the window of {format_shape(windows.space)}: its border is part of what it computes, and is "
            "at a different place for every window",
            options,
            'use padding="VALID"',
        )


def slid(
    layer: Any, kernel: Any, stride: Any, dilation: Any, layout: ActivationLayout, options: RewriteOptions
) -> Part:
    """Slide a window over a field: its samples are as far apart as the values of one scanned window."""
    before, rank = layout.grid, layout.grid.rank
    k, s, e = (
        geometry.per_axis(n, rank, what) for n, what in ((kernel, "kernel"), (stride, "stride"), (dilation, "dilation"))
    )
    after, s = before.after(k, s, e, fragments=options.fragments)
    shape = layer.infer_shape(layout.shape)
    out_channels = shape[-1]
    if not options.fragments:
        steps = tuple(b // a for a, b in zip(before.pitch, after.pitch, strict=True))
        spread = tuple(n * f for n, f in zip(e, before.fragments, strict=True))
        slid = dataclasses.replace(layer, stride=plain_sizes(steps), dilation=plain_sizes(spread), padding="VALID")
        extent = geometry.slide(layout.extent, k, stride=steps, dilation=spread).out
        return Part(slid, ActivationLayout(FIELD, after, (*after.local, out_channels), extent))
    axes = range(rank)
    splits, left = zip(*(split_axis(before, after, a, k[a], s[a], e[a]) for a in axes), strict=True)
    slid = dataclasses.replace(layer, stride=plain_sizes(left), padding="VALID")
    extent = tuple(split.length for split in splits)
    seen = tuple(split.need if split.picks else n for split, n in zip(splits, layout.extent, strict=True))
    untouched = all(split.parts == 1 and not split.picks for split in splits)
    if not (untouched and geometry.slide(seen, k, stride=left, dilation=e).out == extent):
        slid = Fragmented(slid, splits)
    return Part(slid, ActivationLayout(FIELD, after, (*after.local, out_channels), extent))


def window(layer: Any, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Apply a layer to all that is left of the window; it gives one value per window."""
    part = slid(layer, layout.grid.local, 1, 1, layout, options)
    return part._replace(layout=part.layout._replace(kind=POINT, shape=part.layout.shape[-1:]))


def whole(layer: Any, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A layer over the whole space: for a window of a field there may be an equivalent sliding layer."""
    stated = facts.locality(layer, layout.shape)
    if not isinstance(stated, facts.WholeSpace) or (layout.kind != FIELD and stated.window is not None):
        return other(layer, layout, options)
    if stated.window is None:
        return whole_space(stated.reason)(layer, layout, options)
    found = stated.window(layout.grid.local)
    if isinstance(found, str):
        refuse(layer, found, options)
    part = sliding(found, layout, options._replace(whole=False))
    if not stated.vector:
        return part
    return part._replace(layout=part.layout._replace(kind=POINT, shape=part.layout.shape[-1:]))


# Parts that see the whole window as a vector.


def flatten(layer: Flatten, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """The field is unchanged, but the next layer sees a whole window."""
    shape = layer.infer_shape(layout.shape)
    if layout.kind == FIELD and len(shape) == 1:
        return Part(None, layout._replace(kind=POINT if layout.grid.single else FLAT, shape=shape))
    if layout.kind == FLAT or len(layout.shape) == 1:
        return Part(None, layout)
    return other(layer, layout, options)


def dense(layer: Dense, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """After a flattened field it becomes a convolution whose kernel is the remaining window."""
    if layout.kind != FLAT:
        return part_wise(layer, layout, options)
    local = layout.grid.local
    channels = layout.shape[-1] // prod(local)
    fields = {name: getattr(layer, name) for name in ("bias", "kernel_init", "bias_init")}
    conv = Conv(layer.features, plain_sizes(local), **fields)
    field = layout._replace(kind=FIELD, shape=(*local, channels))
    return window(conv, field, options)._replace(kernels=((("kernel",), (*local, channels, layer.features)),))


def settled(layout: ActivationLayout, options: RewriteOptions) -> Part:
    """If one value per window is left, drop the values that are not at scanned positions.

    While a window holds several values, values between the positions are needed. :meth:`SampleGrid.after` does the
    same where a part with a stride leaves one value.
    """
    grid = layout.grid
    axes = zip(grid.local, grid.stride, grid.pitch, strict=True)
    if all(n > 1 or not scan or scan == g for n, scan, g in axes):
        return Part(None, layout)
    return slid(MaxPool(1), 1, 1, 1, layout, options)
