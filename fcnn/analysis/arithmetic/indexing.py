"""Reading and writing at indices: gather and the variants of scatter."""

from __future__ import annotations

from typing import Any

import numpy as np

from .rule import Maker, Rule


def _places(shape: Any, indices: Any, sizes: Any, axes: Any, batching: Any, inner: Any, clip: bool) -> tuple[Any, Any]:
    """The position in the flattened operand of each entry that is read or written.

    Args:
        shape: shape of the operand.
        indices: (*batch, number of indexed axes).
        sizes: size of the window along every axis of the operand; 1 for axes that the window does not keep.
        axes: the operand axes that the indices refer to.
        batching: pairs of an operand axis and the matching axis of the indices.
        inner: the operand axes that the window keeps.
        clip: whether windows that extend beyond the operand are moved inside.

    Returns:
        The positions (*batch, *window), and whether each belongs to a window inside the operand.
    """
    batch = indices.shape[:-1]
    window = tuple(sizes[axis] for axis in inner)
    inside = np.ones(batch, bool)
    positions = []
    for axis, n in enumerate(shape):
        start = np.zeros(batch, np.int64)
        if axis in axes:
            start = indices[..., axes.index(axis)].astype(np.int64)
            last = n - sizes[axis]
            inside &= (start >= 0) & (start <= last)
            start = np.clip(start, 0, max(last, 0))
        for operand_axis, index_axis in batching:
            if axis == operand_axis:
                start = np.arange(n).reshape([-1 if i == index_axis else 1 for i in range(len(batch))])
        start = np.reshape(np.broadcast_to(start, batch), (*batch, *(1 for _ in window)))
        if axis in inner:
            along = inner.index(axis)
            start = start + np.arange(sizes[axis]).reshape([-1 if i == along else 1 for i in range(len(window))])
        positions.append(np.broadcast_to(start, (*batch, *window)))
    flat = np.zeros((*batch, *window), np.int64)
    for position, n in zip(positions, shape, strict=True):
        flat = flat * n + position
    valid = np.ones(batch, bool) if clip else inside
    return flat, np.broadcast_to(valid.reshape((*batch, *(1 for _ in window))), flat.shape)


def _clips(mode: Any) -> bool:
    return getattr(mode, "name", str(mode)) == "CLIP"


def _mixed(axes: Any, rank: int) -> list[int]:
    """The permutation of axes (*batch, *window) that puts the window's at the positions ``axes`` among ``rank``."""
    outer = iter(range(rank - len(axes)))
    inner = {axis: rank - len(axes) + i for i, axis in enumerate(axes)}
    return [inner[axis] if axis in inner else next(outer) for axis in range(rank)]


def _gather(params: dict[str, Any], shape: Any, index_shape: Any) -> Rule:
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    lost = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    batching = list(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    inner = [axis for axis in range(len(shape)) if axis not in lost]
    order = _mixed(tuple(map(int, numbers.offset_dims)), len(index_shape) - 1 + len(inner))

    def places(indices: Any) -> tuple[Any, Any]:
        found = _places(shape, indices, sizes, list(numbers.start_index_map), batching, inner, _clips(params["mode"]))
        return np.transpose(found[0], order), np.transpose(found[1], order)

    def fill(dtype: Any) -> Any:
        if params.get("fill_value") is not None:
            return params["fill_value"]
        if dtype.kind in "fc":
            return np.nan
        return True if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max

    def value(x: Any, indices: Any) -> Any:
        flat, valid = places(indices)
        found = np.ravel(x)[np.where(valid, flat, 0)] if np.size(x) else np.zeros(flat.shape, x.dtype)
        return found if valid.all() else np.where(valid, found, np.asarray(fill(x.dtype), x.dtype))

    def back(g: Any, y: Any, x: Any, indices: Any) -> tuple[Any, None]:
        flat, valid = places(indices)
        gradient = np.zeros(np.size(x), g.dtype)
        np.add.at(gradient, flat[valid], g[valid])
        return gradient.reshape(shape), None

    return value, back


def _scatter(kind: str) -> Maker:
    def make(params: dict[str, Any], shape: Any, index_shape: Any, update_shape: Any) -> Rule:
        if kind == "" and _computes(params.get("update_jaxpr")):
            raise NotImplementedError("a scatter that applies a function to what is there (.at[].apply)")
        return _written(params, shape, update_shape, *_WRITES[kind])

    return make


def _computes(update: Any) -> bool:
    return update is not None and bool(update.eqns)


def _written(params: dict[str, Any], shape: Any, update_shape: Any, write: Any, pull: Any) -> Rule:
    numbers = params["dimension_numbers"]
    lost = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    inner = [axis for axis in range(len(shape)) if axis not in lost]
    batching = list(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True))
    sizes = [1] * len(shape)
    for axis, along in zip(inner, numbers.update_window_dims, strict=True):
        sizes[axis] = update_shape[along]
    order = _mixed(tuple(map(int, numbers.update_window_dims)), len(update_shape))
    axes = list(numbers.scatter_dims_to_operand_dims)

    def places(indices: Any) -> tuple[Any, Any]:
        flat, valid = _places(shape, indices, sizes, axes, batching, inner, _clips(params["mode"]))
        flat, valid = np.transpose(flat, order), np.transpose(valid, order)
        return flat[valid], valid

    def value(x: Any, indices: Any, new: Any) -> Any:
        flat, valid = places(indices)
        y = np.array(x).reshape(-1)
        write(y, flat, new[valid])
        return y.reshape(shape)

    def back(g: Any, y: Any, x: Any, indices: Any, new: Any) -> tuple[Any, None, Any]:
        flat, valid = places(indices)
        kept, share = pull(g.reshape(-1), y.reshape(-1), x.reshape(-1), flat, new[valid])
        gradient = np.zeros(update_shape, g.dtype)
        gradient[valid] = share
        return kept.reshape(shape), None, gradient

    return value, back


def _put(y: Any, flat: Any, new: Any) -> None:
    y[flat] = new


def _put_back(g: Any, y: Any, x: Any, flat: Any, new: Any) -> tuple[Any, Any]:
    kept, order, last = g.copy(), np.arange(flat.size), np.full(g.size, -1)
    kept[flat] = 0
    last[flat] = order  # of several values written to one position, the last remains
    return kept, np.where(last[flat] == order, g[flat], 0)


def _multiply_back(g: Any, y: Any, x: Any, flat: Any, new: Any) -> tuple[Any, Any]:
    factors = np.ones(g.size, new.dtype)
    np.multiply.at(factors, flat, new)
    return g * factors, (g * x)[flat]  # JAX defines this derivative for distinct positions only


def _extreme_back(g: Any, y: Any, x: Any, flat: Any, new: Any) -> tuple[Any, Any]:
    """All values equal to the extreme at a position, written or already there, share its gradient equally."""
    won, stayed = new == y[flat], x == y
    winners = np.zeros(g.size)
    np.add.at(winners, flat, won * 1.0)
    share = g / np.maximum(winners + stayed, 1)
    return share * stayed, share[flat] * won


#: how values are written to positions of an operand, in place; and, from the gradient of the result, the gradients of
#: the operand and of the written values
_WRITES: dict[str, tuple[Any, Any]] = {
    "": (_put, _put_back),
    "-add": (np.add.at, lambda g, y, x, flat, new: (g, g[flat])),
    "-sub": (np.subtract.at, lambda g, y, x, flat, new: (g, -g[flat])),
    "-mul": (np.multiply.at, _multiply_back),
    "-min": (np.minimum.at, _extreme_back),
    "-max": (np.maximum.at, _extreme_back),
}

MAKERS: dict[str, Maker] = {
    "gather": _gather,
    **{f"scatter{kind}": _scatter(kind) for kind in _WRITES},
    **{f"scatter{kind}".replace("-", "_"): _scatter(kind) for kind in _WRITES},
}
