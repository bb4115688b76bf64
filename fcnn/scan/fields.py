"""Layers that replace the parts of a scanned network: they run on the whole image, or on fragments of it.

Between the parts of a scanned network there is one array for all windows, the field: (batch, *field, channels), or
as fragments (batch * fragments, *field, channels). The samples of a fragment are as far apart as the values inside a
window, so the parts run on it unchanged. Fragments are stacked along the batch, the first axis of the space slowest.
If their lengths differ by one, the shorter ones are padded with a copy of their last value, which is never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..geometry import Shape, is_shape
from ..layer import Context, Layer
from ..layers import BatchNorm
from ..ops.dtypes import wide
from ..symbolic_sizes import symbolic
from ..types import Params, State
from .sample_grid import SampleGrid


@dataclass(frozen=True, repr=False)
class Wrapped(Layer):
    """A layer that shares its params, state, random numbers and label with the layer inside."""

    layer: Layer

    @property
    def inputs(self) -> int | None:  # type: ignore[override]
        return self.layer.inputs

    @property
    def floating(self) -> bool:  # type: ignore[override]
        return self.layer.floating

    @property
    def label(self) -> str:
        return self.layer.label

    def inside(self, shape: Shape) -> Shape:
        """The shape that the layer inside sees."""
        return shape

    def infer_shape(self, *shapes: Shape) -> Any:
        return self.layer.infer_shape(*(self.inside(shape) for shape in shapes))

    def init_part(self, key: jax.Array, shapes: tuple[Shape, ...]) -> Params:
        return self.layer.init_part(key, tuple(map(self.inside, shapes)))

    def state_part(self, shapes: tuple[Shape, ...]) -> State:
        return self.layer.state_part(tuple(map(self.inside, shapes)))


@dataclass(frozen=True, repr=False)
class Cropped(Wrapped):
    """A layer whose output is cropped to the first values along every axis.

    Args:
        layer: the layer.
        keep: values to keep along each axis of the space.
    """

    keep: Shape

    def infer_shape(self, *shapes: Shape) -> Shape:
        return (*self.keep, self.layer.infer_shape(*shapes)[-1])

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        y, state = self.layer.run(context, params, state, inputs)
        return cropped(y, self.keep), state


@dataclass(frozen=True, repr=False)
class Between(Wrapped):
    """A layer between others that have no parameters, such as pooling with window 1 that subsamples.

    Args:
        layer: the layer.
        before: the layer before it, or None.
        after: the layer after it, or None.
    """

    before: Layer | None
    after: Layer | None

    def inside(self, shape: Shape) -> Shape:
        return shape if self.before is None else self.before.infer_shape(shape)

    def infer_shape(self, *shapes: Shape) -> Any:
        out = super().infer_shape(*shapes)
        return out if self.after is None else self.after.infer_shape(out)

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        if self.before is not None:
            inputs = (self.before.run(context, {}, {}, inputs)[0],)
        y, state = self.layer.run(context, params, state, inputs)
        return y if self.after is None else self.after.run(context, {}, {}, (y,))[0], state


@dataclass(frozen=True, repr=False)
class AtPositions(Wrapped):
    """A layer applied to the values of single windows: all positions are examples of one batch.

    Args:
        layer: the layer.
        keep: positions along each axis.
        local: shape of the values of one window.
    """

    keep: Shape
    local: Shape

    def inside(self, shape: Shape) -> Shape:
        return self.local

    def infer_shape(self, *shapes: Shape) -> Any:
        out = self.layer.infer_shape(self.local)
        return jax.tree.map(lambda shape: (*self.keep, *shape), out, is_leaf=is_shape)

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        x = cropped(inputs[0], self.keep)
        lead = x.shape[: 1 + len(self.keep)]
        y, state = self.layer.run(context, params, state, (x.reshape(-1, *self.local),))
        return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), y), state


@dataclass(frozen=True, repr=False)
class OverlappingBatchNorm(BatchNorm):
    """Batch normalisation of a field: the batch is all windows, so a value counts once for every window that holds it.

    Args:
        grid: where the values lie.
        held: for each axis, how often each value inside one window counts, if windows of an inner scan share it;
            (): once.
    """

    grid: SampleGrid | None = None
    held: tuple[Shape, ...] = ()

    def uses(self, axis: int) -> np.ndarray:
        """The number of windows that hold each value along an axis."""
        return self.grid.uses(axis, self.held[axis] if self.held else None) if self.grid else np.ones(1, int)

    def of_batch(self, params: Params, state: State, x: jax.Array) -> tuple[jax.Array, State]:
        grid = self.grid
        if grid is None:
            return super().of_batch(params, state, x)
        weight = np.ones((1,) * grid.rank)
        for axis in range(grid.rank):
            uses = np.zeros(x.shape[1 + axis])
            uses[: grid.count[axis]] = self.uses(axis)
            weight = weight * uses.reshape([-1 if other == axis else 1 for other in range(grid.rank)])
        count = float(weight.sum()) * x.shape[0]
        if symbolic(x.shape[0]):
            count = jnp.asarray(x.shape[0]).astype(wide(x.dtype)) * float(weight.sum())
        elif count < 2:  # the same error message as without overlap
            return super().of_batch(params, state, x)
        share = jnp.asarray(weight / count, wide(x.dtype))[None, ..., None]
        return self.by_batch(params, state, x, count, share)


class Split(NamedTuple):
    """How a layer changes the fragments along one axis.

    Attributes:
        before: number of input fragments.
        picks: for every output fragment, the index of its input fragment and the start within it; () if the layer runs
            on the input fragments as they are.
        need: length of a picked fragment.
        parts: number of output fragments per fragment that the layer runs on.
        length: length of an output fragment.
    """

    before: int
    picks: tuple[tuple[int, int], ...]
    need: int
    parts: int
    length: int


@dataclass(frozen=True, repr=False)
class Fragmented(Wrapped):
    """A layer with a stride inside the window: it increases the number of fragments.

    Args:
        layer: the layer, with the remaining stride.
        splits: for each axis, how the fragments change.
    """

    splits: tuple[Split, ...]

    def inside(self, shape: Shape) -> Shape:
        space = zip(shape[:-1], self.splits, strict=True)
        return (*(split.need if split.picks else n for n, split in space), shape[-1])

    def infer_shape(self, *shapes: Shape) -> Shape:
        out = self.layer.infer_shape(self.inside(shapes[0]))
        return (*(split.length for split in self.splits), out[-1])

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        x = self.picked(inputs[0])
        y, state = self.layer.run(context, params, state, (x,))
        return self.parted(y), state

    def picked(self, x: jax.Array) -> jax.Array:
        """The fragments that the layer runs on."""
        if not any(split.picks for split in self.splits):
            return x
        rank = len(self.splits)
        x = x.reshape(-1, *(split.before for split in self.splits), *x.shape[1:])
        for axis, split in enumerate(self.splits):
            if split.picks:
                last = x.shape[1 + rank + axis] - 1
                pieces = []
                for fragment, start in split.picks:
                    row = x[_along(1 + axis, fragment)]
                    # beyond the end are values that no window holds
                    row = row[_along(rank + axis, slice(min(start, last), None))]
                    pieces.append(fitted(row, rank + axis, split.need))
                x = jnp.stack(pieces, 1 + axis)
        return x.reshape(-1, *x.shape[1 + rank :])

    def parted(self, y: jax.Array) -> jax.Array:
        """The layer's output, split into the fragments that its stride produces."""
        rank = len(self.splits)
        for axis, split in enumerate(self.splits):
            y = fitted(y, 1 + axis, split.length * split.parts)
        if all(split.parts == 1 for split in self.splits):
            return y
        found = [len(split.picks) or split.before for split in self.splits]
        inner = [n for split in self.splits for n in (split.length, split.parts)]
        y = y.reshape(-1, *found, *inner, y.shape[-1])
        # each part starts one stride later along its axis, so the part index varies slower than the old fragment index
        fragments = [place for axis in range(rank) for place in (1 + rank + 2 * axis + 1, 1 + axis)]
        y = y.transpose(0, *fragments, *(1 + rank + 2 * axis for axis in range(rank)), y.ndim - 1)
        return y.reshape(-1, *(split.length for split in self.splits), y.shape[-1])


def split_axis(
    before: SampleGrid, after: SampleGrid, axis: int, kernel: int, stride: int, dilation: int
) -> tuple[Split, int]:
    """How a layer changes the fragments along one axis, and the stride that remains for the layer."""
    found, left = before.fragments[axis], after.fragments[axis]
    count = -(-after.count[axis] // left)
    ratio = after.pitch[axis] // before.pitch[axis]
    if ratio == 1 or found == 1:
        return Split(found, (), 0, stride // ratio, count), ratio
    picks = tuple(((o * ratio) % found, (o * ratio) // found) for o in range(left))
    return Split(found, picks, (count - 1) * stride + dilation * (kernel - 1) + 1, 1, count), stride


def whole_field(y: jax.Array, fragments: Shape) -> jax.Array:
    """Interleave fragments (batch * fragments, *field, ...) into one field (batch, *field, ...)."""
    if prod(fragments) == 1:
        return y
    rank = len(fragments)
    space, rest = y.shape[1 : 1 + rank], y.shape[1 + rank :]
    y = y.reshape(-1, *fragments, *space, *rest)
    order = [place for axis in range(rank) for place in (1 + rank + axis, 1 + axis)]
    y = y.transpose(0, *order, *range(1 + 2 * rank, y.ndim))
    return y.reshape(-1, *(n * f for n, f in zip(space, fragments, strict=True)), *rest)


def gathered(field: jax.Array, grid: SampleGrid) -> jax.Array:
    """The values of every window of a field: (batch, *positions, *local, channels)."""
    for axis in range(grid.rank):
        g, scan, d = grid.pitch[axis], grid.stride[axis], grid.step[axis]
        where = np.arange(grid.positions[axis])[:, None] * (scan // g) + np.arange(grid.local[axis]) * (d // g)
        field = field[_along(1 + 2 * axis, where)]
    rank = grid.rank
    positions, local = range(1, 1 + 2 * rank, 2), range(2, 2 + 2 * rank, 2)
    return field.transpose(0, *positions, *local, *range(1 + 2 * rank, field.ndim))


def cropped(y: jax.Array, keep: Shape) -> jax.Array:
    """The first values along every axis of the space."""
    return y if y.shape[1 : 1 + len(keep)] == keep else y[(slice(None), *(slice(0, n) for n in keep))]


def fitted(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Crop an axis to a size, or extend it by repeating its last value."""
    if x.shape[axis] >= size:
        return x if x.shape[axis] == size else x[_along(axis, slice(0, size))]
    widths = [(0, size - n if place == axis else 0) for place, n in enumerate(x.shape)]
    return jnp.pad(x, widths, mode="edge")


def _along(axis: int, index: Any) -> tuple[Any, ...]:
    """An index into one axis."""
    return (*(slice(None),) * axis, index)
