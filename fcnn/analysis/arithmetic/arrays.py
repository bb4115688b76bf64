"""Operations that rearrange entries: reshaping, transposing, slicing, joining, padding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .rule import Maker, Rule


def _keeps_order(shape_of: Callable[[dict[str, Any], Any], Any]) -> Maker:
    def make(params: dict[str, Any], shape: Any) -> Rule:
        return (lambda x: np.reshape(x, shape_of(params, shape))), lambda g, y, x: (g.reshape(shape),)

    return make


def _reshape(params: dict[str, Any], shape: Any) -> Rule:
    order, sizes = params.get("dimensions"), params["new_sizes"]
    if order is None:
        return (lambda x: np.reshape(x, sizes)), lambda g, y, x: (g.reshape(shape),)
    moved = [shape[axis] for axis in order]

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        return (np.transpose(g.reshape(moved), np.argsort(order)),)

    return (lambda x: np.transpose(x, order).reshape(sizes)), back


def _squeezed(params: dict[str, Any], shape: Any) -> Any:
    return tuple(n for axis, n in enumerate(shape) if axis not in params["dimensions"])


def _expanded(params: dict[str, Any], shape: Any) -> Any:
    return np.expand_dims(np.empty(shape), params["dimensions"]).shape


def _transpose(params: dict[str, Any], shape: Any) -> Rule:
    order = params["permutation"]
    return (lambda x: np.transpose(x, order)), lambda g, y, x: (np.transpose(g, np.argsort(order)),)


def _rev(params: dict[str, Any], shape: Any) -> Rule:
    axes = tuple(params["dimensions"])
    return (lambda x: np.flip(x, axes)), lambda g, y, x: (np.flip(g, axes),)


def _broadcast(params: dict[str, Any], shape: Any) -> Rule:
    out, places = params["shape"], params["broadcast_dimensions"]
    aligned = [1] * len(out)
    for n, place in zip(shape, places, strict=True):
        aligned[place] = n
    summed = tuple(axis for axis, n in enumerate(aligned) if n != out[axis])

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        return (g.sum(summed, keepdims=True).reshape(shape),)

    return (lambda x: np.broadcast_to(np.reshape(x, aligned), out)), back


def _tile(params: dict[str, Any], shape: Any) -> Rule:
    reps = tuple(params["reps"])
    counted = [n for pair in zip(reps, shape, strict=True) for n in pair]

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        return (g.reshape(counted).sum(tuple(range(0, len(counted), 2))),)

    return (lambda x: np.tile(x, reps)), back


def _concatenate(params: dict[str, Any], *shapes: Any) -> Rule:
    axis = params["dimension"]
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    return (lambda *xs: np.concatenate(xs, axis)), lambda g, y, *xs: tuple(np.split(g, ends, axis))


def _split(params: dict[str, Any], shape: Any) -> Rule:
    axis, ends = params["axis"], np.cumsum(params["sizes"])[:-1]
    return (lambda x: np.split(x, ends, axis)), lambda gs, ys, x: (np.concatenate(gs, axis),)


def _stack(params: dict[str, Any], *shapes: Any) -> Rule:
    axis = params["axis"]
    return (lambda *xs: np.stack(xs, axis)), lambda g, y, *xs: tuple(np.moveaxis(g, axis, 0))


def _unstack(params: dict[str, Any], shape: Any) -> Rule:
    axis = params["axis"]
    return (lambda x: list(np.moveaxis(x, axis, 0))), lambda gs, ys, x: (np.stack(gs, axis),)


def _slice(params: dict[str, Any], shape: Any) -> Rule:
    steps = params["strides"] or (1,) * len(shape)
    seen = tuple(map(slice, params["start_indices"], params["limit_indices"], steps))

    def back(g: Any, y: Any, x: Any) -> tuple[Any]:
        gradient = np.zeros(shape, g.dtype)
        gradient[seen] = g
        return (gradient,)

    return (lambda x: x[seen]), back


def _window(starts: Any, sizes: Any, shape: Any) -> tuple[slice, ...]:
    """The slices of a window of given sizes; a window that would extend beyond the array is moved inside, as in XLA."""
    begins = [int(np.clip(start, 0, n - size)) for start, size, n in zip(starts, sizes, shape, strict=True)]
    return tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))


def _dynamic_slice(params: dict[str, Any], shape: Any, *scalars: Any) -> Rule:
    sizes = params["slice_sizes"]

    def back(g: Any, y: Any, x: Any, *starts: Any) -> tuple[Any, ...]:
        gradient = np.zeros(shape, g.dtype)
        gradient[_window(starts, sizes, shape)] = g
        return gradient, *(None for _ in starts)

    return (lambda x, *starts: x[_window(starts, sizes, shape)]), back


def _dynamic_update_slice(params: dict[str, Any], shape: Any, sizes: Any, *scalars: Any) -> Rule:
    def value(x: Any, new: Any, *starts: Any) -> Any:
        y = np.array(x)
        y[_window(starts, sizes, shape)] = new
        return y

    def back(g: Any, y: Any, x: Any, new: Any, *starts: Any) -> tuple[Any, ...]:
        seen = _window(starts, sizes, shape)
        kept = np.array(g)
        kept[seen] = 0
        return kept, g[seen], *(None for _ in starts)

    return value, back


def padded(x: Any, fill: Any, config: Any) -> tuple[Any, Callable[[Any], Any]]:
    """An array padded with (before, after, between) entries along every axis, and the function for its gradient.

    Negative padding before and after crops.
    """
    sizes, targets, sources = [], [], []
    for n, (before, after, between) in zip(np.shape(x), config, strict=True):
        size = max(before + after + n + max(n - 1, 0) * between, 0)
        places = before + np.arange(n) * (between + 1)
        inside = np.flatnonzero((places >= 0) & (places < size))
        sizes.append(size)
        targets.append(places[inside])
        sources.append(inside)
    target, source = np.ix_(*targets), np.ix_(*sources)
    y = np.full(sizes, fill, np.asarray(x).dtype)
    y[target] = np.asarray(x)[source]

    def back(g: Any) -> Any:
        gradient = np.zeros(np.shape(x), g.dtype)
        gradient[source] = g[target]
        return gradient

    return y, back


def _pad(params: dict[str, Any], shape: Any, scalar: Any) -> Rule:
    config = params["padding_config"]

    def back(g: Any, y: Any, x: Any, fill: Any) -> tuple[Any, Any]:
        gradient = padded(x, fill, config)[1](g)
        return gradient, g.sum() - gradient.sum()

    return (lambda x, fill: padded(x, fill, config)[0]), back


def sampled(sizes: Any, window: Any, strides: Any, dilation: Any) -> tuple[list[int], list[tuple[slice, ...]]]:
    """For windows that slide over an array: their number along each axis, and the slices seen by each window sample."""
    reach = [(n - 1) * d + 1 for n, d in zip(window, dilation, strict=True)]
    out = [max((n - r) // s + 1, 0) for n, r, s in zip(sizes, reach, strides, strict=True)]
    seen = [
        tuple(
            slice(i * d, i * d + (n - 1) * s + 1 if n else i * d, s)
            for i, d, n, s in zip(offset, dilation, out, strides, strict=True)
        )
        for offset in product(*map(range, window))
    ]
    return out, seen


def _iota(params: dict[str, Any], *sizes: Any) -> Rule:
    shape, axis = params["shape"], params["dimension"]
    along = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return (lambda: np.broadcast_to(along, shape).astype(params["dtype"])), lambda g, y: ()


MAKERS: dict[str, Maker] = {
    "reshape": _reshape,
    "squeeze": _keeps_order(_squeezed),
    "expand_dims": _keeps_order(_expanded),
    "transpose": _transpose,
    "rev": _rev,
    "broadcast_in_dim": _broadcast,
    "tile": _tile,
    "concatenate": _concatenate,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "pad": _pad,
    "iota": _iota,
}
