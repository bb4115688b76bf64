"""Parts that look at every position, or every number, by itself, and those that may only look at single windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..errors import format_shape
from ..geometry import Shape, is_shape
from ..layer import Layer
from ..layers import BatchNorm, Dropout, InstanceNorm, LayerNorm, StochasticDepth
from ..layers.function import Function
from ..layers.norm import BY_ALL
from ..tracing.positionwise import applied, of_numbers, why_not_positionwise
from .fields import AtPositions, OverlappingBatchNorm
from .lattice import Lattice
from .rules import least, refuse
from .value import FIELD, FLAT, POINT, Part, Value, Way


def as_it_is(layer: Layer, value: Value) -> Part:
    """A layer of a network that is not scanned, but written as convolutions: it stays."""
    shape = layer.infer_shape(value.shape)
    lattice = dataclasses.replace(value.lattice, local=shape[:-1])
    return Part(layer, Value(FIELD, lattice, shape, shape[:-1]))


def part_wise(layer: Layer, value: Value, way: Way) -> Part:
    """A layer that works along the channels, at every position by itself."""
    if value.kind == FLAT:
        refuse(
            layer,
            "follows Flatten and sees all values of a window at once",
            way,
            "put it before Flatten or after a Dense",
        )
    if value.kind == POINT and len(value.shape) != 1:
        return at_positions(layer, value, way)
    return Part(layer, value._replace(shape=layer.infer_shape(value.shape)))


def layer_norm(layer: LayerNorm, value: Value, way: Way) -> Part:
    """Over the channels it looks at every position by itself."""
    if value.kind == FLAT or layer.of_channels(value.shape):
        return part_wise(dataclasses.replace(layer, axes=-1) if value.kind != FLAT else layer, value, way)
    return whole_space(BY_ALL.reason)(layer, value, way)


def instance_norm(layer: InstanceNorm, value: Value, way: Way) -> Part:
    """By stored statistics it works along the channels."""
    if layer.running and not way.train:
        return part_wise(layer, value, way)
    return whole_space(BY_ALL.reason)(layer, value, way)


def dropout(layer: Dropout, value: Value, way: Way) -> Part:
    """Every value is drawn for by itself, whole channels for single windows."""
    if layer.whole_channels and value.kind == FLAT:
        return part_wise(layer, value, way)
    if value.lattice.single and layer.whole_channels:
        return at_positions(layer, value, way)
    return Part(layer, value)


def stochastic_depth(layer: StochasticDepth, value: Value, way: Way) -> Part:
    """What all windows share is dropped for all of them, what is of single windows for each by itself."""
    return at_positions(layer, value, way) if way.train and value.lattice.single else Part(layer, value)


def batch_norm(layer: BatchNorm, value: Value, way: Way) -> Part:
    """By stored statistics it works along the channels; in those of a batch values count once for every window."""
    vectors = len(value.shape) == (1 if value.kind == POINT else len(value.extent) + 1)
    if value.kind == FLAT or not (way.train or not layer.running) or not vectors:
        return part_wise(layer, value, way)
    fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(BatchNorm)}
    held = _held(layer, value.lattice) if isinstance(layer, OverlappingBatchNorm) else ()
    return Part(OverlappingBatchNorm(**fields, lattice=value.lattice, held=held), value)


def _held(layer: OverlappingBatchNorm, lattice: Lattice) -> tuple[Shape, ...]:
    """How often the values inside a window count for a norm in a scan of it: once for each of its own windows."""
    found = []
    for axis, n in enumerate(lattice.local):
        uses = layer.uses(axis).tolist()
        found.append((*uses, *(0,) * (n - len(uses))))
    return tuple(found)


def whole_space(reason: str) -> Callable[[Layer, Value, Way], Part]:
    """The rule for layers that need to see a whole window."""

    def rule(layer: Layer, value: Value, way: Way) -> Part:
        if value.kind == FIELD and way.whole:
            return as_it_is(layer, value)
        if value.lattice.single:
            return at_positions(layer, value, way)
        refuse(layer, reason, way)

    return rule


def other(layer: Layer, value: Value, way: Way) -> Part:
    """A function or a layer of somebody's own: as it stands if it looks at every position by itself."""
    field = (*value.extent, *value.shape[len(value.extent) :]) if value.kind == FIELD else None
    if is_shape(value.shape) and of_numbers(layer, value.shape, field):
        return Part(layer, value)
    if value.lattice.single:
        as_it_is = isinstance(layer, Function) and value.kind == POINT and _along_channels(layer, value, way)
        return Part(layer, value) if as_it_is else at_positions(layer, value, way)
    if layer.init_state(value.shape):
        refuse(layer, "keeps a state of its own, which cannot be seen to be the same at all positions", way)
    flat, rank = value.kind == FLAT, value.lattice.rank
    shape = layer.infer_shape(value.shape)
    if not flat and not (is_shape(shape) and len(shape) == rank + 1):
        axes = f"{rank} axis" if rank == 1 else f"{rank} axes"
        refuse(
            layer,
            f"makes {format_shape(shape)} of {format_shape(value.shape)}, which is not (*space, channels) of {axes}",
            way,
        )
    # the array that holds a flattened field has as many numbers as ever, so a function of numbers may see any of them
    larger = None if flat or way.whole else value.extent
    for train in (False, True) if way.train and not isinstance(layer, Function) else (False,):
        function = applied(layer, value.shape, train=train)
        reason = why_not_positionwise(function, value.shape, 2 if flat else rank + 1, larger)
        if reason is not None:
            reason = f"follows Flatten and {reason.replace('positions', 'values of a window')}" if flat else reason
            refuse(layer, f"{'in training ' * train}{reason}", way)
    return Part(layer, value._replace(shape=shape))


def _along_channels(layer: Layer, value: Value, way: Way) -> bool:
    """Whether a function of vectors does the same with a field of them, such as a softmax along the last axis."""
    if not is_shape(value.shape) or len(value.shape) != 1 or layer.infer_shape(value.shape) != value.shape:
        return False
    field = (2,) * value.lattice.rank + value.shape
    return why_not_positionwise(applied(layer, value.shape), field, None, least(value.lattice, way)) is None


def at_positions(layer: Layer, value: Value, way: Way) -> Part:
    """Use a layer on what single windows make, as if they were examples of a batch."""
    keep = least(value.lattice, way)
    out = layer.infer_shape(*layer.accept_shapes((value.shape,)))
    return Part(AtPositions(layer, keep, value.shape), Value(POINT, value.lattice, out, keep))
