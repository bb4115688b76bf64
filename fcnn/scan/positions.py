"""Rules for parts that treat each position, or each number, separately, and for those that need single windows."""

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
from .activation_layout import FIELD, FLAT, POINT, ActivationLayout, Part, RewriteOptions
from .fields import AtPositions, OverlappingBatchNorm
from .rules import least, refuse
from .sample_grid import SampleGrid


def as_it_is(layer: Layer, layout: ActivationLayout) -> Part:
    """Keep a layer unchanged, in a network that is not scanned but written as convolutions."""
    shape = layer.infer_shape(layout.shape)
    grid = dataclasses.replace(layout.grid, local=shape[:-1])
    return Part(layer, ActivationLayout(FIELD, grid, shape, shape[:-1]))


def part_wise(layer: Layer, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A layer that works along the channels, at each position separately."""
    if layout.kind == FLAT:
        refuse(
            layer,
            "follows Flatten and sees all values of a window at once",
            options,
            "put it before Flatten or after a Dense",
        )
    if layout.kind == POINT and len(layout.shape) != 1:
        return at_positions(layer, layout, options)
    return Part(layer, layout._replace(shape=layer.infer_shape(layout.shape)))


def layer_norm(layer: LayerNorm, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Over the channels it treats each position separately; otherwise it needs the whole window."""
    if layout.kind == FLAT or layer.of_channels(layout.shape):
        return part_wise(dataclasses.replace(layer, axes=-1) if layout.kind != FLAT else layer, layout, options)
    return whole_space(BY_ALL.reason)(layer, layout, options)


def instance_norm(layer: InstanceNorm, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """With stored statistics it works along the channels; otherwise it needs the whole window."""
    if layer.running and not options.train:
        return part_wise(layer, layout, options)
    return whole_space(BY_ALL.reason)(layer, layout, options)


def dropout(layer: Dropout, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Draws are per value; whole channels are dropped per window."""
    if layer.whole_channels and layout.kind == FLAT:
        return part_wise(layer, layout, options)
    if layout.grid.single and layer.whole_channels:
        return at_positions(layer, layout, options)
    return Part(layer, layout)


def stochastic_depth(layer: StochasticDepth, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Fields that windows share are dropped for all windows together, values of single windows separately."""
    return at_positions(layer, layout, options) if options.train and layout.grid.single else Part(layer, layout)


def batch_norm(layer: BatchNorm, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """With stored statistics it works along the channels; in batch statistics a value counts once per window."""
    vectors = len(layout.shape) == (1 if layout.kind == POINT else len(layout.extent) + 1)
    if layout.kind == FLAT or not (options.train or not layer.running) or not vectors:
        return part_wise(layer, layout, options)
    fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(BatchNorm)}
    held = _held(layer, layout.grid) if isinstance(layer, OverlappingBatchNorm) else ()
    return Part(OverlappingBatchNorm(**fields, grid=layout.grid, held=held), layout)


def _held(layer: OverlappingBatchNorm, grid: SampleGrid) -> tuple[Shape, ...]:
    """How often each value inside a window counts for a norm in an inner scan: once per inner window that holds it."""
    found = []
    for axis, n in enumerate(grid.local):
        uses = layer.uses(axis).tolist()
        found.append((*uses, *(0,) * (n - len(uses))))
    return tuple(found)


def whole_space(reason: str) -> Callable[[Layer, ActivationLayout, RewriteOptions], Part]:
    """The rule for layers that need a whole window."""

    def rule(layer: Layer, layout: ActivationLayout, options: RewriteOptions) -> Part:
        if layout.kind == FIELD and options.whole:
            return as_it_is(layer, layout)
        if layout.grid.single:
            return at_positions(layer, layout, options)
        refuse(layer, reason, options)

    return rule


def other(layer: Layer, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """A function or a user's layer: kept unchanged if it treats each position separately."""
    field = (*layout.extent, *layout.shape[len(layout.extent) :]) if layout.kind == FIELD else None
    if is_shape(layout.shape) and of_numbers(layer, layout.shape, field):
        return Part(layer, layout)
    if layout.grid.single:
        if not isinstance(layer, Function) or not _along_channels(layer, layout, options):
            return at_positions(layer, layout, options)
        return Part(layer, layout._replace(shape=layer.infer_shape(layout.shape)))
    if layer.init_state(layout.shape):
        refuse(layer, "has a state of its own, which cannot be proved to be the same at all positions", options)
    flat, rank = layout.kind == FLAT, layout.grid.rank
    shape = layer.infer_shape(layout.shape)
    if not flat and not (is_shape(shape) and len(shape) == rank + 1):
        axes = f"{rank} axis" if rank == 1 else f"{rank} axes"
        refuse(
            layer,
            f"makes {format_shape(shape)} of {format_shape(layout.shape)}, which is not (*space, channels) with {axes} "
            "of space",
            options,
        )
    # a flattened field is still stored as a field, so an elementwise function can be applied to it as it is
    larger = None if flat or options.whole else layout.extent
    for train in (False, True) if options.train and not isinstance(layer, Function) else (False,):
        function = applied(layer, layout.shape, train=train)
        reason = why_not_positionwise(function, layout.shape, 2 if flat else rank + 1, larger)
        if reason is not None:
            reason = f"follows Flatten and {reason.replace('positions', 'values of a window')}" if flat else reason
            refuse(layer, f"{'in training ' * train}{reason}", options)
    return Part(layer, layout._replace(shape=shape))


def _along_channels(layer: Function, layout: ActivationLayout, options: RewriteOptions) -> bool:
    """Whether a function of single windows works the same on a field of them, such as a softmax along the last axis."""
    shape, rank = layout.shape, layout.grid.rank
    if not is_shape(shape):
        return False
    out = layer.infer_shape(shape)
    if layout.kind == FIELD:
        larger = None if options.whole else layout.extent
        return is_shape(out) and len(out) == rank + 1 and _same_everywhere(layer, shape, shape, rank + 1, larger)
    field = (2,) * rank + shape
    return len(shape) == 1 and out == shape and _same_everywhere(layer, shape, field, None, least(layout.grid, options))


def _same_everywhere(layer: Function, own: Shape, field: Shape, lead: int | None, larger: Shape | None) -> bool:
    return why_not_positionwise(applied(layer, own), field, lead, larger) is None


def at_positions(layer: Layer, layout: ActivationLayout, options: RewriteOptions) -> Part:
    """Apply a layer to the values of single windows, as examples of a batch."""
    keep = least(layout.grid, options)
    out = layer.infer_shape(*layer.accept_shapes((layout.shape,)))
    return Part(AtPositions(layer, keep, layout.shape), ActivationLayout(POINT, layout.grid, out, keep))
