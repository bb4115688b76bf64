r"""Which samples of the input each output of a network sees: integers and fractions, no arrays.

A network that does the same at every position sees, from its output i along an axis, the samples

.. math:: u_i = u_0 + D i \quad\text{to}\quad v_i = v_0 + D i

D is its step, and the receptive field has :math:`R = v_0 - u_0 + 1` samples. Through layers l = 1, ..., L with kernel
k, stride s, dilation d and padding p before,

.. math:: D = \prod_l s_l, \qquad u_0 = -\sum_l p_l D_{l-1}, \qquad
    v_0 = \sum_l \bigl( d_l (k_l - 1) - p_l \bigr) D_{l-1}, \qquad D_l = \prod_{m \le l} s_m

Paths side by side must have one step; the field of their sum or concatenation is the union of theirs. A transposed
convolution has the step 1 / s, and its outputs differ in which samples they see; a shift of the input by the period of
the network moves everything in it by whole samples.

Source:
    Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019: "Single-path
    networks" and "Arbitrary computation graphs".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from .. import facts, geometry, names
from ..compose.graph import Graph
from ..compose.parallel import Branches, Residual
from ..compose.parts import lift
from ..compose.remat import Remat
from ..compose.repeat import Repeat
from ..compose.serial import Serial
from ..compose.wiring import traced
from ..errors import at, at_top, shown
from ..geometry import Shape
from ..identity import nearest
from ..layer import Layer
from ..layers import Function
from ..tracing.positionwise import Mixes, applied, why_not_positionwise
from .axis import Axes, Axis, meet
from .dataflow import Reader, canonical, fields, followed_alike
from .layer import Scan
from .placed import entrance, unknown


@dataclass(frozen=True)
class Reach:
    """The receptive field of a network along every axis of the space, in samples of the input.

    Output i sees nothing outside ``first + step * i`` to ``first + step * i + size - 1``; what lies outside the input
    is padding; what "REFLECT" and "EDGE" copy there lies in the same field or, by one, beside it.

    Attributes:
        step: samples between the fields of neighbouring outputs; a fraction where the output is finer than the input.
        size: samples of one field. With a transposed convolution, the most that any output sees, or one more.
        first: where the field of output 0 begins; negative with padding before.
        period: the shortest shift of the input that moves the output, and all in between, by whole samples. It
            is the step where nothing is transposed.
    """

    step: tuple[int | Fraction, ...]
    size: Shape
    first: Shape
    period: Shape


def reach(net: Any, shape: Shape) -> Reach:
    """Find the receptive field of a network that does the same at every position.

    Args:
        net: convolutions, pooling over windows, whatever looks at one position, functions that move over the space
            in steps of their own (resizing by a factor, cropping, padding, pixel shuffling), and compositions and
            graphs of these. Functions, wirings and layers of your own are read operation by operation.
        shape: shape of one example, (*space, channels); with "SAME" the padding, and so ``first``, depends on it.

    Returns:
        Steps, sizes and offsets along every axis.

    Raises:
        ValueError: a layer that mixes positions or treats them differently, paths that move in different steps, or
            a shape that does not suit the network; the message names the layer.
        TypeError: not a network, or one that gives several arrays.

    Source:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill, 2019.

    Example:
        >>> net = fcnn.serial(fcnn.Conv(6, 5, padding="SAME"), fcnn.MaxPool(2), fcnn.Conv(16, 5), fcnn.MaxPool(2))
        >>> seen = reach(net, (28, 28, 1))
        >>> seen.step, seen.size, seen.first
        ((4, 4), (16, 16), (-2, -2))
    """
    net = lift(net)
    shape = geometry.check_shape(shape)
    if len(shape) < 2:
        raise ValueError(f"an input of {shown(shape)} has channels only and no space; give (*space, channels)")
    out = net.out_shape(shape)  # where the shape does not suit the network, in the words of the network
    if not geometry.is_shape(out):
        raise TypeError(
            f"the network gives several arrays of the shapes {out}; choose or join them by a function, and use the "
            "network once more for the others"
        )
    with at_top(net.label):
        _, axes = follow(net, shape, (Axis(),) * (len(shape) - 1))
    return Reach(
        tuple(axis.step if axis.step.denominator > 1 else int(axis.step) for axis in axes),
        tuple(math.ceil(axis.high) - math.floor(axis.low) + 1 for axis in axes),
        tuple(math.floor(axis.low) for axis in axes),
        tuple(int(axis.period) for axis in axes),
    )


def follow(layer: Layer, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    """Follow fields through a layer.

    Args:
        layer: of one input.
        shape: of that input, without the batch.
        axes: the fields of the input's values.

    Returns:
        Shape and fields of the output.

    Raises:
        ValueError: a layer that mixes positions or treats them differently.
    """
    kind = nearest(layer, _COMPOSITIONS)
    if kind is not None:
        return _COMPOSITIONS[kind](layer, shape, axes)
    if len(shape) != len(axes) + 1 and not isinstance(layer, Function):
        raise ValueError(
            f"is given {shown(shape)} by the part before it, which is not (*space, channels) with {len(axes)} axes of "
            "space; only functions can follow a part that makes something else at every position"
        )
    stated = facts.locality(layer, shape)
    if stated is None:
        return _by_operations(layer, shape, axes)
    if isinstance(stated, facts.WholeSpace):
        raise ValueError(f"{names.code(layer)} {stated.reason}; {stated.way_out}")
    if isinstance(stated, facts.Resampled) and stated.windows is None:
        return _by_operations(layer, shape, axes, stated.operations)
    out = layer.infer_shape(shape)
    if isinstance(stated, (facts.SlidingWindow, facts.Resampled)):
        return out, _windows(stated.windows, axes)  # type: ignore[arg-type]
    return out, _spread(stated, axes) if isinstance(stated, facts.SpreadWindow) else axes


# Layers that move windows over the space.


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
        # What is copied lies no further inside than the window reaches where at most half of the window is padding, so
        # a part that holds a whole field can copy it. Where more is, the field reaches as far as the copied samples.
        inner = {"reflect": before, "edge": 0}.get(windows.fill, -before)
        outer = {"reflect": 2 * after - 1, "edge": after}.get(windows.fill, 0)
        low, high = -before - max(outer - last, 0), max(last - before, inner)
        found.append(axis.through(windows.stride[n], low, high))
    return tuple(found)


def _spread(stated: facts.SpreadWindow, axes: Axes) -> Axes:
    found = []
    along = zip(axes, stated.kernel, stated.stride, stated.dilation, stated.crops, strict=True)
    for axis, kernel, stride, dilation, (before, after) in along:
        # output o is made of the inputs i with s i + d j = o + before, for 0 <= j < kernel ...
        last = geometry.extent(kernel, dilation) - 1
        low, high = before - last, before
        # ... and what is cropped away must not seem to be there: output -1 sees input -1, the one past the end likewise
        low, high = min(low, 0), high + max(0, stride - 1 - last + after)
        found.append(axis.through(Fraction(1, stride), Fraction(low, stride), Fraction(high, stride)))
    return tuple(found)


# Compositions.


def _scan(layer: Any, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    rank = len(axes)
    windows, strides = geometry.per_axis(layer.window, rank, "window"), geometry.per_axis(layer.stride, rank, "stride")
    along = zip(axes, windows, strides, strict=True)
    return layer.infer_shape(shape), tuple(axis.through(stride, 0, window - 1) for axis, window, stride in along)


def _serial(layer: Any, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    for name, part in layer.parts:
        with at(name):
            shape, axes = follow(part, shape, axes)
    return shape, axes


def _parallel(layer: Any, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    paths = []
    for name, part in layer.named_parts():
        with at(name):
            paths.append(follow(part, shape, axes)[1])
    if isinstance(layer, Residual) and layer.shortcut is None:
        paths.append(axes)
    return layer.infer_shape(shape), meet(paths)


def _repeat(layer: Any, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    for _ in range(layer.n):
        shape, axes = follow(layer.layer, shape, axes)
    return shape, axes


def _remat(layer: Any, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    return follow(layer.layer, shape, axes)


def _graph(layer: Any, shape: Shape, axes: Axes) -> tuple[Shape, Axes]:
    rank = len(axes)

    def follow_wiring(space: Shape) -> tuple[Shape, Axes, list[Any]]:
        said: list[Any] = []
        return *_wired(layer, [((*space, *shape[rank:]), (Axis(),) * rank)], space, said), said

    try:
        out, own = followed_alike(follow_wiring, shape[:rank])
    except Mixes as error:
        raise ValueError(
            f"the wiring {names.code(layer.wiring)} {error}; wire by functions that do the same at every position"
        ) from None
    return out, tuple(axis.then(inner) for axis, inner in zip(axes, own, strict=True))


def _wired(layer: Any, inputs: list[tuple[Shape, Axes]], space: Shape, said: list[Any]) -> tuple[Shape, Axes]:
    """Follow the inputs of a graph through its wiring and the layers that it calls."""
    shapes, rank = [shape for shape, _ in inputs], len(inputs[0][1])
    params = jax.eval_shape(lambda: layer.init_part(jax.random.key(0), tuple(shapes)))
    wiring, parts = traced(layer, params, *shapes, batch=2), dict(layer.parts)

    def use(number: int, given: list[tuple[Shape, Axes]]) -> tuple[Shape, Axes]:
        name = wiring.uses[number].name
        with at(name):
            return _used(parts[name], given, space, said)

    given = [unknown(leaf.shape) for leaf in jax.tree.leaves(params)]
    found = Reader(space, said, use).read(
        wiring.program, [*given, *(entrance(axes, (2, *shape)) for shape, axes in inputs)]
    )
    return canonical(found[0], jax.tree.leaves(wiring.out)[0].shape, rank)


def _used(part: Layer, given: list[tuple[Shape, Axes]], space: Shape, said: list[Any]) -> tuple[Shape, Axes]:
    """Follow the inputs of one use of a layer; only graphs and functions take several."""
    if isinstance(part, Remat):
        return _used(part.layer, given, space, said)
    if isinstance(part, Graph):
        return _wired(part, given, space, said)
    if len(given) == 1:
        return follow(part, *given[0])
    if not isinstance(part, Function):
        raise ValueError(f"{names.code(part)} takes several inputs; join them by a function or a graph")
    rank = len(given[0][1])
    structs = [jax.ShapeDtypeStruct((2, *shape), jnp.zeros(()).dtype) for shape, _ in given]
    program, out = jax.make_jaxpr(part.function, return_shape=True)(*structs)
    found = Reader(space, said).read(program, [entrance(axes, (2, *shape)) for shape, axes in given])
    return canonical(found[0], out.shape, rank)


# What looks at one position, and what does not.


def _by_operations(
    layer: Layer, shape: Shape, axes: Axes, operations: Callable[[Any], Any] | None = None
) -> tuple[Shape, Axes]:
    """A function, or a layer that states no geometry: its operations say whether it keeps positions apart.

    Where they cannot be followed, there are others that do the same.
    """
    function = layer.function if isinstance(layer, Function) else applied(layer, shape)
    if why_not_positionwise(function, shape, len(axes) + 1) is None:
        return tuple(layer.infer_shape(shape)), axes
    try:  # resizing, padding, cropping, ...
        return fields(layer if operations is None else Function(operations), shape, axes)
    except Mixes as error:
        raise ValueError(
            f"{names.code(layer)} {error}; use functions that do the same at every position, and fcnn's convolutions "
            "and poolings to join positions"
        ) from None


#: compositions, whose parts are followed; a layer is followed by what it states of itself, or by its operations
_COMPOSITIONS: dict[type, Callable[[Any, Shape, Axes], tuple[Shape, Axes]]] = {
    Serial: _serial,
    Residual: _parallel,
    Branches: _parallel,
    Scan: _scan,
    Repeat: _repeat,
    Remat: _remat,
    Graph: _graph,
}
