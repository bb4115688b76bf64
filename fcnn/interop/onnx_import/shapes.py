"""Operations that move numbers: reshape, transpose, join, split, slice, pad."""

from __future__ import annotations

import functools
from dataclasses import replace
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from ... import layers
from ...geometry import Shape
from . import movements
from .builder import Builder
from .learned import Combine, beside
from .node import Made, Node, Operand, array_of, constant_of, integers_of, nested, operand, value_of
from .reductions import without
from .values import Constant, Merged, Unreadable, Value, channels_last


def reshape(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Reshape to a constant shape that keeps the examples apart."""
    before = operands[0]
    x = before.value if isinstance(before, Merged) else value_of(before)
    shape = before.shape if isinstance(before, Merged) else x.shape
    given = operand(operands, 1)
    wanted = node.get("shape") if given is None else integers_of(given, "shape")
    if not node.get("allowzero", 0):
        wanted = [shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if -1 in wanted:
        rest = prod(n for n in wanted if n != -1)
        wanted = [prod(x.shape) // rest if n == -1 else n for n in wanted]
    return reshaped(b, x, tuple(wanted))


def flatten(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Flatten."""
    x = value_of(operands[0])
    axis = node.get("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return reshaped(b, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def reshaped(b: Builder, x: Value, wanted: Shape) -> Value | Merged:
    """A value in another shape; where the order of axes allows, no number moves."""
    if wanted == x.shape:
        return x
    if prod(wanted) != prod(x.shape):
        raise Unreadable(f"reshapes {x.shape} to {wanted}, which has another number of entries")
    if not wanted or wanted[0] != x.shape[0] or x.order[0] != 0:
        return Merged(x, wanted)
    x = b.in_order(x)
    if len(wanted) == 2 and x.rank > 2:
        order = channels_last(x.rank)
        if x.order == order or _moved(x, order) == _moved(x, x.order):
            image = b.image(x)
            return b.layer(layers.Flatten(), image, order=(0, 1), flat=image.example)
        return b.layer(layers.Flatten(), b.plain(x), order=(0, 1))
    groups = _groups(x.shape, wanted)
    if not all(_adjacent(x, olds) for olds, _ in groups):
        x = b.plain(x)
    order = [0]
    news = {old: group for olds, group in groups for old in olds[:1]}
    for axis in x.order[1:]:
        order += news.get(axis, [])
    order = _with_units(order, wanted)
    stored = tuple(wanted[axis] for axis in order[1:])
    if stored == x.example:
        return replace(x, shape=wanted, order=tuple(order))
    return b.call(functools.partial(movements.reshape, shape=stored), [x], order=tuple(order))


def _moved(x: Value, order: Shape) -> list[int]:
    """The axes of more than one sample, in an order."""
    return [axis for axis in order[1:] if x.shape[axis] != 1]


def _groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Which axes become which, without the batch and axes of one sample."""
    groups = []
    olds, news = ([i for i, n in enumerate(shape) if i and n != 1] for shape in (before, after))
    while olds or news:
        old, new = [olds.pop(0)], [news.pop(0)]
        while (a := prod(before[i] for i in old)) != (c := prod(after[i] for i in new)):
            if a < c:
                old.append(olds.pop(0))
            else:
                new.append(news.pop(0))
        groups.append((old, new))
    return groups


def _adjacent(x: Value, axes: list[int]) -> bool:
    stored = _moved(x, x.order)
    first = stored.index(axes[0])
    return stored[first : first + len(axes)] == axes


def _with_units(order: list[int], shape: Shape) -> list[int]:
    """An order of axes with those of one sample: where an image has them, else behind the axis before them."""
    units = [axis for axis in range(1, len(shape)) if shape[axis] == 1]
    image = list(channels_last(len(shape)))
    if [axis for axis in image if axis not in units] == order:
        return image
    for axis in units:
        order.insert(order.index(axis - 1) + 1, axis)
    return order


def transpose(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Transpose: the axes get other names, and nothing is moved."""
    x = b.in_order(value_of(operands[0]))
    perm = [axis % x.rank for axis in node.get("perm") or range(x.rank)[::-1]]
    return replace(x, shape=tuple(x.shape[axis] for axis in perm), order=tuple(perm.index(axis) for axis in x.order))


def squeeze(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Squeeze."""
    x, given = b.in_order(value_of(operands[0])), operand(operands, 1)
    axes = node.get("axes") if given is None else integers_of(given, "axes")
    if axes is None:
        if x.shape[x.order[0]] == 1:
            raise Unreadable("drops all axes of size 1, and with them that of the one example; give it axes")
        axes = [i for i, n in enumerate(x.shape) if n == 1 and i != x.order[0]]
    axes = sorted(axis % x.rank for axis in axes)
    b.own_axes(x, axes)
    stored = tuple(x.shape[axis] for axis in x.order[1:] if axis not in axes)
    order = without(x.order, axes)
    return b.call(functools.partial(movements.reshape, shape=stored), [x], order=order)


def unsqueeze(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Unsqueeze."""
    x, given = b.in_order(value_of(operands[0])), operand(operands, 1)
    axes = node.get("axes") if given is None else integers_of(given, "axes")
    rank = x.rank + len(axes)
    new = sorted(axis % rank for axis in axes)
    kept = [axis for axis in range(rank) if axis not in new]
    order = [kept[axis] for axis in x.order]
    shape = tuple(1 if axis in new else x.shape[kept.index(axis)] for axis in range(rank))
    image = list(channels_last(rank))
    if order[0] == 0 and [axis for axis in image if axis not in new] == order:
        order = image
    else:
        for axis in new:
            order.insert(order.index(axis - 1) + 1 if axis else 1, axis)
    stored = tuple(shape[axis] for axis in order[1:])
    return b.call(functools.partial(movements.reshape, shape=stored), [x], order=tuple(order))


def concat(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Concat of values; constants, the same for every example, are weights."""
    number = next(i for i, x in enumerate(operands) if not isinstance(x, Constant))
    x = b.in_order(value_of(operands[number]))
    order, (place,) = x.order, b.own_axes(x, [node.get("axis", 1)])
    last = place == len(order) - 1
    join = functools.partial(movements.concatenate, axis=-1 if last else place)
    for given in operands[:number][::-1]:
        x = _with_weight(b, x, constant_of(given, "piece"), place, first=True)
    together = [x]
    for given in operands[number + 1 :]:
        if not isinstance(given, Constant):
            together.append(b.ordered(value_of(given), order))
            continue
        x = b.call(join, together) if len(together) > 1 else together[0]
        together = [_with_weight(b, x, given, place, first=False)]
    return b.call(join, together, join="concat" if last else "") if len(together) > 1 else together[0]


def _with_weight(b: Builder, x: Value, constant: Constant, place: int, *, first: bool) -> Value:
    """A value and a weight beside it."""
    array = _one_example(array_of(constant, "piece"), x)
    layer = Combine(functools.partial(beside, axis=place, first=first), array.shape)
    return b.layer(layer, x, params={"weight": array}, weights=[constant])


def _one_example(array: np.ndarray, x: Value) -> np.ndarray:
    """A constant without its batch, which must repeat one example, in the order of a value's axes."""
    if array.ndim != x.rank:
        raise Unreadable("joins values of different numbers of axes")
    array = np.transpose(array, x.order)
    if not np.array_equal(array, np.broadcast_to(array[:1], array.shape), equal_nan=True):
        raise Unreadable("uses numbers that differ from example to example")
    return np.ascontiguousarray(array[0])


def split(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Split."""
    x, given = b.in_order(value_of(operands[0])), operand(operands, 1)
    axis = node.get("axis", 0) % x.rank
    size, count = x.shape[axis], len(node.outputs)
    sizes = node.get("split") if given is None else integers_of(given, "sizes")
    if sizes is None:
        part = -(-size // count)
        sizes = [min(part, size - i * part) for i in range(count)]
    (place,) = b.own_axes(x, [axis])
    made: list[Any] = []
    start = 0
    for output, length in zip(node.outputs, sizes, strict=True):
        bounds: list[tuple[int, int | None, int]] = [(0, None, 1)] * (x.rank - 1)
        bounds[place - 1] = (start, start + length, 1)
        start += length
        function = functools.partial(movements.take_slice, bounds=tuple(bounds))
        made.append(b.call(function, [x]) if output in node.used else None)
    return made


def slicing(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Slice with constant bounds; of the space alone, a crop."""
    x = b.in_order(value_of(operands[0]))
    if node.version < 10:
        starts, ends = node.get("starts"), node.get("ends")
        axes, steps = node.get("axes") or list(range(len(starts))), [1] * len(starts)
    else:
        starts, ends = (integers_of(operands[i], "bounds") for i in (1, 2))
        axes, steps = (
            list(default) if operand(operands, i) is None else integers_of(operands[i], "bounds")
            for i, default in ((3, range(len(starts))), (4, [1] * len(starts)))
        )
    bounds: list[tuple[int, int | None, int]] = [(0, None, 1)] * (x.rank - 1)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size, place = x.shape[axis % x.rank], x.place(axis)
        first, last, by = slice(start, end, step).indices(size)
        if start < -size and step < 0:  # Python takes nothing, ONNX begins at the first entry
            first = 0
        if (first, by) == (0, 1) and last == size:
            continue
        b.own_axes(x, [axis])
        bounds[place - 1] = (first, last if last >= 0 else None, by)
    if all(bound == (0, None, 1) for bound in bounds):
        return x
    space = x.rank > 2 and x.order == channels_last(x.rank) and bounds[-1] == (0, None, 1)
    ends_here = [x.example[i] if last is None else last for i, (_, last, _) in enumerate(bounds)]
    if space and all(by == 1 and first < last for (first, _, by), last in zip(bounds, ends_here, strict=True)):
        amount = tuple(
            (first, size - last) for (first, _, _), last, size in zip(bounds, ends_here, x.example[:-1], strict=False)
        )
        return b.layer(layers.Crop(amount), x)
    return b.call(functools.partial(movements.take_slice, bounds=tuple(bounds)), [x])


def gather(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Gather with constant indices."""
    if isinstance(operands[0], Constant):
        raise Unreadable("looks rows up in a table by the input (an embedding), which no layer here does")
    indices = constant_of(operands[1], "indices").array
    whole = operands[0]
    if isinstance(whole, Merged) and len(whole.shape) == 1 and np.array_equal(indices.ravel(), np.arange(*whole.shape)):
        return reshaped(b, whole.value, indices.shape)
    x = b.in_order(value_of(operands[0]))
    axis = node.get("axis", 0) % x.rank
    (place,) = b.own_axes(x, [axis])
    if indices.size > 65536:
        raise Unreadable(f"takes {indices.size} entries, more than a function holds")
    indices = np.where(indices < 0, indices + x.shape[axis], indices)
    function = functools.partial(movements.take_indices, indices=nested(indices.tolist()), axis=place)
    if indices.ndim == 0:
        return b.call(function, [x], order=without(x.order, [axis]))
    if indices.ndim == 1:
        return b.call(function, [x])
    x = b.plain(x)
    function = functools.partial(function, axis=axis)
    return b.call(function, [x], order=tuple(range(x.rank + indices.ndim - 1)))


def gather_nd(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """GatherND along the first axis, as PyTorch's exporter writes an index after a transposition."""
    indices = constant_of(operands[1], "indices").array
    if indices.shape[-1] != 1 or indices.ndim != 2 or node.get("batch_dims", 0):
        raise Unreadable(f"takes entries along {indices.shape[-1]} axes, with indices of shape {indices.shape}")
    return gather(b, replace(node, attributes={"axis": 0}), [operands[0], Constant(indices[:, 0])])


def pad(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Pad; of the space alone, a layer."""
    x = b.in_order(value_of(operands[0]))
    given, fill, named = (operand(operands, i) for i in (1, 2, 3))
    pads = (node.get("pads") or node.get("paddings")) if given is None else integers_of(given, "amounts")
    value = node.get("value", 0.0) if fill is None else float(array_of(fill, "value").reshape(()))
    axes = list(range(x.rank)) if named is None else [a % x.rank for a in integers_of(named, "axes")]
    mode, own = node.get("mode", "constant"), [(0, 0)] * (x.rank - 1)
    for axis, lo, hi in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if (lo, hi) != (0, 0):
            (place,) = b.own_axes(x, [axis])
            own[place - 1] = (lo, hi)
    if not any(map(any, own)):
        return x
    names = {"constant": None, "reflect": "REFLECT", "edge": "EDGE", "wrap": "CIRCULAR"}
    space = x.rank > 2 and x.order == channels_last(x.rank) and own[-1] == (0, 0) and x.dtype.kind == "f"
    if space and mode in names and min(map(min, own)) >= 0:
        amount: Any = tuple(own[:-1])
        amount = amount[0][0] if len({n for pair in amount for n in pair}) == 1 else amount
        if mode == "constant":
            return b.layer(layers.Pad(amount, value=value), x)
        return b.layer(layers.Pad((names[mode], amount)), x)
    options = {"value": value} if value else {}
    function = functools.partial(movements.negative_pad, pads=tuple(own), mode=mode, **options)
    return b.call(function, [x])


def expand(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Expand to a constant shape."""
    x = b.in_order(value_of(operands[0]))
    wanted = tuple(integers_of(operands[1], "shape"))
    shape = np.broadcast_shapes(x.shape, wanted)
    if len(shape) != x.rank or shape[x.order[0]] != b.batch:
        raise Unreadable(f"expands {x.shape} to {shape}, which changes the number of examples")
    if shape == x.shape:
        return x
    return b.call(functools.partial(movements.expand, shape=tuple(shape[axis] for axis in x.order[1:])), [x])


def tile(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Tile."""
    x, repeats = b.in_order(value_of(operands[0])), integers_of(operands[1], "repeats")
    if repeats[x.order[0]] != 1:
        raise Unreadable("repeats the examples")
    return b.call(functools.partial(movements.tile, repeats=tuple(repeats[axis] for axis in x.order[1:])), [x])


def depth_to_space(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """DepthToSpace."""
    layer = layers.PixelShuffle(node.get("blocksize"), order=node.get("mode", "DCR"))
    return b.layer(layer, b.image(value_of(operands[0])))


def space_to_depth(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """SpaceToDepth."""
    return b.layer(
        layers.PixelUnshuffle(node.get("blocksize"), order=node.get("mode", "DCR")), b.image(value_of(operands[0]))
    )


def shape_of(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Shape: known before anything is computed."""
    shape = value_of(operands[0]).shape
    return Constant(np.array(shape[node.get("start", 0) : node.get("end")], np.int64))


def size_of(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Size."""
    return Constant(np.asarray(prod(value_of(operands[0]).shape), np.int64))


def identity(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Identity."""
    return value_of(operands[0])


def trilu(b: Builder, node: Node, operands: list[Operand]) -> Made:
    """Trilu: the upper or lower triangle."""
    x, given = b.plain(value_of(operands[0])), operand(operands, 1)
    if x.rank < 3:
        raise Unreadable("takes a triangle of all examples together")
    shift = 0 if given is None else int(constant_of(given, "diagonal").array.reshape(()))
    function = jnp.triu if node.get("upper", 1) else jnp.tril
    return b.call(functools.partial(function, k=shift), [x])


RULES = {
    "Reshape": reshape, "Flatten": flatten, "Transpose": transpose, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
    "Concat": concat, "Split": split, "Slice": slicing, "Gather": gather, "GatherND": gather_nd, "Pad": pad,
    "Expand": expand, "Tile": tile, "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth,
    "Shape": shape_of, "Size": size_of, "Identity": identity, "Trilu": trilu,
}  # fmt: skip
