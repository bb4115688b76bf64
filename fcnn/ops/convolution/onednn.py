"""Convolution by oneDNN's direct algorithm, through the target that XLA:CPU registers for its own use.

oneDNN has forward convolutions alone in this form. The input gradient is one too, of the output gradient with the
flipped kernel; with a stride, one for each phase of the input, with the samples of the kernel that reach it, so that no
zeros are multiplied. The kernel gradient is a forward convolution with the roles exchanged: channels are examples, the
output gradient is the kernel, and examples are summed over.

Every output is a sum over the samples of its own window: the error is local and as small as that of a plain sum.
"""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...geometry import Shape, extent
from .conv_geometry import Geometry


def forward(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Cross-correlate x (batch, *space, channels) with kernel (*kernel, channels // groups, features), both float32."""
    if max(geometry.input_dilation) > 1:
        return _spread(x, kernel, geometry)
    x, pads = _cropped(x, geometry)
    shape = replace(geometry, pads=pads).result(x.shape[0], x.shape[1:-1], kernel.shape[:-2], kernel.shape[-1])
    if 0 in shape:
        return jnp.zeros(shape, x.dtype)
    call = jax.ffi.ffi_call(
        "__onednn$convolution",
        jax.ShapeDtypeStruct(shape, x.dtype),
        custom_call_api_version=2,
        legacy_backend_config=_settings(geometry, pads),
    )
    return call(x, kernel)


#: bytes of an output gradient from which on it is divided: it is the kernel of the call, and is to stay in the caches
_BLOCK, _LARGEST = 2**20, 2**23
#: the fewest examples of a block; they are summed over in registers
_FEWEST, _FEW = 4, 8
#: ... and the fewest channels, the examples of the call, for which it is worth dividing the space as well
_CHANNELS = 16


def kernel_gradient(x: Array, g: Array, geometry: Geometry, kernel: Shape) -> Array:
    """The gradient of a kernel of one group."""
    rank = geometry.rank
    if max(geometry.input_dilation) > 1:
        # the roles of x and the output gradient are exchanged, and the kernel is read from its end
        pads = tuple((span - 1 - lo, span - 1 - hi) for span, (lo, hi) in zip(kernel, geometry.pads, strict=True))
        ones = (1,) * rank
        turned = kernel_gradient(g, x, Geometry(geometry.input_dilation, pads, ones, 1, ones, ones), kernel)
        return jnp.flip(turned, tuple(range(rank))).swapaxes(-1, -2)
    # as many samples of x as the windows see, so that a part of the positions sees a part of them
    seen = [
        extent(n, s) - 1 + span
        for n, s, span in zip(g.shape[1:-1], geometry.stride, geometry.spans(kernel), strict=True)
    ]
    pads = [(lo, length - lo - n) for (lo, _), length, n in zip(geometry.pads, seen, x.shape[1:-1], strict=True)]
    whole = 4 * g.size
    batch, rows = g.shape[:2]
    images = batch
    if batch > _FEW and whole > _BLOCK:
        images = max(_FEWEST, batch * _BLOCK // whole)
    band = rows
    if whole * images // batch > _LARGEST and x.shape[-1] >= _CHANNELS:
        band = max(1, rows * _LARGEST * batch // (2 * whole * images))
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*pads[0], 0), *[(0, 0, 0)] * rank])
        pads[0] = (0, 0)
    ones = (1,) * rank
    swapped = Geometry(geometry.dilation, tuple(pads), geometry.stride, 1, ones, ones)

    def part(x: Array, g: Array) -> Array:
        by_channel = jnp.moveaxis(x, (0, rank + 1), (rank + 1, 0))  # (channels, *space, batch)
        windows = jnp.moveaxis(g, 0, rank)  # (*out, batch, features)
        return jnp.moveaxis(forward(by_channel, windows, swapped), 0, rank)

    def of_images(x: Array, g: Array) -> Array:
        if band == rows:
            return part(x, g)
        stride, span = geometry.stride[0], geometry.spans(kernel)[0]
        starts = range(0, rows, band)
        counts = [min(band, rows - start) for start in starts]
        return functools.reduce(
            jnp.add,
            [
                part(x[:, start * stride : (start + count - 1) * stride + span], g[:, start : start + count])
                for start, count in zip(starts, counts, strict=True)
            ],
        )

    if images == batch:
        return of_images(x, g)
    full = batch // images * images
    groups = [a[:full].reshape(-1, images, *a.shape[1:]) for a in (x, g)]
    total = lax.scan(
        lambda total, group: (total + of_images(*group), None),
        jnp.zeros((*kernel, x.shape[-1], g.shape[-1]), x.dtype),
        groups,
    )[0]
    return total if full == batch else total + of_images(x[full:], g[full:])


def refused(geometry: Geometry, operation: str) -> str | None:
    """What oneDNN does not compute, as far as the geometry tells; None if it can."""
    if max(geometry.input_dilation) > 1 and (max(geometry.stride) > 1 or max(geometry.dilation) > 1):
        return "onednn spreads samples only with stride 1 and dilation 1"
    if operation == "kernel" and geometry.groups > 1:
        return "onednn computes kernel gradients of one group"
    return None


def _cropped(x: Array, geometry: Geometry) -> tuple[Array, Any]:
    """X without the samples that negative padding takes away; a negative number would end the process."""
    if min(p for pair in geometry.pads for p in pair) >= 0:
        return x, geometry.pads
    cut = [slice(max(0, -lo), n - max(0, -hi)) for n, (lo, hi) in zip(x.shape[1:-1], geometry.pads, strict=True)]
    return x[(slice(None), *cut)], tuple((max(0, lo), max(0, hi)) for lo, hi in geometry.pads)


def _settings(geometry: Geometry, pads: Any) -> str:
    """XLA's OneDnnConvolutionConfig (xla/service/cpu/onednn_config.proto), as JSON."""
    rank = geometry.rank
    space = list(range(1, rank + 1))
    data = {"dims": rank + 2, "data": {"batch_dim": 0, "feature_dim": rank + 1, "spatial_dims": space}}
    axes = {"input_feature_dim": rank, "output_feature_dim": rank + 1, "spatial_dims": list(range(rank))}
    window = {
        "strides": list(geometry.stride),
        "pad_left": [lo for lo, _ in pads],
        "pad_right": [hi for _, hi in pads],
        "window_dilations": list(geometry.dilation),
    }
    config = {
        "dims": rank + 2,
        "input": data,
        "kernel": {"dims": rank + 2, "filter": axes},
        "output": data,
        "window": window,
        "feature_groups": geometry.groups,
    }
    return json.dumps({"outer_dimension_partitions": [], "onednn_conv_config": config})


def _spread(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """The convolution of x with zeros between its samples: one for each phase of the result, interleaved."""
    rank, sizes, space = geometry.rank, kernel.shape[:-2], x.shape[1:-1]
    out = geometry.out(space, sizes)
    rows = tuple(-(-n // u) for n, u in zip(out, geometry.input_dilation, strict=True))
    phases = [
        _phase(x, kernel, geometry, rows, place) for place in itertools.product(*map(range, geometry.input_dilation))
    ]
    y = jnp.stack(phases, rank + 1).reshape(x.shape[0], *rows, *geometry.input_dilation, kernel.shape[-1])
    order = [axis for a in range(rank) for axis in (1 + a, 1 + rank + a)]
    y = y.transpose(0, *order, 2 * rank + 1)
    y = y.reshape(x.shape[0], *(n * u for n, u in zip(rows, geometry.input_dilation, strict=True)), kernel.shape[-1])
    return y[(slice(None), *(slice(0, n) for n in out))]


def _phase(x: Array, kernel: Array, geometry: Geometry, rows: Shape, place: Shape) -> Array:
    """The outputs at ``place``, ``place`` + u, ... along every axis, which every u-th sample of the kernel reaches."""
    taken, pads = [], []
    axes = zip(place, geometry.input_dilation, geometry.pads, kernel.shape[:-2], x.shape[1:-1], rows, strict=True)
    for r, u, (lo, _), size, n, count in axes:
        first = (lo - r) % u
        taps = len(range(first, size, u))
        before = (lo - r - first) // u
        taken.append(slice(first, None, u))
        pads.append((before, count - 1 + taps - n - before))
        if not taps:
            return jnp.zeros((x.shape[0], *rows, kernel.shape[-1]), x.dtype)
    ones = (1,) * geometry.rank
    return forward(x, kernel[tuple(taken)], Geometry(ones, tuple(pads), ones, geometry.groups, ones, ones))
