r"""Which samples of the input each output of a network sees, in integers and fractions, without arrays.

A network that does the same at every position sees, from its output i along an axis, the samples

.. math:: u_i = u_0 + D i \quad\text{to}\quad v_i = v_0 + D i

D is its step, and the receptive field has :math:`R = v_0 - u_0 + 1` samples. Through layers l = 1, ..., L with kernel
k, stride s, dilation d and padding p before,

.. math:: D = \prod_l s_l, \qquad u_0 = -\sum_l p_l D_{l-1}, \qquad
    v_0 = \sum_l \bigl( d_l (k_l - 1) - p_l \bigr) D_{l-1}, \qquad D_l = \prod_{m \le l} s_m

Parallel paths must have the same step; the field of their sum or concatenation is the union of their fields. A
transposed convolution has the step 1 / s, and the fields of its outputs differ. A shift of the input by the network's
period shifts all activations by whole samples.

Source:
    Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019: "Single-path
    networks" and "Arbitrary computation graphs".
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax

from .. import facts, geometry, names
from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.parts import lift
from ..errors import format_shape, layer_path, outermost_path
from ..geometry import Shape
from ..layer import Context, Layer
from ..layers import Function
from ..tracing.positionwise import Mixes, applied, why_not_positionwise
from ..tracing.record import Use, record
from .axis import Axes, Axis
from .dataflow import Reader, canonical, fields, followed_alike
from .placed import TooSmall, entrance, unknown


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a network along every axis of the space, in samples of the input.

    Output i sees nothing outside ``first + step * i`` to ``first + step * i + size - 1``. Positions outside the input
    are padding. The samples that "REFLECT" and "EDGE" copy there lie within the same field or one sample beside it.

    Attributes:
        step: samples between the fields of neighbouring outputs; a fraction if the output is finer than the input.
        size: samples of one field. With a transposed convolution, the most that any output sees, or one more.
        first: where the field of output 0 begins; negative with padding before.
        period: the shortest shift of the input that moves the output, and all activations, by whole samples. Without
            transposed convolutions it is the step.
    """

    step: tuple[int | Fraction, ...]
    size: Shape
    first: Shape
    period: Shape


def receptive_field(net: Any, shape: Shape) -> ReceptiveField:
    """Find the receptive field of a network that does the same at every position.

    Args:
        net: convolutions, pooling over windows, pointwise layers, functions that resample the space (resizing by a
            factor, cropping, padding, pixel shuffling), and compositions and graphs of these. Functions, wirings and
            your own layers are analysed operation by operation.
        shape: shape of one example, (*space, channels); with "SAME" the padding, and so ``first``, depends on it.

    Returns:
        Steps, sizes and offsets along every axis.

    Raises:
        ValueError: if a layer mixes positions or treats them differently, the steps of parallel paths differ, or the
            shape does not fit the network; the message names the layer.
        TypeError: if ``net`` is not a network, or has several outputs.

    Source:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019.

    Example:
        >>> net = fcnn.serial(fcnn.Conv(6, 5, padding="SAME"), fcnn.MaxPool(2), fcnn.Conv(16, 5), fcnn.MaxPool(2))
        >>> seen = receptive_field(net, (28, 28, 1))
        >>> seen.step, seen.size, seen.first
        ((4, 4), (16, 16), (-2, -2))
    """
    net = lift(net)
    shape = geometry.check_shape(shape)
    if len(shape) < 2:
        raise ValueError(f"an input of {format_shape(shape)} has channels only and no space; give (*space, channels)")
    out = net.out_shape(shape)  # if the shape does not fit, this raises the network's own error
    if not geometry.is_shape(out):
        raise TypeError(
            f"the network gives several arrays of the shapes {out}; choose or join them by a function, and use the "
            "network once more for the others"
        )
    with outermost_path(net.label):
        axes = _followed(net, shape)
    return ReceptiveField(
        tuple(axis.step if axis.step.denominator > 1 else int(axis.step) for axis in axes),
        tuple(math.ceil(axis.high) - math.floor(axis.low) + 1 for axis in axes),
        tuple(math.floor(axis.low) for axis in axes),
        tuple(int(axis.period) for axis in axes),
    )


# A network: its program, operation by operation.


def _followed(net: Layer, shape: Shape) -> Axes:
    """The fields of a network's output."""
    rank = len(shape) - 1
    free: list[tuple[str, ...]] = []

    def follow(space: Shape) -> tuple[Shape, Axes, list[Any]]:
        program = record(net, ((*space, shape[-1]),), batch=2)
        said: list[Any] = []
        reader = Reader(space, said, lambda reader, number, given: _use(reader, program.uses[number], given))
        given = [unknown(leaf.shape) for leaf in jax.tree.leaves((program.params, program.state))]
        try:
            found = reader.read(program.jaxpr, [*given, entrance((Axis(),) * rank, (2, *space, shape[-1]))])
        finally:
            free.extend([reader.free] if reader.free is not None else [])
        return *canonical(found[0], program.output.shape, rank), said

    space = shape[:-1]
    try:
        try:
            axes = follow(space)[1]
        except TooSmall:
            axes = None
        # operations between layers must do the same on larger spaces; for layers this is known
        return axes if axes is not None and not free else followed_alike(follow, space)[1]
    except Mixes as error:
        place = error.place if error.place is not None else next(filter(None, free), ())
        path, part = _around(net, place)
        with layer_path("/".join(path)) if path else contextlib.nullcontext():
            raise ValueError(_refusal(part, error)) from None


def _around(net: Any, place: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
    """The path and the composition that contains an operation."""
    path: tuple[str, ...] = ()
    for step in (name.split("#")[0] for name in place):
        while hasattr(net, "layer") and isinstance(net.layer, Layer):  # repeat and remat add no step to the path
            net = net.layer
        part = dict(net.named_parts()).get(step) if hasattr(net, "named_parts") else None
        if part is None:
            break
        net, path = part, (*path, step)
    while hasattr(net, "layer") and isinstance(net.layer, Layer):
        net = net.layer
    return path, net


def _refusal(part: Any, error: Mixes) -> str:
    if isinstance(part, Graph):
        return f"the wiring {names.code(part.wiring)} {error}; wire by functions that do the same at every position"
    if isinstance(part, (Residual, Branches)):
        return str(error)
    return f"{names.code(part)} {error}; {_FUNCTIONS}"


#: what to do about operations that mix positions
_FUNCTIONS = "use functions that do the same at every position, and fcnn's convolutions and poolings to join positions"


def _use(reader: Reader, use: Use, given: list[Any]) -> Axes:
    """The fields of the output of one use of a layer."""
    own = len(jax.tree.leaves((use.params, use.state)))
    inputs = [canonical(value, x.shape, reader.rank) for value, x in zip(given[own:], use.inputs, strict=True)]
    path = "/".join(step.split("#")[0] for step in use.path.split("/"))
    with layer_path(path) if path else contextlib.nullcontext():
        if len(inputs) > 1:
            return _together(reader, use, [axes for _, axes in inputs])
        ((shape, axes),) = inputs
        return _through(use, shape, axes)


def _through(use: Use, shape: Shape, axes: Axes) -> Axes:
    """The fields of the output of a layer of one input, from its stated facts or from its operations."""
    layer = use.layer
    if len(shape) != len(axes) + 1 and not isinstance(layer, Function):
        raise ValueError(
            f"is given {format_shape(shape)} by the part before it, which is not (*space, channels) with {len(axes)} "
            "axes of space; only functions can follow a part with such an output"
        )
    if use.inside is not None:
        return _scanned(layer, axes)
    stated = facts.locality(layer, shape)
    if stated is None:
        return _by_operations(layer, shape, axes)
    if isinstance(stated, facts.WholeSpace):
        raise ValueError(f"{names.code(layer)} {stated.reason}; {stated.way_out}")
    if isinstance(stated, facts.Resampled) and stated.windows is None:
        return _by_operations(layer, shape, axes, stated.operations)
    if isinstance(stated, (facts.SlidingWindow, facts.Resampled)):
        return _windows(stated.windows, axes)  # type: ignore[arg-type]
    return _spread(stated, axes) if isinstance(stated, facts.SpreadWindow) else axes


# Layers that slide windows over the space.


def _windows(windows: geometry.Windows, axes: Axes) -> Axes:
    found = []
    for n, axis in enumerate(axes):
        before, after = windows.pads[n]
        if windows.fill == "wrap" and (before or after):
            raise ValueError(
                'padding "CIRCULAR" joins the two ends of the space, so a part of it cannot be computed by itself; use '
                'zeros, "REFLECT" or "EDGE"'
            )
        last = geometry.extent(windows.kernel[n], windows.dilation[n]) - 1
        # If at most half of the window is padding, the copied samples lie within the window's reach, so a tile that
        # holds the whole field can copy them. With more padding, the field extends to the copied samples.
        inner = {"reflect": before, "edge": 0}.get(windows.fill, -before)
        outer = {"reflect": 2 * after - 1, "edge": after}.get(windows.fill, 0)
        low, high = -before - max(outer - last, 0), max(last - before, inner)
        found.append(axis.through(windows.stride[n], low, high))
    return tuple(found)


def _spread(stated: facts.SpreadWindow, axes: Axes) -> Axes:
    found = []
    along = zip(axes, stated.kernel, stated.stride, stated.dilation, stated.crops, strict=True)
    for axis, kernel, stride, dilation, (before, after) in along:
        # output o is a sum over the inputs i with s i + d j = o + before, for 0 <= j < kernel ...
        last = geometry.extent(kernel, dilation) - 1
        low, high = before - last, before
        # ... and the field must not omit cropped outputs: output -1 sees input -1, and likewise one past the end
        low, high = min(low, 0), high + max(0, stride - 1 - last + after)
        found.append(axis.through(Fraction(1, stride), Fraction(low, stride), Fraction(high, stride)))
    return tuple(found)


def _scanned(layer: Any, axes: Axes) -> Axes:
    rank = len(axes)
    windows, strides = geometry.per_axis(layer.window, rank, "window"), geometry.per_axis(layer.stride, rank, "stride")
    along = zip(axes, windows, strides, strict=True)
    return tuple(axis.through(stride, 0, window - 1) for axis, window, stride in along)


# Layers without stated geometry, and those of several inputs.


def _by_operations(layer: Layer, shape: Shape, axes: Axes, operations: Callable[[Any], Any] | None = None) -> Axes:
    """A function, or a layer that states no geometry: its operations show whether it keeps positions apart.

    ``operations`` are equivalent ones that can be analysed where the layer's own cannot.
    """
    function = layer.function if isinstance(layer, Function) else applied(layer, shape)
    if why_not_positionwise(function, shape, len(axes) + 1) is None:
        return axes
    try:  # resizing, padding, cropping, ...
        return fields(layer if operations is None else Function(operations), shape, axes)[1]
    except Mixes as error:
        raise ValueError(f"{names.code(layer)} {error}; {_FUNCTIONS}") from None


def _together(reader: Reader, use: Use, inputs: list[Axes]) -> Axes:
    """The fields of the output of a function or layer of several inputs, from its operations."""

    def run(params: Any, state: Any, *inputs: Any) -> Any:
        return use.layer.run(Context(train=False, plan=False), params, state, inputs)[0]

    program, out = jax.make_jaxpr(run, return_shape=True)(use.params, use.state, *use.inputs)
    given = [unknown(leaf.shape) for leaf in jax.tree.leaves((use.params, use.state))]
    inner = Reader(reader.space, reader.said)
    try:
        found = inner.read(
            program, [*given, *(entrance(axes, x.shape) for axes, x in zip(inputs, use.inputs, strict=True))]
        )
        axes = canonical(found[0], out.shape, reader.rank)[1]
    except TooSmall:
        raise
    except Mixes as error:
        raise ValueError(f"{names.code(use.layer)} {error}; {_FUNCTIONS}") from None
    if reader.free is None and inner.free is not None:
        reader.free = tuple(use.path.split("/"))[:-1]
    return axes
